"""Counts in sentences."""


def counted(number: int, noun: str) -> str:
    """A number with its noun, whose plural has an s: `1 request`, `2 requests`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
