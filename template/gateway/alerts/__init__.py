"""Alerts to the owner: log lines and a webhook."""
