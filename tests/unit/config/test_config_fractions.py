"""Regular two-level fractions against the published table, and against their definition."""

from __future__ import annotations

import itertools

import pytest

from stackwise_ray.config.space.fractions import smallest_fraction

# Fewest runs of a regular two-level fraction (Montgomery, Design and Analysis of Experiments, table of 2^(k-p) designs;
# NIST/SEMATECH e-Handbook, section 5.3.3.4.7).
PUBLISHED = {
    (3, 3): 4, (5, 3): 8, (6, 3): 8, (7, 3): 8, (9, 3): 16, (11, 3): 16, (15, 3): 16,
    (4, 4): 8, (6, 4): 16, (7, 4): 16, (8, 4): 16, (9, 4): 32, (11, 4): 32,
    (5, 5): 16, (6, 5): 32, (8, 5): 64, (9, 5): 128, (11, 5): 128,
}  # fmt: skip


@pytest.mark.parametrize(("factors", "resolution"), PUBLISHED)
def test_the_fraction_is_as_small_as_the_published_one(factors: int, resolution: int) -> None:
    assert len(smallest_fraction(factors, resolution).runs) == PUBLISHED[factors, resolution]


@pytest.mark.parametrize(("factors", "resolution"), [(3, 3), (5, 4), (6, 4), (7, 3), (8, 4), (6, 5)])
def test_any_resolution_less_one_columns_hold_every_combination_equally_often(factors: int, resolution: int) -> None:
    """Strength R − 1 as an orthogonal array: what resolution R means, checked without the defining relation."""
    runs = smallest_fraction(factors, resolution).runs
    for columns in itertools.combinations(range(factors), resolution - 1):
        seen = [tuple(run[column] for column in columns) for run in runs]
        counts = {
            combination: seen.count(combination) for combination in itertools.product((0, 1), repeat=len(columns))
        }
        assert len(set(counts.values())) == 1


@pytest.mark.parametrize("factors", [5, 7, 8])
def test_every_word_of_the_defining_relation_has_one_parity_in_all_runs(factors: int) -> None:
    fraction = smallest_fraction(factors, 4)
    assert len(fraction.words) == 2**factors // len(fraction.runs) - 1
    for word in fraction.words:
        assert {sum(run[position] for position in word) % 2 for run in fraction.runs} == {0}
    assert fraction.resolution is not None
    assert fraction.resolution >= 4


def test_too_few_factors_for_a_fraction_give_the_full_factorial() -> None:
    fraction = smallest_fraction(3, 5)
    assert sorted(fraction.runs) == list(itertools.product((0, 1), repeat=3))
    assert fraction.resolution is None
