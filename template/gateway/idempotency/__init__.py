"""The first answer again for the same Idempotency-Key."""
