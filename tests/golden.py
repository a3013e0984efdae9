"""Whole texts of the program, compared with those on file: a changed word, number or space is seen and reviewed.

A test says what must be so; a text on file says what was so. After a wanted change, ``pytest FILE --renew`` writes the
texts anew, and the difference is reviewed with the change.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

TEXTS = Path(__file__).parent / "golden_texts"
DIGITS = 6
"""Of numbers in JSON: the last ones differ between processors."""


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
        """Plain data, its numbers rounded to six digits."""
        self.check(name, json.dumps(rounded(values), indent=1, ensure_ascii=False, sort_keys=True) + "\n")


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
