"""One module per model family; each registers the entry of its own name in `stackwise_ray.models.FAMILIES`."""
