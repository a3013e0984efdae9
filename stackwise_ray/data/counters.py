"""Random numbers addressed by counters instead of drawn in sequence.

A value depends on (seed, counters) alone, not on what was drawn before: the same for any batching, number of
workers, resumption, and numpy version.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hash64(seed: int, *counters: int | NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Uniform 64-bit values, one for each combination of counters (broadcast against each other).

    Source: the finaliser of SplitMix64 (Steele, Lea, Flood 2014), applied once for every counter in turn.

    >>> int(hash64(0, 1)) == int(hash64(0, 1)), int(hash64(0, 1, 2)) == int(hash64(0, 2, 1))
    (True, False)
    """
    state = _mix(np.asarray(seed & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64))
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is the method
        for counter in counters:
            state = _mix(state + _GOLDEN + _mix(np.asarray(counter, dtype=np.uint64)))
    return state


def uniform(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Values in [0, 1) from the upper 53 bits."""
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = x + _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))
