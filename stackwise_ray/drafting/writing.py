"""A search-space file as a text, with a comment where a reader would ask why."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from stackwise_ray.core.quantities import format_seconds
from stackwise_ray.core.untuned_rates import RATE
from stackwise_ray.drafting.contests import Contest

BATCH_TOKENS = 1024
"""Tokens per batch: small models gain more from many steps than from large batches."""
TUNING_FROM_SECONDS = 300.0
"""Fewest seconds of a sweep that tunes: in less time, the short trials of the tuning would take most of it."""
LEAST_HOURS = 0.25
"""Least `limits.wall_hours`, otherwise twice the time: on a busy machine the start of Ray alone takes minutes."""
FEW_SEEDS, SEEDS = 3, 5
"""Seeds below `TUNING_FROM_SECONDS`, and from it on: a paired t test then has 2, or 4 degrees of freedom."""


@dataclass(frozen=True, kw_only=True)
class SearchSpaceDraft:
    """What the file says.

    Attributes:
        model, data: Presets.
        path: Of the text, where the data are the user's own.
        lr: The learning rate of the base.
        seconds: How long the sweep may take.
        budget: `training.budget`, as the file has it.
        planned_seconds: What the plan says with this budget; None: not planned yet.
    """

    contest: Contest
    claim: str
    model: str
    data: str
    path: str | None
    lr: float
    seconds: float
    budget: Mapping[str, float]
    planned_seconds: float | None = None

    def with_budget(self, planned_seconds: float | None = None, **budget: float) -> SearchSpaceDraft:
        """The same with another budget."""
        return replace(self, budget=budget, planned_seconds=planned_seconds)

    def text(self) -> str:
        """The file."""
        baseline = self.contest.baseline
        ((unit, amount),) = self.budget.items()
        metric = "validation/masked_loss" if self.contest.role == "encoder" else "validation/loss"
        seeds = SEEDS if self.seconds >= TUNING_FROM_SECONDS else FEW_SEEDS
        lines = [
            f"name: {self.contest.name}",
            f"question: {_inline(self.claim)}",
            "base: # what all arms have in common",
            f"  model: {self.model}",
            f"  data: {self.data}",
            "  overrides:",
            *([] if self.path is None else [f"    data.path: {_inline(self.path)}"]),
            f"    training.budget: {{{unit}: {amount:.2g}}} # the same for every arm; {self._fit()}",
            f"    training.batch_tokens: {BATCH_TOKENS}",
            "    training.evaluations: 4",
            "    data.validation_tokens: 16384",
            "    data.final_evaluation: fixed # full: whole splits are scored too, which takes longer",
            "design:",
            "  kind: arms",
            "  arms: # what differs from the base, and nothing else",
            *(f"    {arm}: {_inline(dict(changes))}" for arm, changes in self.contest.arms.items()),
            f"  baseline: {baseline}",
            f"replicates: {{seeds: {seeds}}} # on each, all arms see the same data order: they are compared in pairs",
            *self._tuning(),
            f"limits: {{wall_hours: {max(self.seconds / 1800, LEAST_HOURS):.3g}}} # should the plan be wrong",
            "analysis: # declared before the first trial",
            f"  - compare: {{metric: {metric}, baseline: {baseline}, margin: 0.02}} # smaller: no difference",
            *(
                f"  - compare: {{metric: {other}, baseline: {baseline}}}"
                for other in self.contest.also
                if other != metric
            ),
        ]
        return "\n".join(lines) + "\n"

    def _fit(self) -> str:
        if self.planned_seconds is None:
            return "not planned yet"
        return f"planned: {format_seconds(self.planned_seconds)} of {format_seconds(self.seconds)}"

    def _tuning(self) -> list[str]:
        if any(RATE in change for change in self.contest.arms.values()):
            return ["tune: null # the arms are learning rates"]
        if not self.contest.tuned:
            return ["tune: null # the arms differ in nothing that needs another learning rate"]
        if self.seconds < TUNING_FROM_SECONDS:
            return ["tune: null # too little time: one learning rate for all arms"]
        return [
            "tune: # each arm finds its own learning rate, in short trials on seeds of their own",
            f"  space: {{training.lr: {{log_uniform: [{self.lr / 3:.2g}, {self.lr * 3:.2g}]}}}}",
            "  trials_per_arm: 3",
        ]


def _inline(value: Any) -> str:
    """A value on one line of YAML; a text in quotes."""
    quoted = '"' if isinstance(value, str) else None
    shown: str = yaml.safe_dump(
        value, default_style=quoted, default_flow_style=True, width=sys.maxsize, allow_unicode=True, sort_keys=False
    )
    return shown.strip()
