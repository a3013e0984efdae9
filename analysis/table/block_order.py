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
_LEAST_CHANCE = 0.01
"""Rows that are sorted by the metric with a smaller chance than this are no coincidence."""
_GIVE_STARTS = "give the table a column with the start of every run (started_at), or the seeds of its runs"
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class BlockOrder:
    """Blocks in order, and what the order is by, in words."""

    blocks: tuple[str, ...]
    words: str


def block_order(usable: pd.DataFrame, metric: str, columns: Sequence[str]) -> BlockOrder:
    """The blocks of runs that are placed (`_arm`, `_block`, `_value`), in the order in which they came.

    Args:
        columns: Whose values name the blocks; (): rows have numbers for names, which say nothing of an order.

    Raises:
        AnalysisError: The rows are the only order, and they are sorted by the metric.
    """
    blocks = list(dict.fromkeys(usable["_block"]))
    keys = _natural_keys(blocks) if columns else {}
    starts = _starts(usable)
    if starts is not None:
        column, times = starts
        latest = times.groupby(usable["_block"]).max()
        found = sorted(blocks, key=lambda name: (latest[name], keys.get(name, ())))
        together = latest[latest.duplicated(keep=False)]
        if keys or together.empty:
            return BlockOrder(tuple(found), f"start time ({column})")
        for _, same in together.groupby(together):
            _refuse_sorted_rows(usable[usable["_block"].isin(same.index)], metric, f" where {column} is the same")
        return BlockOrder(tuple(found), f"start time ({column}), and of the rows where it is the same")
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


def _refuse_sorted_rows(usable: pd.DataFrame, metric: str, of: str = "") -> None:
    """Refuse rows that are sorted by the metric, the whole table or one arm of it; `of`: which part of the table."""
    arms = {f"arm '{name}'": part["_value"].tolist() for name, part in usable.groupby("_arm", sort=False)}
    chances = {where: _chance(values) for where, values in arms.items()}
    together = math.prod(chances.values()) if max(chances.values()) < 1 else 1.0
    found = {"the table": _chance(usable["_value"].tolist()), "every arm": together}
    for where, chance in (found | chances).items():
        if chance < _LEAST_CHANCE:
            raise AnalysisError(
                f"the rows are the only order that the table has{of}, and in {where} they are sorted by {metric}: a "
                f"verdict after every block would decide by the sorting; {_GIVE_STARTS}"
            )


def _chance(values: Sequence[float]) -> float:
    """How likely it is that values which came in any order come sorted as these do; 1 where they are not sorted."""
    finite = [value for value in values if math.isfinite(value)]
    steps = list(pairwise(finite))
    rising, falling = all(one <= other for one, other in steps), all(one >= other for one, other in steps)
    return 2 / math.factorial(min(len(set(finite)), 20)) if rising != falling else 1.0
