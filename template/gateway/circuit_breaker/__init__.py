"""A circuit for each provider and model."""
