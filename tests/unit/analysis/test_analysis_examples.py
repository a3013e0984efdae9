"""The examples in the docstrings of `analysis` print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import analysis

MODULES = sorted(path.stem for path in Path(analysis.__file__).parent.glob("*.py") if not path.stem.startswith("__"))


@pytest.mark.parametrize("name", MODULES)
def test_the_docstring_examples_of_a_module_hold(name):
    assert doctest.testmod(import_module(f"analysis.{name}")).failed == 0


def test_there_are_examples_at_all():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = sum(bool(case.examples) for name in MODULES for case in finder.find(import_module(f"analysis.{name}")))
    assert found >= 15
