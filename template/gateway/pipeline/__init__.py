"""The steps of a generation."""
