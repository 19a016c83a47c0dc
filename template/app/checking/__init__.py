"""`python -m app models check`: is a model at its provider what `models.toml` says?"""
