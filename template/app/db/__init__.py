"""Engine, tables and the transactions that everything durable goes through."""
