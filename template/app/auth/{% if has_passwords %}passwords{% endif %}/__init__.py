"""What log-ins with a password share: counted attempts, and hashes in turn."""
