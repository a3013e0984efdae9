"""No sweep outlives its test: one that did would take the processors from all that follow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.sweep_processes import SweepProcess


@pytest.fixture(autouse=True)
def _no_sweep_outlives_its_test() -> Iterator[None]:
    yield
    while SweepProcess.started:
        SweepProcess.started.pop().end()
