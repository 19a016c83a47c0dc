"""The chosen log-in: it finds the user of a request."""
