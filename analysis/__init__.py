"""Answers from runs: comparisons with verdicts, scaling laws, rankings over tasks, power, the report of a sweep.

It works on what our sweeps wrote and on anybody's MLflow experiment or CSV, and imports neither torch nor ray. Names
load on first use, so `import analysis` costs next to nothing.

    runs = analysis.load_runs("experiments/ablation")
    print(analysis.compare(runs, "validation/loss", baseline="attention"))

Rooms, from the ground up: `table` (from anywhere to typed runs), `paired` (comparisons), `anytime` (verdicts that hold
whenever one looks), `tasks` (scores over many tasks), `scaling` (laws and IsoFLOP fits), `plots`, `report`, `commands`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError

if TYPE_CHECKING:
    from .anytime.e_process import seeds_possible
    from .anytime.sequential import compare_sequentially, sequential_verdict
    from .anytime.simulation import SequentialPlan, sequential_seeds, simulated_power
    from .anytime.verdict import SequentialComparison, Verdict
    from .paired.comparison import ArmComparison, Comparison
    from .paired.intervals import Interval
    from .paired.power import minimum_detectable_effect, power, seeds_needed
    from .paired.significance import compare
    from .report.compose import write_report
    from .report.summary import summary_table
    from .scaling.allocation import optimal_allocation
    from .scaling.frontier import FrontierFit, fit_frontier
    from .scaling.isoflop_valleys import IsoFlopFit, fit_isoflop
    from .scaling.parametric_law import ScalingFit, fit_scaling_law
    from .table.runs import load_curves, load_runs
    from .tasks.aggregation import aggregate
    from .tasks.hierarchical import hierarchical_bootstrap
    from .tasks.items import ItemComparison, compare_items
    from .tasks.ranking import Ranking, rank

_HOME = {
    "ArmComparison": "paired.comparison",
    "Comparison": "paired.comparison",
    "FrontierFit": "scaling.frontier",
    "Interval": "paired.intervals",
    "IsoFlopFit": "scaling.isoflop_valleys",
    "ItemComparison": "tasks.items",
    "Ranking": "tasks.ranking",
    "ScalingFit": "scaling.parametric_law",
    "SequentialComparison": "anytime.verdict",
    "SequentialPlan": "anytime.simulation",
    "Verdict": "anytime.verdict",
    "aggregate": "tasks.aggregation",
    "compare": "paired.significance",
    "compare_items": "tasks.items",
    "compare_sequentially": "anytime.sequential",
    "fit_frontier": "scaling.frontier",
    "fit_isoflop": "scaling.isoflop_valleys",
    "fit_scaling_law": "scaling.parametric_law",
    "hierarchical_bootstrap": "tasks.hierarchical",
    "load_curves": "table.runs",
    "load_runs": "table.runs",
    "minimum_detectable_effect": "paired.power",
    "optimal_allocation": "scaling.allocation",
    "power": "paired.power",
    "rank": "tasks.ranking",
    "seeds_needed": "paired.power",
    "seeds_possible": "anytime.e_process",
    "sequential_seeds": "anytime.simulation",
    "sequential_verdict": "anytime.sequential",
    "simulated_power": "anytime.simulation",
    "summary_table": "report.summary",
    "write_report": "report.compose",
}
__all__ = [
    "AnalysisError",
    "ArmComparison",
    "Comparison",
    "FrontierFit",
    "Interval",
    "IsoFlopFit",
    "ItemComparison",
    "Ranking",
    "ScalingFit",
    "SequentialComparison",
    "SequentialPlan",
    "Verdict",
    "aggregate",
    "compare",
    "compare_items",
    "compare_sequentially",
    "fit_frontier",
    "fit_isoflop",
    "fit_scaling_law",
    "hierarchical_bootstrap",
    "load_curves",
    "load_runs",
    "minimum_detectable_effect",
    "optimal_allocation",
    "power",
    "rank",
    "seeds_needed",
    "seeds_possible",
    "sequential_seeds",
    "sequential_verdict",
    "simulated_power",
    "summary_table",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute '{name}'")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
