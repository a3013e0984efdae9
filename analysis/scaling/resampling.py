"""Bootstrap draws of a law: it is fitted again to runs drawn anew, many draws at once. Called by `parametric_law` and
`certificate`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np

from .boundaries import settled
from .laws import Array
from .minimisation import Problem, minimise

_ROWS = 100
"""Fits that move together."""
_PATIENCE_S = 2.0


def draw(problem: Problem, theta: Array, weights: Array, label: str) -> tuple[Array, int]:
    """The law refitted to each row of weights (rows, runs), from `theta` (coordinates,) on.

    Returns:
        Coordinates (rows, coordinates) of the draws that have a finite law, and how many had none.
    """
    parts = []
    for part in _chunks(len(weights), label):
        found = minimise(problem, np.repeat(theta[None], len(weights[part]), axis=0), weights[part])
        parts.append(settled(problem, *found, weights[part]))
    rows = np.concatenate([at for at, _ in parts])
    finite = np.isfinite(rows).all(axis=1) & np.isfinite(np.concatenate([value for _, value in parts]))
    return rows[finite], int((~finite).sum())


def percentile_ends(draws: Array) -> tuple[Array, Array]:
    """Ends of the 95 % percentile interval over draws (draws, …): two of the draws, so infinite ones do no harm."""
    low, high = np.quantile(draws, (0.025, 0.975), axis=0, method="nearest")
    return low, high


def _chunks(total: int, label: str) -> Iterator[slice]:
    """Slices that fit into a core's cache, with a progress bar on a terminal once two seconds have passed."""
    began, bar = time.monotonic(), None
    try:
        for first in range(0, total, _ROWS):
            if bar is None and time.monotonic() - began > _PATIENCE_S and sys.stderr.isatty():
                from rich.console import Console
                from rich.progress import Progress

                bar = Progress(console=Console(stderr=True), transient=True)
                bar.start()
                task = bar.add_task(label, total=total)
            if bar is not None:
                bar.update(task, completed=first)
            yield slice(first, min(first + _ROWS, total))
    finally:
        if bar is not None:
            bar.stop()
