"""Floors by Akima's interpolation, which passes through every mean loss. Beside `valley_floors`."""

from __future__ import annotations

import numpy as np

from .laws import Array


def akima_floors(x: Array, losses: Array) -> Array:
    """Lowest point (rows,) of Akima's interpolation of each row of losses (rows, sizes); nan where that is an edge.

    Exact: the ends and the stationary points of every cubic piece are compared.

    Source: Akima (1970), J. ACM 17.
    """
    from scipy.interpolate import Akima1DInterpolator

    cubic, square, linear, level = Akima1DInterpolator(x, losses.T).c  # each (pieces, rows)
    widths = np.diff(x)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(square**2 - 3.0 * cubic * linear)
        # the stationary point with an upward bend, in the form that holds for a cubic coefficient of 0
        inside = -linear / (square + root)
    valid = np.isfinite(inside) & (inside > 0) & (inside < widths)
    place = np.where(valid, inside, 0.0)
    values = np.where(valid, ((cubic * place + square) * place + linear) * place + level, level)
    lowest = np.argmin(values, axis=0)
    rows = np.arange(losses.shape[0])
    at_end = (losses[:, -1] <= values[lowest, rows]) | ((lowest == 0) & ~valid[0])
    return np.where(at_end, np.nan, x[lowest] + place[lowest, rows])
