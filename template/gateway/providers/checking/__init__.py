"""What `models check` asks of a provider."""
