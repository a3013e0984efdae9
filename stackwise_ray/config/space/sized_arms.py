"""The arms of the designs `isoflop` and `ladder`: every size at every budget.

Under `isoflop` a budget is FLOPs, and what they buy follows from the counted FLOPs of each size. Under `ladder` it is
tokens in proportion to the size's parameters. `config.space.designs` builds and checks the trials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from stackwise_ray.config.space.resolver import Resolver
from stackwise_ray.config.space.sweep_config import IsoflopDesign, LadderDesign
from stackwise_ray.config.trial import ModelConfig
from stackwise_ray.config.trial.paths import BUDGET
from stackwise_ray.core.registry import Registry

PARAMETER_COUNTS: Registry[Callable[[ModelConfig], int]] = Registry("parameter count", package="stackwise_ray.models")
"""Non-embedding parameters of a model. They are counted on a model without weights, which a higher layer makes: torch
loads with the entry, and only a ladder asks for it."""


class Written(NamedTuple):
    """An arm as the file has it.

    Attributes:
        place: Dotted path in the file of its changes.
        changes: What it sets over the base.
    """

    name: str
    place: str
    changes: Mapping[str, Any]


def sized_arms(design: IsoflopDesign | LadderDesign, resolver: Resolver) -> Iterator[Written]:
    """The arms in order: of each size, all budgets.

    Raises:
        ConfigError: A ladder's size cannot be built.
    """
    for size, changes in design.sizes.items():
        place = f"design.sizes.{size}"
        for label, budget in _budgets(design, changes, resolver, place):
            yield Written(f"{size},{label}", place, {**changes, BUDGET: budget})


def _budgets(
    design: IsoflopDesign | LadderDesign, changes: Mapping[str, Any], resolver: Resolver, place: str
) -> Iterator[tuple[str, dict[str, float]]]:
    """A label and the `training.budget` of each budget of one size."""
    if isinstance(design, IsoflopDesign):
        yield from ((f"flops={flops:g}", {"flops": flops}) for flops in design.flops)
        return
    params = PARAMETER_COUNTS.get("sizes")(resolver.trial(changes, place=place).model)
    for ratio in design.tokens_per_parameter:
        yield f"ratio={ratio:g}", {"tokens": float(round(ratio * params))}
