"""Which tests may be skipped in continuous integration: with CI=true, a test that is skipped for a missing tool fails.

`tests.conftest` takes the two hooks. The reasons of all skips are printed at the end of a run (`-ra`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from typing import Any

import pytest

PERMITTED = {
    "a GPU, or none": r"no CUDA device|needs two GPUs|this machine has a GPU|auto is a GPU here|nccl starts where"
    r"|^no triton: .*CUDA device",
    "data that were not downloaded": r"STACKWISE_DATA is not set|STACKWISE_DATA has no |fetch it with",
}
"""By what a machine of continuous integration may lack, or have: the reasons of such skips, as regular expressions."""


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def is_permitted(reason: str) -> bool:
    """Whether a test may be skipped for this reason in continuous integration."""
    return any(re.search(pattern, reason) for pattern in PERMITTED.values())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    return _checked((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    return _checked((yield))


def _checked(report: Any) -> Any:
    """The report, as a failure where the skip is none that continuous integration permits."""
    if in_ci() and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not is_permitted(reason):
            report.outcome = "failed"
            report.longrepr = (
                f"skipped: {reason}\nWith CI={os.environ['CI']} no test may be skipped for a missing tool: install it, "
                f"or add the reason to PERMITTED in tests/skips.py. Permitted are: {', '.join(PERMITTED)}."
            )
    return report
