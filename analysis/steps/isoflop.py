"""`- isoflop: {}`: the best size of every budget, and how it grows with the budget."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stackwise_ray.core.analysis_step import PlannedSweep, StepOptions
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.registries import ANALYSES

from ..plots.figures import PanelFigure
from ..report.law_steps import LawStep
from ..report.page import Picture
from ..report.reported_steps import Finding
from ..table.sweep_directory import Sweep

if TYPE_CHECKING:
    from ..scaling.isoflop_valleys import IsoFlopFit


@dataclass(frozen=True, kw_only=True)
class Isoflop(StepOptions):
    """It has no options: the budgets are those of the design."""


class IsoflopStep(LawStep):
    """The optimum of each budget of FLOPs, among the sizes that were trained with it."""

    options = Isoflop
    command = "isoflop"

    def check(self, options: Isoflop, planned: PlannedSweep) -> None:
        """It needs budgets of FLOPs, with enough sizes at one of them."""
        other = next((arm.name for arm in planned.arms if arm.budget_unit != "flops"), None)
        if other is not None:
            raise ConfigError(f"needs budgets of FLOPs, and {other} has another; use design.kind: isoflop")
        from ..scaling.law_table import FEWEST_SIZES

        if max(Counter(arm.budget for arm in planned.arms).values()) < FEWEST_SIZES:
            raise ConfigError(f"needs at least {FEWEST_SIZES} sizes at a budget; add sizes")

    def called(self, options: Isoflop) -> str:
        """As the other laws are called."""
        return "law 'isoflop'"

    def compute(self, sweep: Sweep, options: Isoflop) -> Finding:
        """The optima and their growth; a budget without an optimum is refused by name among them."""
        from ..scaling.isoflop_valleys import fit_isoflop

        fit = fit_isoflop(sweep.runs, budgets="budget")
        return self.finding(fit, partial(_picture, fit), believable=not fit.refusals)


def _picture(fit: IsoFlopFit, path: Path) -> Picture:
    from ..plots.law_figures import isoflop_panels

    title, caption = "Loss over model size at each budget", "No budget has an optimum."
    if fit.accepted:
        title = "The best size at each budget"
        caption = (
            "First panel: loss over size at each budget, with its curve and the floor of that. Second panel: the "
            "floors over the budget."
        )
    figure = PanelFigure(path=path, panels=tuple(isoflop_panels(fit)))
    return Picture(title=title, figure=figure, caption=caption)


ANALYSES.register("isoflop")(IsoflopStep())
