"""Counts, bytes and durations as people write and read them."""

from __future__ import annotations

import pytest

from stackwise_ray.core.quantities import near_divisors


@pytest.mark.parametrize(
    ("number", "wanted", "choices"), [(512, 7, "4, 8 or 16"), (1, 5, "1"), (7, 3, "1 or 7"), (12, 5, "3, 4 or 6")]
)
def test_proposed_divisors_divide_and_are_near(number: int, wanted: int, choices: str) -> None:
    assert near_divisors(number, wanted) == choices
