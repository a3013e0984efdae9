"""What every kind of declared analysis promises: options that a search space can give, and a section in the report."""

from __future__ import annotations

from stackwise_ray.contracts import require, require_frozen
from stackwise_ray.core.registries import ANALYSES


def its_options_are_declared(name: str) -> None:
    """Its options are a frozen dataclass, so that a search space is refused where it gives an unknown one."""
    require_frozen(ANALYSES.get(name).options)


def it_has_a_section(name: str) -> None:
    """It has a title for its section, and computes something."""
    step = ANALYSES.get(name)
    require(getattr(step, "title", ""), "its section has no title")
    require(callable(getattr(step, "compute", None)), "it has no `compute`")


CHECKS = (its_options_are_declared, it_has_a_section)
