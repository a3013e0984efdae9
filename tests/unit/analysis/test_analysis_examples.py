"""The examples in the docstrings of `analysis` print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import analysis

ROOT = Path(analysis.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if not path.stem.startswith("__")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_docstring_examples_of_a_module_hold(name):
    assert doctest.testmod(import_module(f"analysis.{name}")).failed == 0


def test_there_are_examples_at_all():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = sum(bool(case.examples) for name in MODULES for case in finder.find(import_module(f"analysis.{name}")))
    assert found >= 15
