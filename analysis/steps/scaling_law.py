"""`- scaling_law: {law: …}`: a law of the loss over the sizes and budgets of a sweep, with its certificate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stackwise_ray.core.analysis_step import PlannedSweep, StepOptions
from stackwise_ray.core.errors import AnalysisError, ConfigError, did_you_mean
from stackwise_ray.core.registries import ANALYSES, LAWS

from ..plots.figures import PanelFigure
from ..report.law_steps import LawStep
from ..report.page import Picture
from ..report.reported_steps import Finding
from ..table.sweep_directory import Sweep

if TYPE_CHECKING:
    from ..scaling.scaling_fit import ScalingFit


_RECORDED = ("params", "tokens", "flops")
"""What a sweep records of each run that a law may depend on."""


@dataclass(frozen=True, kw_only=True)
class ScalingLaw(StepOptions):
    """Which law; as the arguments of `fit_scaling_law`."""

    law: str = "chinchilla"  # a name in `core.registries.LAWS`
    holdout: Literal["largest"] | None = "largest"  # refit without the largest budgets and predict them; null: not


class ScalingLawStep(LawStep):
    """A parametric law, fitted to the finished runs."""

    options = ScalingLaw
    command = "fit"

    def check(self, options: ScalingLaw, planned: PlannedSweep) -> None:
        """Refuse a law that the runs of the sweep will be too few for."""
        if options.law not in LAWS:
            raise ConfigError(f"= {options.law} is not a law; {did_you_mean(options.law, LAWS.names())}", path="law")
        law = LAWS.get(options.law)
        unknown = [name for name in law.columns if name not in _RECORDED]
        if unknown:
            problem = f"= {options.law} needs {' and '.join(unknown)} of each run, which a sweep does not record"
            raise ConfigError(f"{problem}; choose chinchilla, or fit it from a table", path="law")
        from ..scaling.law_table import require_runs

        try:
            require_runs(len(planned.arms) * planned.seeds, len(law.parameters), options.law)
        except AnalysisError as error:
            raise ConfigError(str(error)) from None

    def called(self, options: ScalingLaw) -> str:
        """The law by its name."""
        return f"law '{options.law}'"

    def compute(self, sweep: Sweep, options: ScalingLaw) -> Finding:
        """The fit with its certificate."""
        from ..scaling.parametric_law import fit_scaling_law

        fit = fit_scaling_law(sweep.runs, **asdict(options))
        return self.finding(fit, partial(_picture, fit), believable=fit.certificate.holds is True)


def _picture(fit: ScalingFit, path: Path) -> Picture:
    from ..plots.law_figures import law_panels

    certificate = fit.certificate
    held_out = f"There is no hold-out: {certificate.no_holdout}."
    if certificate.holdout is not None:
        held_out = "Second panel: the runs held out, against what was predicted."
    caption = f"First panel: the law with its 95 % band among the runs. {held_out}"
    figure = PanelFigure(path=path, panels=tuple(law_panels(fit)))
    return Picture(title=f"Scaling law {fit.law}", figure=figure, caption=caption)


ANALYSES.register("scaling_law")(ScalingLawStep())
