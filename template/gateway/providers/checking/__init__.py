"""The checks of `models check`."""
