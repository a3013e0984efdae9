"""Bootstrap draws of a law: it is fitted again to runs drawn anew, many draws at once. Called by `parametric_law`,
`certificate` and `predictive`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .boundaries import settled
from .laws import Array
from .minimisation import Problem, minimise

_VALUES = 24_000
"""Rows times runs of fits that move together: they fit into a core's cache."""
_PATIENCE_S = 2.0


def draw(problem: Problem, theta: Array, weights: Array, label: str) -> tuple[Array, NDArray[np.intp]]:
    """The law refitted to each row of weights (rows, runs).

    Args:
        theta: Where the rows begin: (coordinates,), or (rows, coordinates).

    Returns:
        Coordinates of the draws that have a finite law, and which rows these are.
    """
    starts = np.broadcast_to(theta, (len(weights), theta.shape[-1]))
    parts = []
    for part in _chunks(len(weights), max(1, _VALUES // problem.y.size), label):
        found = minimise(problem, starts[part], weights[part])
        parts.append(settled(problem, *found, weights[part]))
    rows = np.concatenate([at for at, _ in parts])
    finite = np.isfinite(rows).all(axis=1) & np.isfinite(np.concatenate([value for _, value in parts]))
    return rows[finite], np.flatnonzero(finite)


def percentile_ends(draws: Array, level: float = 0.95) -> tuple[Array, Array]:
    """Ends of the percentile interval over draws (draws, …): two of the draws, so infinite ones do no harm."""
    tail = (1 - level) / 2
    low, high = np.quantile(draws, (tail, 1 - tail), axis=0, method="nearest")
    return low, high


def _chunks(total: int, rows: int, label: str) -> Iterator[slice]:
    """Slices of so many rows, with a progress bar on a terminal once two seconds have passed."""
    began, bar = time.monotonic(), None
    try:
        for first in range(0, total, rows):
            if bar is None and time.monotonic() - began > _PATIENCE_S and sys.stderr.isatty():
                from rich.console import Console
                from rich.progress import Progress

                bar = Progress(console=Console(stderr=True), transient=True)
                bar.start()
                task = bar.add_task(label, total=total)
            if bar is not None:
                bar.update(task, completed=first)
            yield slice(first, min(first + rows, total))
    finally:
        if bar is not None:
            bar.stop()
