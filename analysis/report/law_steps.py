"""What the steps that fit a law of the final loss share: heading, the metric that they read, and how a fit is reported.

Base of `steps.scaling_law` and `steps.isoflop`; a plugin that fits another law may use it too.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from stackwise_ray.core.analysis_step import MetricRead
from stackwise_ray.core.invocation import ANALYSIS, as_started

from ..render import Grid
from .page import Picture, sentence_and_table
from .reported_steps import Finding, ReportedStep


class Fit(Protocol):
    """A fitted law as a report needs it."""

    @property
    def sentence(self) -> str: ...
    @property
    def grid(self) -> Grid: ...
    @property
    def short_grid(self) -> Grid: ...
    def to_dict(self) -> Mapping[str, Any]: ...


class LawStep(ReportedStep, ABC):
    """A law of the final loss over sizes and budgets.

    Attributes:
        command: The command of `python -m analysis` that fits the same to another loss, after the sweep.
    """

    title = "Scaling laws"
    refuses_search = "is about sizes and budgets, and a search has none; use design.kind: isoflop or ladder"
    command: ClassVar[str]

    def reads(self, options: Any) -> tuple[MetricRead, ...]:
        """Laws are of the final loss."""
        later = f"after the sweep: {as_started(ANALYSIS)} {self.command} DIR --map loss=validation/masked_loss"
        return (MetricRead(metric="validation/loss", instead=f"fit the common one {later}"),)

    def finding(self, fit: Fit, draw: Callable[[Path], Picture] | None, *, believable: bool) -> Finding:
        """A fit with its table and its figure."""
        opening, blocks = sentence_and_table(fit.sentence, fit.grid, believable=believable)
        return Finding(
            sentence=fit.sentence,
            facts=fit.to_dict(),
            result=fit,
            opening=opening,
            blocks=blocks,
            draw=draw,
            grid=fit.short_grid,
            believable=believable,
        )
