"""Logs, metrics and the redactor that all of them share."""
