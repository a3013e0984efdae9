"""Several workers on one trial: how they add up, and how they share a model out."""
