"""Options and fixtures of all tests."""

from __future__ import annotations

import os

import pytest

# Two processes with two threads each on two cores make every timing twice as long and prove nothing more.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=2, help="kills in each chaos test (the show run uses 10)")
