"""Which runs lie far from what is expected of them, in robust standard deviations, which outliers do not widen.

Called by `paired.significance`, `scaling.law_table` and `scaling.isoflop_valleys`; `outliers` says what is done with
what is found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .outliers import Outlier, run_name

FAR = 10.0
"""Robust standard deviations beyond which a run is named."""
_NORMAL = 0.6745
"""Median of the absolute value of a standard normal variable."""
_PAIRS = 0.9539
"""The same of the difference of two of them."""
Sizes = dict[float, list[float]]
"""Log-losses by log params."""
_FEWEST = 3
"""Runs of an arm from which their median says something of each."""


def robust_sd(misses: NDArray[np.floating[Any]], fitted: int = 0) -> float:
    """Standard deviation of misses (n,) by their median size; the `fitted` smallest, which a fit runs through, do not
    count."""
    sizes = np.sort(np.abs(misses))[fitted:]
    return float(np.median(sizes) / _NORMAL) if sizes.size else 0.0


def outliers_of_arms(values: Mapping[str, Mapping[str, float]], block: str) -> tuple[Outlier, ...]:
    """Runs far from the median of their arm.

    The scale is pooled over the arms from the differences of all pairs of runs of an arm, so that noise that a block
    shares counts as noise. An arm of fewer than 3 runs has none. Under normal noise, some run of 2 arms on 3 seeds is
    named in .3 % of comparisons, and on 5 seeds in .02 % (20,000 simulated comparisons).

    Args:
        values: {arm: {block: value}}.
        block: What tells the runs of an arm apart, for their names.
    """
    arms = {arm: np.array(list(cells.values())) for arm, cells in values.items() if len(cells) >= _FEWEST}
    if not arms:
        return ()
    pairs = [np.abs(found[:, None] - found[None])[np.triu_indices(found.size, 1)] for found in arms.values()]
    scale = float(np.median(np.concatenate(pairs)) / _PAIRS)
    if not scale > 0:
        return ()
    found = []
    for arm, cells in values.items():
        if arm not in arms:
            continue
        middle = float(np.median(arms[arm]))
        for place, value in cells.items():
            far = (value - middle) / scale
            if abs(far) > FAR:
                found.append(Outlier(run_name(arm, block, place), value, middle, far, "the median of its arm"))
    return _by_distance(found)


def outliers_of_law(
    names: Sequence[str],
    measured: NDArray[np.floating[Any]],
    misses: NDArray[np.floating[Any]],
    parameters: int,
) -> tuple[Outlier, ...]:
    """Runs that miss a law, by their log-losses.

    Args:
        names: Of the runs (n,).
        measured: Their losses (n,).
        misses: log of the law's loss less that of the measured one (n,).
        parameters: Free ones of the law; a fit runs through about as many runs, whatever the noise.
    """
    scale = robust_sd(misses, parameters)
    if not scale > 0:
        return ()
    return _by_distance(
        Outlier(name, float(value), float(value * np.exp(miss)), float(-miss / scale), "the law")
        for name, value, miss in zip(names, measured, misses, strict=True)
        if abs(miss) > FAR * scale
    )


def outliers_of_grid(
    names: Sequence[str],
    size: NDArray[np.floating[Any]],
    budget: NDArray[np.integer[Any]],
    loss: NDArray[np.floating[Any]],
) -> tuple[Outlier, ...]:
    """Runs of an IsoFLOP grid whose loss lies far outside those of their neighbours.

    Neighbours are the next sizes of the same budget and the same size at the next budgets. A steep side of a valley is
    no outlier: only what lies beyond all neighbours counts, and at an end beyond three times the last slope.

    Args:
        names: Of the runs (n,).
        size: log params (n,).
        budget: Number of the budget, from the smallest (n,).
        loss: Positive losses (n,).
    """
    y = np.log(loss)
    scale = robust_sd(np.array([bend for sizes in _cells(size, budget, y).values() for bend in _bends(sizes)]))
    if not scale > 0:
        return ()
    found: list[Outlier] = []
    kept = np.arange(loss.size)
    while True:  # the farthest first: without it, its neighbours may be as they should be
        cells = _cells(size[kept], budget[kept], y[kept])
        misses = [
            _beyond(i, size[kept], budget[kept], y[kept], cells[int(budget[place])]) for i, place in enumerate(kept)
        ]
        far, nearest = max(misses, key=lambda miss: abs(miss[0]))
        if abs(far) <= FAR * scale:
            return tuple(found)
        place = misses.index((far, nearest))
        i = int(kept[place])
        found.append(Outlier(names[i], float(loss[i]), float(np.exp(nearest)), far / scale, "its neighbours"))
        kept = np.delete(kept, place)


def _cells(
    size: NDArray[np.floating[Any]], budget: NDArray[np.integer[Any]], y: NDArray[np.floating[Any]]
) -> dict[int, Sizes]:
    """Log-losses of the runs of every size of every budget, the sizes in order."""
    cells: dict[int, Sizes] = {}
    for place in np.lexsort((size, budget)):
        cells.setdefault(int(budget[place]), {}).setdefault(float(size[place]), []).append(float(y[place]))
    return cells


def _bends(sizes: Sizes) -> list[float]:
    """How far each run of an inner size lies from the straight line between the next sizes, in the noise of one run."""
    found: list[float] = []
    x = list(sizes)
    for before, here, after in zip(x, x[1:], x[2:], strict=False):
        line = np.interp(here, (before, after), (median(sizes[before]), median(sizes[after])))
        noise = np.sqrt(1 + 0.25 / len(sizes[before]) + 0.25 / len(sizes[after]))
        found += [float((y - line) / noise) for y in sizes[here]]
    return found


def _beyond(
    i: int,
    size: NDArray[np.floating[Any]],
    budget: NDArray[np.integer[Any]],
    y: NDArray[np.floating[Any]],
    cells: Sizes,
) -> tuple[float, float]:
    """How far a run lies above all its neighbours (> 0) or below them (< 0), and the nearest of these."""
    around = _around(i, size, budget, y, cells)
    if len(around) < 2 or min(around) <= y[i] <= max(around):
        return 0.0, float(y[i])
    nearest = max(around) if y[i] > max(around) else min(around)
    return float(y[i] - nearest), nearest


def _around(
    i: int,
    size: NDArray[np.floating[Any]],
    budget: NDArray[np.integer[Any]],
    y: NDArray[np.floating[Any]],
    cells: Sizes,
) -> list[float]:
    """Log-losses of the neighbours of a run, and at an end what three times the last slope, up or down, would give."""
    sizes = list(cells)
    place = sizes.index(size[i])
    around = [median(cells[sizes[j]]) for j in (place - 1, place + 1) if 0 <= j < len(sizes)]
    if place in (0, len(sizes) - 1) and len(sizes) > 2:
        step = 1 if place == 0 else -1
        one, two = median(cells[sizes[place + step]]), median(cells[sizes[place + 2 * step]])
        around += [one + 3 * abs(one - two), one - 3 * abs(one - two)]
    apart = np.abs(budget - budget[i])
    beside = ((apart == 1) & (np.abs(size - size[i]) < 0.02)) | ((apart == 0) & (size == size[i]))
    beside[i] = False
    return around + [float(value) for value in y[beside]]


def _by_distance(outliers: Iterable[Outlier]) -> tuple[Outlier, ...]:
    return tuple(sorted(outliers, key=lambda item: -abs(item.deviations)))
