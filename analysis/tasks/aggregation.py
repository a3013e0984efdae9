"""One number per arm over several tasks, with the uncertainty of a handful of runs: IQM, mean, median, optimality gap.

`aggregate` is the public face. The tasks are the population here, not a sample: the interval says what other seeds on
the *same* tasks would give. For tasks as a sample, see `ranking`; for seeds within seeds, `hierarchical`.

Source: Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError, did_you_mean

from ..paired.intervals import Interval, check_seed, percentile_bounds
from .task_scores import ScoreTable, task_scores

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

STATISTICS = ("iqm", "mean", "median", "optimality_gap")
_CHUNK = 4_000_000
"""Resampled values held at once."""
_ROUNDING = 1e-12
"""Resamples of equal values differ by less, as shares of the mean, by the order of addition."""


def aggregate(
    table: pd.DataFrame,
    metric: str,
    statistic: str = "iqm",
    task: str = "task",
    arm: str = "arm",
    seed: str = "seed",
    bootstrap: int = 2000,
    rng: int = 0,
    target: float | None = None,
    level: float = 0.95,
) -> dict[str, Interval]:
    """A statistic over runs and tasks for every arm, with a stratified bootstrap interval.

    The runs of each task are resampled within that task; arms may have different numbers of runs. The interval is the
    percentile interval; it is as narrow as the few runs a task make it look (with three runs a task it covers less than
    it says).

    Args:
        table: One row per run; scores of different tasks must be on one scale.
        metric, task, arm, seed: Columns.
        statistic: "iqm" (mean of the middle half of all runs), "mean", "median" (of the tasks' means) or
            "optimality_gap" (mean shortfall of scores, large ones being good, from `target`; surplus counts 0).
        bootstrap: Resamples.
        rng: Seed of the resampling; the same seed gives the same interval, whatever other arms there are.
        target: Of the optimality gap; None: 1, the score of a solved task after normalisation.
        level: Nominal coverage.

    Returns:
        Arm to interval; `n` counts the runs.

    Raises:
        AnalysisError: An unknown statistic, arms with different tasks, an arm with more runs of one task than of
            another, one run per task, a value that is not finite, or anything that `compare` refuses as well.
    """
    import numpy as np

    if statistic not in STATISTICS:
        raise AnalysisError(f"statistic = '{statistic}' is not known; {did_you_mean(statistic, STATISTICS)}")
    if target is not None and not math.isfinite(target):
        raise AnalysisError(f"target = {target:g} must be finite")
    if target is not None and statistic != "optimality_gap":
        raise AnalysisError(f"target = {target:g} has no effect on the {statistic}; it belongs to the optimality_gap")
    check_resampling(bootstrap, level, rng)
    read = task_scores(table, metric, task, arm, seed)
    scores = _complete(read)
    measure = _measure(statistic, 1.0 if target is None else target)
    found = {}
    for name, cells in scores.items():
        values = np.array([cells[place] for place in cells]).T
        draws = _resampled(values, measure, bootstrap, np.random.default_rng(rng))
        method = f"{statistic}, bootstrap over runs within {values.shape[1]} tasks ({bootstrap} draws)"
        found[name] = resampled_interval(float(measure(values[None])[0]), draws, level, method, values.size, read.notes)
    return found


def resampled_interval(
    estimate: float, draws: NDArray[np.float64], level: float, method: str, n: int, notes: Sequence[str]
) -> Interval:
    """The percentile interval of the draws; its method says as well what a reader must know of the runs."""
    low, high = percentile_bounds(draws, level)
    if high - low <= _ROUNDING * abs(estimate):
        low = high = estimate
        notes = [*notes, "zero variance: no resample differs, so check that these are different runs"]
    return Interval(estimate, low, high, level, "; ".join([method, *notes]), n)


def check_resampling(bootstrap: int, level: float, rng: int) -> None:
    """Refuse a number of resamples that cannot hold the tails, a level that is none, or a seed that is none."""
    check_seed(rng)
    if not 0 < level < 1:
        raise AnalysisError(f"level = {level:g} must lie between 0 and 1")
    if bootstrap < 100:
        raise AnalysisError(f"bootstrap = {bootstrap} resamples cannot show the tails of an interval; ask for 1000")


def _complete(scores: ScoreTable) -> dict[str, dict[str, list[float]]]:
    """Values by arm and task where every arm has every task, with as many runs of each, at least 2."""
    if scores.lost:
        (arm, task), why = next(iter(scores.lost.items()))
        raise AnalysisError(
            f"arm '{arm}' has no usable value on task '{task}' ({why}); {len(scores.lost)} such cells. Numbers over "
            f"different tasks cannot be compared: leave the task or the arm out of the table"
        )
    for arm, cells in scores.values.items():
        counts = {task: len(cells[task]) for task in scores.tasks}
        fewest, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        if counts[fewest] != counts[most]:
            raise AnalysisError(
                f"arm '{arm}' has {_runs(counts[most])} of task '{most}' and {_runs(counts[fewest])} of '{fewest}'; "
                f"its tasks would not weigh alike: keep equally many of each task (arms may differ from each other)"
            )
        if counts[fewest] < 2:
            raise AnalysisError(
                f"arm '{arm}' has one run per task: resampling it gives the same run, so there is no interval; add "
                f"seeds, or leave the arm out"
            )
    return {arm: {task: cells[task] for task in scores.tasks} for arm, cells in scores.values.items()}


def _runs(count: int) -> str:
    return f"{count} run{'s' if count != 1 else ''}"


def _measure(statistic: str, target: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """The statistic of arrays (draws, runs, tasks), one a draw."""
    import numpy as np

    def iqm(values: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = np.sort(values.reshape(len(values), -1), axis=1)
        cut = flat.shape[1] // 4
        return np.asarray(flat[:, cut : flat.shape[1] - cut].mean(axis=1))

    measures: dict[str, Any] = {
        "iqm": iqm,
        "mean": lambda values: values.mean(axis=(1, 2)),
        "median": lambda values: np.median(values.mean(axis=1), axis=1),
        "optimality_gap": lambda values: np.maximum(target - values, 0.0).mean(axis=(1, 2)),
    }
    chosen: Callable[[NDArray[np.float64]], NDArray[np.float64]] = measures[statistic]
    return chosen


def _resampled(
    values: NDArray[np.float64],
    measure: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    bootstrap: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """The statistic of `bootstrap` resamples of the runs (rows) within each task (column)."""
    import numpy as np

    runs, tasks = values.shape
    step = max(1, _CHUNK // values.size)
    parts = []
    for start in range(0, bootstrap, step):
        chosen = rng.integers(0, runs, size=(min(step, bootstrap - start), runs, tasks))
        parts.append(measure(values[chosen, np.arange(tasks)]))
    return np.concatenate(parts)
