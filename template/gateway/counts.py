"""Counts in sentences."""


def counted(number: int, noun: str) -> str:
    """`1 request`, `2 requests`: a number with its noun, which forms its plural with an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
