"""Text cells as numbers: the one parser of every metric, budget and size that a table holds as text.

Called where a role asks for numbers (`typed_columns`). It knows signs, exponents, thousands (1,048,576), suffixes (70M,
2.1B), nan, inf and the words for a value that nobody measured; it guesses nothing: "45%", "1_000" and "3,192" as a loss
are no numbers, and `why_not` says what is wrong with them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

UNMEASURED = frozenset({"", "nan", "na", "n/a", "#n/a", "<na>", "null", "none"})
"""Words, in lower case, for a number that is not there."""
LARGEST = 1.797e308
"""MLflow's databases store ±infinity as ±1.7976931348623157e308."""
_SUFFIXES = {"k": 3, "K": 3, "M": 6, "B": 9, "b": 9, "G": 9, "T": 12}
_PLAIN = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INFINITE = re.compile(r"([+-]?)inf(?:inity)?", re.IGNORECASE)
_GROUPS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?")
_ONE_GROUP = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?")
_TRUTH = {"true": 1.0, "false": 0.0}


def is_plain_number(text: str) -> bool:
    """Whether it is a number that everybody reads alike: a sign, digits, a point, an exponent.

    >>> is_plain_number("-1.5e9"), is_plain_number("1_000"), is_plain_number("inf"), is_plain_number("1e999")
    (True, False, False, False)
    """
    return _PLAIN.fullmatch(text) is not None and math.isfinite(float(text))


def plain_number(text: str) -> int | float:
    """A plain number; whole ones without a point or an exponent are int."""
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def numbers(cells: Iterable[Any], *, counts: bool = False) -> list[float | None]:
    """The cells of one column as numbers: nan where nothing was measured, None where a cell is no number.

    Args:
        cells: Text, numbers or None.
        counts: Whether they are counts, of which "1,024" is a thousand and some; elsewhere it may be a decimal comma.

    >>> numbers(["1,048,576", "1,024", "70M", "-.5e3", "NaN", ""], counts=True)
    [1048576.0, 1024.0, 70000000.0, -500.0, nan, nan]
    >>> numbers(["3,19", "3,201"]), numbers(["3,192", "3,201"]), numbers(["45%"])
    ([3.19, 3.201], [None, None], [None])
    """
    listed = list(cells)
    texts = [cell.strip() for cell in listed if isinstance(cell, str)]
    words = {text.lower() for text in texts} - UNMEASURED
    if words and words <= set(_TRUTH):
        listed = [_TRUTH.get(cell.strip().lower(), cell) if isinstance(cell, str) else cell for cell in listed]
    comma = has_decimal_commas(texts)
    thousands = counts or any(text.count(",") > 1 for text in texts)
    return [
        _parsed(cell.strip(), comma=comma, thousands=thousands) if isinstance(cell, str) else _typed(cell)
        for cell in listed
    ]


def has_decimal_commas(texts: Iterable[str]) -> bool:
    """Whether a column writes decimals with a comma: some cell can mean nothing else, and none holds a point."""
    found = False
    for text in texts:
        if "." in text or text.count(",") > 1:
            return False
        if _DECIMAL_COMMA.fullmatch(text) and not _ONE_GROUP.fullmatch(text):
            found = True
    return found


def why_not(text: str) -> str:
    """What to write instead of a cell that is no number.

    >>> why_not("45%"), why_not("n/m")
    ('write the share as a number', 'write a number, or leave the cell empty where none was measured')
    """
    text = text.strip()
    if text.endswith("%"):
        return "write the share as a number"
    if _ONE_GROUP.fullmatch(text) or _DECIMAL_COMMA.fullmatch(text):
        return "its comma may be a decimal point or part thousands; write a point in decimals, and no comma in counts"
    if "_" in text and is_plain_number(text.replace("_", "")):
        return f"write {text.replace('_', '')}"
    if re.fullmatch(r"[0-9.]+m", text):
        return f"write {text[:-1]}M for millions"
    return "write a number, or leave the cell empty where none was measured"


def _parsed(text: str, *, comma: bool, thousands: bool) -> float | None:
    if text.lower() in UNMEASURED:
        return math.nan
    infinite = _INFINITE.fullmatch(text)
    if infinite:
        return -math.inf if infinite[1] == "-" else math.inf
    if comma and _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    elif _GROUPS.fullmatch(text) and (thousands or text.count(",") > 1 or "." in text):
        text = text.replace(",", "")
    if _PLAIN.fullmatch(text):
        return _finite(float(text))
    if text[-1] in _SUFFIXES and _PLAIN.fullmatch(text[:-1].rstrip()) and "e" not in text.lower():
        return float(Decimal(text[:-1].rstrip()).scaleb(_SUFFIXES[text[-1]]))
    return None


def _typed(cell: Any) -> float | None:
    if cell is None:
        return math.nan
    try:
        return _finite(float(cell))
    except (TypeError, ValueError):
        return None


def _finite(value: float) -> float:
    """The value, with MLflow's stand-ins for infinity read back."""
    return math.copysign(math.inf, value) if abs(value) >= LARGEST else value
