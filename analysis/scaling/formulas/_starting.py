"""Where searches for laws start, and how far their usual parameters go."""

from __future__ import annotations

import numpy as np

from ..laws import Array

EXPONENTS = (0.1, 0.35, 1.0)
_SHARES = (0.3, 0.8)
"""Of the lowest loss, where the irreducible part starts."""
RISING = (0.0, float("inf"))
"""Bounds of an exponent: at 0 a term is a constant."""
ANY = (-float("inf"), float("inf"))
"""Bounds of what may have either sign."""


def levels(y: Array) -> list[tuple[float, float]]:
    """(log E, log of what is left at the middle of the runs) for each share."""
    lowest, middle = float(np.exp(y.min())), float(np.exp(np.median(y)))
    return [(float(np.log(share * lowest)), float(np.log(middle - share * lowest))) for share in _SHARES]


def irreducible(y: Array) -> tuple[float, float]:
    """Bounds of log E: a thousandth of the lowest loss is none."""
    return float(y.min() - np.log(1e3)), float(y.min() + 0.5)
