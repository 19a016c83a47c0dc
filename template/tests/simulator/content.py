"""What the simulated models say: they repeat the prompt, so that a test knows each token."""


def say(prompt: str) -> tuple[str, ...]:
    """Answer a prompt; each piece is one token and, in a stream, one chunk."""
    words = ["You", "said:", *prompt.split()]
    return (words[0], *(f" {word}" for word in words[1:]))


def count_tokens(text: str) -> int:
    """Count words: never more than the text has bytes, like any real tokenizer."""
    return len(text.split())
