"""Layer 2: optimization flags, one per file; each is a value with a pure edit of the trial's config.

`apply_flags` is called once, where a trial is planned or assembled. Nothing else asks whether a flag is on: the
behaviour lives in the component that the edited config selects. No torch here.
"""

from stackwise_ray.flags._flag import FLAGS, Flag, Measure, apply_flags

__all__ = ["FLAGS", "Flag", "Measure", "apply_flags"]
