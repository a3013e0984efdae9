"""Whole texts of the program, compared with those on file: a changed word, number or space is seen and reviewed.

A test says what must be so; a text on file says what was so. After a wanted change, ``pytest FILE --renew`` writes the
texts anew, and the difference is reviewed with the change.
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

TEXTS = Path(__file__).parent / "golden_texts"
DIGITS = 6
"""Of numbers in JSON that are written to a file."""
_RELATIVE, _ABSOLUTE = 3e-5, 1e-6
"""Differences of numbers in JSON that count as none: those between processors. A bias of 1e-7 is one of 0."""
_NUMBER = re.compile(r"(?<![\w.,])\d+\.\d{4,}(?:e[+-]\d+)?(?![\w])")


class Golden:
    """Compares with the files of `TEXTS`, or writes them.

    Args:
        renew: Whether a text that differs replaces the one on file.
    """

    def __init__(self, renew: bool) -> None:
        self._renew = renew

    def check(self, name: str, text: str, digits: int | None = None) -> None:
        """The text is that of the file `name`.

        Args:
            digits: Significant digits that are compared of a number with more; None: all. The last ones of what an
                optimiser finds differ between processors.
        """
        file = TEXTS / name
        if digits is not None:
            text = _NUMBER.sub(lambda found: f"{float(found[0]):.{digits}g}", text)
        if self._renew:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            return
        assert file.is_file(), f"no text is on file for {name}; --renew writes it"
        before = file.read_text()
        lines = difflib.unified_diff(before.splitlines(), text.splitlines(), "on file", "now", lineterm="", n=1)
        assert text == before, "\n".join([f"{name} has changed; where that is wanted, --renew writes it anew", *lines])

    def check_json(self, name: str, values: Any) -> None:
        """Plain data are those of the file `name`, but for what processors differ in."""
        file, found = TEXTS / name, rounded(values)
        if file.is_file() and not self._renew:
            found = as_on_file(found, json.loads(file.read_text()))
        self.check(name, json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def as_on_file(values: Any, before: Any) -> Any:
    """Plain data with the numbers on file in the place of those that differ from them by next to nothing."""
    if isinstance(values, float) and isinstance(before, float):
        return before if math.isclose(values, before, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE) else values
    if isinstance(values, dict) and isinstance(before, dict):
        return {key: as_on_file(value, before.get(key)) for key, value in values.items()}
    if isinstance(values, list) and isinstance(before, list):
        return [as_on_file(value, old) for value, old in itertools.zip_longest(values, before)][: len(values)]
    return values


def rounded(values: Any) -> Any:
    """Plain data whose numbers have six digits."""
    if isinstance(values, float):
        return float(f"{values:.{DIGITS}g}")
    if isinstance(values, Mapping):
        return {str(key): rounded(value) for key, value in values.items()}
    if isinstance(values, Sequence) and not isinstance(values, str):
        return [rounded(value) for value in values]
    return values


@pytest.fixture
def golden(pytestconfig: pytest.Config) -> Golden:
    """Compares a text with the one on file."""
    return Golden(renew=bool(pytestconfig.getoption("--renew")))
