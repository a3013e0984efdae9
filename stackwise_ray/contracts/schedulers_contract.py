"""What every rule of early stopping promises: it is made with and without its options, for either direction."""

from __future__ import annotations

from stackwise_ray.contracts import require
from stackwise_ray.core.registries import SCHEDULERS


def it_is_made_with_its_options(name: str) -> None:
    """It is made in both directions, with and without its options, and decides on results."""
    rule = SCHEDULERS.get(name)
    for mode in ("min", "max"):
        for options in ({}, dict.fromkeys(rule.options, 2.0)):
            made = rule.make(grace=0.2, mode=mode, **options)
            require(hasattr(made, "on_trial_result"), f"it makes {type(made).__name__}, which is no scheduler of Tune")


CHECKS = (it_is_made_with_its_options,)
