"""Answers from runs: comparisons with intervals and verdicts, power, and the report of a sweep.

It works on what our sweeps wrote and on anybody's MLflow experiment or CSV, and imports neither torch nor ray. Names
load on first use, so `import analysis` costs next to nothing.

    runs = analysis.load_runs("experiments/ablation")
    print(analysis.compare(runs, "validation/loss", baseline="attention"))

Reading order: runs, blocks, intervals, significance, comparison, power, sweep_directory, figures, report.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .power import minimum_detectable_effect, power, seeds_needed  # at once: the module has the function's name

if TYPE_CHECKING:
    from .comparison import ArmComparison, Comparison
    from .errors import AnalysisError
    from .intervals import Interval
    from .report import summary_table, write_report
    from .runs import load_curves, load_runs
    from .significance import compare

_HOME = {
    "AnalysisError": "errors",
    "ArmComparison": "comparison",
    "Comparison": "comparison",
    "Interval": "intervals",
    "compare": "significance",
    "load_curves": "runs",
    "load_runs": "runs",
    "summary_table": "report",
    "write_report": "report",
}
__all__ = [
    "AnalysisError", "ArmComparison", "Comparison", "Interval", "compare", "load_curves", "load_runs",
    "minimum_detectable_effect", "power", "seeds_needed", "summary_table", "write_report",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute '{name}'")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
