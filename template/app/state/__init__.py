"""What the limits share between requests: one interface, one file per backend."""
