"""What every component that a flag selects promises: its own name, and options that all have a default."""

from __future__ import annotations

import dataclasses

from stackwise_ray.contracts import require
from stackwise_ray.core.registries import COMPONENTS


def it_says_who_it_is(name: str) -> None:
    """It is registered under its own name."""
    found = getattr(COMPONENTS.get(name), "name", None)
    require(found == name, f"its name is {found!r}, and it is '{name}'")


def its_options_have_defaults(name: str) -> None:
    """Its options are a frozen dataclass that can be made without any argument."""
    options = COMPONENTS.get(name).options
    frozen = dataclasses.is_dataclass(options) and options.__dataclass_params__.frozen  # type: ignore[attr-defined]
    require(frozen, f"its options {options!r} are no frozen dataclass")
    require(options() == options(), "two sets of its default options differ")


CHECKS = (it_says_who_it_is, its_options_have_defaults)
