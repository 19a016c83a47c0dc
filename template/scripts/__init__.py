"""Programs for this project's own work: run them from its root, `python -m scripts.NAME`."""
