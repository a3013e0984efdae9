"""Layer 4: what a trial or a sweep will cost in FLOPs, steps, hours and bytes, before anything runs. No Ray."""
