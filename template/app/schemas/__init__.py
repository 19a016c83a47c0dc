"""The bodies of this service's own routes."""
