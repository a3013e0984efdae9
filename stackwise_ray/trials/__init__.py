"""Layer 5: which trial comes next: arms, search, tuning, adaptive replicates. No Ray."""
