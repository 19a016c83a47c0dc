"""HTTP around a generation: bounds, errors, streams."""
