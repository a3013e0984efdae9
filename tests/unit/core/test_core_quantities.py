"""Counts, bytes and durations as people write and read them."""

from __future__ import annotations

import pytest

from stackwise_ray.core.quantities import format_share, near_divisors


@pytest.mark.parametrize(
    ("number", "wanted", "choices"), [(512, 7, "4, 8 or 16"), (1, 5, "1"), (7, 3, "1 or 7"), (12, 5, "3, 4 or 6")]
)
def test_proposed_divisors_divide_and_are_near(number: int, wanted: int, choices: str) -> None:
    assert near_divisors(number, wanted) == choices


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0, "0%"),
        (1.0, "100%"),
        (0.95, "95%"),
        (1 - 0.05 / 3, "98.33%"),
        (1 - 1e-5, "99.999%"),
        (1 - 2.5e-7, "99.99997%"),
        (1 + 1e-6, "100.0001%"),
        (1e-7, "1e−05%"),
    ],
)
def test_a_share_shows_the_digits_that_it_has(share: float, shown: str) -> None:
    assert format_share(share) == shown


def test_a_share_that_is_not_all_or_nothing_never_shows_as_that() -> None:
    for exponent in range(1, 54):
        assert format_share(1 - 2.0**-exponent) != "100%"
        assert format_share(2.0**-exponent) != "0%"
    assert format_share(1 + 2.0**-52) != "100%"
