"""Layer 1, no torch and no ray: what a trial and a sweep are, and how files and words become them."""
