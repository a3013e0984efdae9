"""Regular two-level fractions 2^(k−p): which runs to keep so that what matters can still be told apart.

A run gives every factor one of two levels, written as a bit. The first m = k − p factors run through all 2^m
combinations; each further factor is the sum modulo 2 of some of them (its generator). The resolution is the length
of the shortest word of the defining relation: at resolution R no effect of q factors is aliased with one of fewer
than R − q. Source: Box and Hunter, Technometrics 3 (1961) 311.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MOST_FACTORS = 15


@dataclass(frozen=True)
class Fraction:
    """A regular fraction.

    Attributes:
        runs: One row per run, one bit per factor, in standard order.
        generators: For each factor beyond the first m, the positions of the factors whose sum it is.
        words: The defining relation: sets of positions whose bits sum to the same value in every run.
    """

    runs: tuple[tuple[int, ...], ...]
    generators: tuple[tuple[int, ...], ...]
    words: tuple[tuple[int, ...], ...]

    @property
    def resolution(self) -> int | None:
        """Length of the shortest word; None for the full factorial."""
        return min(map(len, self.words), default=None)


def smallest_fraction(n_factors: int, resolution: int) -> Fraction:
    """The fraction with the fewest runs that has at least this resolution.

    Args:
        n_factors: 2 to `MOST_FACTORS`.
        resolution: 3, 4 or 5.

    >>> len(smallest_fraction(4, 4).runs), smallest_fraction(4, 4).generators
    (8, ((0, 1, 2),))
    """
    for m in range(1, n_factors + 1):
        columns = _columns(n_factors, m, resolution)
        if columns is not None:
            return _fraction(columns, m)
    raise AssertionError("the full factorial has every resolution")


def _columns(n_factors: int, m: int, resolution: int) -> list[int] | None:
    """Bit masks over the m basic factors, one per factor, any resolution − 1 of which are independent; or None."""
    basic = [1 << position for position in range(m)]
    missing = n_factors - m
    # Long generators first: they give the familiar D = ABC and leave the short words unused.
    candidates = [mask for mask in range(1, 1 << m) if mask.bit_count() >= resolution - 1]
    candidates.sort(key=lambda mask: (-mask.bit_count(), mask))

    def extend(chosen: list[int], sums: Sums, start: int) -> list[int] | None:
        if len(chosen) == n_factors:
            return chosen
        free = [mask for mask in candidates[start:] if not any(mask in some for some in sums[1:])]
        for left, mask in enumerate(free):
            if len(free) - left < n_factors - len(chosen):
                return None
            found = extend([*chosen, mask], _with(sums, mask), candidates.index(mask) + 1)
            if found is not None:
                return found
        return None

    # sums[q]: what q of the chosen columns add up to. A column that is a sum of at most resolution − 2 others makes a
    # word shorter than the resolution.
    sums: Sums = [{0}, *(set() for _ in range(resolution - 2))]
    for column in basic:
        sums = _with(sums, column)
    return basic if missing == 0 else extend(basic, sums, 0)


Sums = list[set[int]]


def _with(sums: Sums, mask: int) -> Sums:
    return [sums[0], *(sums[q] | {total ^ mask for total in sums[q - 1]} for q in range(1, len(sums)))]


def _fraction(columns: Sequence[int], m: int) -> Fraction:
    runs = tuple(
        tuple(
            (run & column).bit_count() % 2 if position >= m else run >> position & 1
            for position, column in enumerate(columns)
        )
        for run in range(1 << m)
    )
    generators = tuple(tuple(bit for bit in range(m) if column >> bit & 1) for column in columns[m:])
    return Fraction(runs=runs, generators=generators, words=tuple(_words(generators, m)))


def _words(generators: Sequence[tuple[int, ...]], m: int) -> Iterator[tuple[int, ...]]:
    """All products of the generating words (a generator with the factor that it makes)."""
    basic = [frozenset((*generator, m + number)) for number, generator in enumerate(generators)]
    for size in range(1, len(basic) + 1):
        for some in itertools.combinations(basic, size):
            word: frozenset[int] = frozenset()
            for part in some:
                word ^= part
            yield tuple(sorted(word))
