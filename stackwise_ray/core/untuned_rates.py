"""Whether the learning rate of a sweep was left untuned, and in which words: one rule for the plan and the report."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

RATE = "training.lr"
ONE_RATE = "one learning rate for all arms, not tuned"
OWN_RATES = "each arm has a learning rate of its own, none of them tuned"


@dataclass(frozen=True, kw_only=True)
class ArmRate:
    """The learning rate of one arm.

    Attributes:
        rate: Its value; None: nobody recorded it.
        parameters: What the arm sets, by dotted path.
    """

    rate: float | None
    parameters: Mapping[str, Any] = field(default_factory=dict)


def untuned_rate(arms: Collection[ArmRate], tuned: Collection[str]) -> str | None:
    """What a reader must know about the learning rate; None where it was tuned, or where the arms are learning rates.

    Args:
        tuned: Dotted paths that a tuning stage or a search chooses.

    >>> untuned_rate([ArmRate(rate=0.01), ArmRate(rate=0.01)], tuned=())
    'one learning rate for all arms, not tuned'
    >>> untuned_rate([ArmRate(rate=r, parameters={"training.lr": r}) for r in (0.01, 0.1)], tuned=()) is None
    True
    """
    arms = list(arms)
    if len(arms) < 2 or RATE in tuned or any(arm.rate is None for arm in arms):
        return None
    if any(RATE in arm.parameters for arm in arms):
        return None
    return ONE_RATE if len({arm.rate for arm in arms}) == 1 else OWN_RATES
