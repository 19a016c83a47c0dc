"""Limits of requests, tokens and concurrent generations."""
