"""Layer 4, the only place that imports ray: sessions, the trial actor, sources of trials, the tuner, workers."""
