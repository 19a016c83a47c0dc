"""The path of a generation."""
