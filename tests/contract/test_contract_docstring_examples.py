"""The examples in the docstrings of both packages print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("analysis", "stackwise_ray")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>>" in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_the_docstring_examples_of_a_module_hold(name: str) -> None:
    ran = doctest.testmod(import_module(name))
    assert ran.attempted > 0
    assert ran.failed == 0


@pytest.mark.parametrize(("package", "least"), [("analysis", 15), ("stackwise_ray", 35)])
def test_there_are_examples_at_all(package: str, least: int) -> None:
    assert sum(name.startswith(f"{package}.") for name in MODULES) >= least
