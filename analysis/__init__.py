"""Answers from runs: comparisons with verdicts, scaling laws, rankings over tasks, power, the report of a sweep.

It works on what our sweeps wrote and on anybody's MLflow experiment or CSV, and imports neither torch nor ray. Names
load on first use, so `import analysis` costs next to nothing.

    runs = analysis.load_runs("experiments/ablation")
    print(analysis.compare(runs, "validation/loss", baseline="attention"))

Reading order: runs, blocks, intervals, significance, comparison, e_process, sequential, verdict, adaptive, power,
simulation, tasks, ranking, aggregation, hierarchical. Scaling laws: laws, law_losses, law_table, law_fit,
variable_projection, profile_likelihood, certificate, scaling_fit, scaling_laws, then isoflop, frontier, allocation. The
report: sweep_directory, sweep_laws, summary, page, report_sections, report_trials, claims, figures, curves, forest,
report_figures, html_page, report, verification.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .power import minimum_detectable_effect, power, seeds_needed  # at once: the module has the function's name

if TYPE_CHECKING:
    from .aggregation import aggregate
    from .allocation import optimal_allocation
    from .comparison import ArmComparison, Comparison
    from .e_process import seeds_possible
    from .errors import AnalysisError
    from .frontier import FrontierFit, fit_frontier
    from .hierarchical import hierarchical_bootstrap
    from .intervals import Interval
    from .isoflop import fit_isoflop
    from .isoflop_fit import IsoFlopFit
    from .ranking import Ranking, rank
    from .report import summary_table, write_report
    from .runs import load_curves, load_runs
    from .scaling_fit import ScalingFit
    from .scaling_laws import fit_scaling_law
    from .sequential import compare_sequentially, sequential_verdict
    from .significance import compare
    from .simulation import SequentialPlan, sequential_seeds, simulated_power
    from .verdict import SequentialComparison, Verdict

_HOME = {
    "AnalysisError": "errors",
    "ArmComparison": "comparison",
    "Comparison": "comparison",
    "FrontierFit": "frontier",
    "Interval": "intervals",
    "IsoFlopFit": "isoflop_fit",
    "Ranking": "ranking",
    "ScalingFit": "scaling_fit",
    "SequentialComparison": "verdict",
    "SequentialPlan": "simulation",
    "Verdict": "verdict",
    "aggregate": "aggregation",
    "compare": "significance",
    "compare_sequentially": "sequential",
    "fit_frontier": "frontier",
    "fit_isoflop": "isoflop",
    "fit_scaling_law": "scaling_laws",
    "hierarchical_bootstrap": "hierarchical",
    "load_curves": "runs",
    "load_runs": "runs",
    "optimal_allocation": "allocation",
    "rank": "ranking",
    "seeds_possible": "e_process",
    "sequential_seeds": "simulation",
    "sequential_verdict": "sequential",
    "simulated_power": "simulation",
    "summary_table": "report",
    "write_report": "report",
}
__all__ = [
    "AnalysisError", "ArmComparison", "Comparison", "FrontierFit", "Interval", "IsoFlopFit", "Ranking", "ScalingFit",
    "SequentialComparison", "SequentialPlan", "Verdict", "aggregate", "compare", "compare_sequentially", "fit_frontier",
    "fit_isoflop", "fit_scaling_law", "hierarchical_bootstrap", "load_curves", "load_runs", "minimum_detectable_effect",
    "optimal_allocation", "power", "rank", "seeds_needed", "seeds_possible", "sequential_seeds", "sequential_verdict",
    "simulated_power", "summary_table", "write_report",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute '{name}'")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
