"""Texts on file: what a comparison overlooks, and what it sees."""

from __future__ import annotations

from typing import Any

import pytest

from tests.golden import as_on_file

FILED = {"loss": 2.5, "bias": -1.2e-7, "runs": 7, "ends": [1.0, 2.0], "name": "a"}


@pytest.mark.parametrize("change", [{"loss": 2.500001}, {"bias": 3e-7}, {"ends": [1.00001, 2.0]}])
def test_what_processors_differ_in_is_as_on_file(change: dict[str, Any]) -> None:
    assert as_on_file(FILED | change, FILED) == FILED


@pytest.mark.parametrize(
    "change",
    [
        {"loss": 2.5005},
        {"bias": 1e-5},
        {"runs": 8},
        {"ends": [1.0]},
        {"ends": [1.0, 2.0, 3.0]},
        {"name": "b"},
        {"z": 1.0},
    ],
)
def test_what_a_change_of_the_program_makes_is_seen(change: dict[str, Any]) -> None:
    assert as_on_file(FILED | change, FILED) == FILED | change


def test_a_number_that_is_gone_is_seen() -> None:
    left = {key: value for key, value in FILED.items() if key != "bias"}
    assert as_on_file(left, FILED) == left
