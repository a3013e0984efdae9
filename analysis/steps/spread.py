"""`- spread: {metric: …}`: how far the seeds of every arm lie apart."""

from __future__ import annotations

from dataclasses import dataclass

from stackwise_ray.core.analysis_step import MetricRead, StepOptions
from stackwise_ray.core.metric_catalogue import format_metric
from stackwise_ray.core.registries import ANALYSES

from ..render import Grid
from ..report.page import sentence_and_table
from ..report.reported_steps import Finding, ReportedStep
from ..table.sweep_directory import Sweep


@dataclass(frozen=True, kw_only=True)
class Spread(StepOptions):
    """Of which metric."""

    metric: str = "validation/loss"


class SpreadStep(ReportedStep):
    """Least, most and their distance, one row per arm."""

    options = Spread
    title = "Spread of the seeds"

    def reads(self, options: Spread) -> tuple[MetricRead, ...]:
        return (MetricRead(metric=options.metric, key="metric", instead="take validation/masked_loss"),)

    def compute(self, sweep: Sweep, options: Spread) -> Finding:
        metric = options.metric
        by_arm = sweep.runs.groupby("arm")[metric].agg(["min", "max"])
        facts = {str(arm): row["max"] - row["min"] for arm, row in by_arm.to_dict("index").items()}
        rows = tuple(
            (
                str(arm),
                *(format_metric(metric, float(value)) for value in (row["min"], row["max"], row["max"] - row["min"])),
            )
            for arm, row in by_arm.iterrows()
        )
        widest = max(facts, key=lambda arm: facts[arm])
        sentence = f"The seeds of {widest} lie {format_metric(metric, facts[widest])} apart on {metric}, the widest."
        grid = Grid(("arm", "least", "most", "apart"), rows, numeric=(1, 2, 3))
        opening, blocks = sentence_and_table(sentence, grid)
        return Finding(sentence=sentence, facts=facts, opening=opening, blocks=blocks, grid=grid)


ANALYSES.register("spread")(SpreadStep())
