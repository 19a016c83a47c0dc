"""Engine, tables and pagination."""
