"""Files as they are read: YAML, shipped search spaces, presets, what one file inherits from another."""
