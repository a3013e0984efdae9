"""Steps and sweeps for tests of declared analyses: a whole analysis in one class, and a sweep that declares it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from synthetic_sweeps import JournalBuilder, final_metrics

from analysis.render import Grid
from analysis.report.page import sentence_and_table
from analysis.report.reported_steps import Finding, ReportedStep
from analysis.table.sweep_directory import Sweep
from stackwise_ray.config.loading import sweep_from_plain
from stackwise_ray.config.space.sweep_config import sweep_to_plain
from stackwise_ray.core.analysis_step import PlannedSweep, StepOptions
from stackwise_ray.core.errors import ConfigError

DOCUMENT: dict[str, Any] = {
    "name": "cheap",
    "base": {"model": "decoder/gpt2_family/tiny", "data": "markov"},
    "design": {"kind": "arms", "arms": {"a": {}, "b": {"training.lr": 1e-3}}, "baseline": "a"},
}


@dataclass(frozen=True, kw_only=True)
class BudgetTable(StepOptions):
    unit: Literal["flops", "tokens"] = "flops"
    fewest: int = 1


class BudgetTableStep(ReportedStep):
    """What every arm spent, and nothing else: a whole analysis in one class."""

    options = BudgetTable
    title = "Budget table"

    def check(self, options: BudgetTable, planned: PlannedSweep) -> None:
        if planned.seeds < options.fewest:
            raise ConfigError(f"= {options.fewest} is more than the {planned.seeds} seeds; lower it", path="fewest")

    def compute(self, sweep: Sweep, options: BudgetTable) -> Finding:
        spent = sweep.runs.groupby("arm")[options.unit].sum().to_dict()
        grid = Grid(("arm", options.unit), tuple((arm, f"{value:.3g}") for arm, value in spent.items()))
        sentence = f"All arms together spent {sum(spent.values()):.3g} {options.unit}."
        opening, blocks = sentence_and_table(sentence, grid)
        return Finding(sentence=sentence, facts=spent, opening=opening, blocks=blocks, grid=grid)


def raises(self: Any, options: Any, *_: Any) -> Any:
    return {}["nothing"]


def write_sweep(folder: Path, *analysis: dict[str, Any]) -> Path:
    """Two arms of two seeds, journaled with the file that declares these analyses."""
    sweep = sweep_from_plain({**DOCUMENT, "analysis": list(analysis)})
    builder = JournalBuilder(folder)
    for arm, shift in (("a", 0.0), ("b", 0.1)):
        for seed in (0, 1):
            builder.trial(arm, seed, final_metrics(3.0 + shift + 0.01 * seed, flops=1e9, tokens=2e6))
    builder.meta(sweep=json.loads(json.dumps(sweep_to_plain(sweep))))
    return builder.close()
