"""One module per backend of the resolvent ops; each registers the entry of its own name in `BACKENDS`."""
