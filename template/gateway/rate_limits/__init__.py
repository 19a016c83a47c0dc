"""Requests, tokens and concurrent generations."""
