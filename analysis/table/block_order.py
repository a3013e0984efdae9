"""In which order the blocks of a table came, for verdicts that are looked at after every block.

Called by `blocks.pair`. An order that follows the result makes a sequential verdict wrong: a table that was sorted by
its metric decides at once. So blocks count by when their runs started, else by their names where these count something
(seed 2 before seed 10); the order of the rows is the last resort, is said, and is refused where it follows the metric.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError

from .cell_numbers import numbers

if TYPE_CHECKING:
    import pandas as pd

BY_ROWS = "the rows, the only order that the table has"
STARTS = (
    "started_at",
    "start_time",
    "starttime",
    "start time",
    "started",
    "start",
    "datetime_start",
    "created",
    "created_at",
    "createdat",
    "timestamp",
    "date",
)
"""Columns, in lower case, that hold when a run started; the first that every run has counts."""
_FEWEST = 6
"""Values from which on a sorted column is no chance: 2 of 720 orders are sorted."""
_GIVE_STARTS = "give the table a column with the start of every run (started_at), or the seeds of its runs"
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class BlockOrder:
    """Blocks in order, and what the order is by, in words."""

    blocks: tuple[str, ...]
    words: str


def block_order(usable: pd.DataFrame, metric: str, columns: Sequence[str]) -> BlockOrder:
    """The blocks of runs that are placed (`_arm`, `_block`, `_value`), in the order in which they came.

    Raises:
        AnalysisError: The rows are the only order, and they are sorted by the metric.
    """
    blocks = list(dict.fromkeys(usable["_block"]))
    keys = _natural_keys(blocks)
    starts = _starts(usable)
    if starts is not None:
        column, times = starts
        latest = times.groupby(usable["_block"]).max()
        found = sorted(blocks, key=lambda name: (latest[name], keys.get(name, ())))
        return BlockOrder(tuple(found), f"start time ({column})")
    if keys:
        found = sorted(blocks, key=lambda name: keys[name])
        return BlockOrder(tuple(found), f"{' × '.join(columns)}, from the lowest")
    _refuse_sorted_rows(usable, metric)
    return BlockOrder(tuple(blocks), BY_ROWS)


def _natural_keys(blocks: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """By block, the numbers in its name; empty where the names do not share their words, so that they count nothing."""
    values = numbers(blocks)
    if all(value is not None and math.isfinite(value) for value in values):
        return {name: (float(value or 0.0),) for name, value in zip(blocks, values, strict=True)}
    if len({_NUMBER.sub("#", name) for name in blocks}) > 1 or not all(_NUMBER.search(name) for name in blocks):
        return {}
    return {name: tuple(float(part) for part in _NUMBER.findall(name)) for name in blocks}


def _starts(usable: pd.DataFrame) -> tuple[str, pd.Series[Any]] | None:
    """The column with the start of every run, and the times as numbers; None where there is none."""
    import pandas as pd

    by_name = {str(name).lower(): str(name) for name in reversed(usable.columns)}
    for name in STARTS:
        column = by_name.get(name)
        if column is None:
            continue
        dated = pd.api.types.is_datetime64_any_dtype(usable[column])
        times = usable[column] if dated else pd.to_numeric(usable[column], errors="coerce")
        if times.isna().any():
            dates = pd.to_datetime(usable[column].astype(str), errors="coerce", utc=True, format="ISO8601")
            times = dates.astype("int64").where(dates.notna())
        if times.notna().all() and times.nunique() > 1:
            return column, times
    return None


def _refuse_sorted_rows(usable: pd.DataFrame, metric: str) -> None:
    """Refuse rows that are sorted by the metric, the whole table or one arm of it."""
    parts = [("the table", usable), *((f"arm '{name}'", part) for name, part in usable.groupby("_arm", sort=False))]
    for where, part in parts:
        if _is_sorted(part["_value"].tolist()):
            raise AnalysisError(
                f"the rows are the only order that the table has, and in {where} they are sorted by {metric} "
                f"({len(part)} runs): a verdict after every block would decide by the sorting; {_GIVE_STARTS}"
            )


def _is_sorted(values: Sequence[float]) -> bool:
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < _FEWEST or finite[0] == finite[-1]:
        return False
    steps = list(pairwise(finite))
    return all(one <= other for one, other in steps) or all(one >= other for one, other in steps)
