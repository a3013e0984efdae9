"""What was left out of a table and why: counted, carried along, and said wherever a result or a refusal is.

A table's `attrs["exclusions"]` lists each run that is not in it (run, arm, seed, role, status, by, why), and
`attrs["left_out"]` the cells of the same runs, so that a run that did not survive is a missing block of its arm,
whatever column the arms and blocks are in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

FACTS = ("arm", "seed", "role", "status")
SURVIVAL = frozenset({"status", "unmeasured", "outlier"})
"""Reasons that say something about the run itself: the others are compared on condition that they survived."""


class Unchanged(list[Any]):
    """A list that nobody changes: pandas copies `attrs` in depth with every column and every selection of a table."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Unchanged:
        return self


def exclusion(cells: Mapping[str, Any], by: str, why: str, run: Any = None) -> dict[str, Any]:
    """One run that is left out, as plain data."""
    facts = {key: cells.get(key) for key in FACTS}
    name = run if run is not None else cells.get("trial_id") or cells.get("run_id")
    return {"run": name, **facts, "by": by, "why": why}


def without(table: pd.DataFrame, dropped: ArrayLike, by: str, why: str) -> pd.DataFrame:
    """The table without some of its runs, which are listed among its exclusions."""
    import numpy as np

    mask = np.asarray(dropped, dtype=bool)
    gone = [present(row) for row in table[mask].to_dict("records")]
    names = [f"row {index}" for index in table.index[mask]]
    listed = [
        exclusion(row, by, why, row.get("trial_id") or row.get("run_id") or name)
        for row, name in zip(gone, names, strict=True)
    ]
    kept = table[~mask]
    kept.attrs = {
        **table.attrs,
        "exclusions": Unchanged([*table.attrs.get("exclusions", ()), *listed]),
        "left_out": Unchanged([*_left_out(table), *({"by": by, "why": why, "cells": row} for row in gone)]),
    }
    return kept


def present(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The cells of a row that hold something."""
    return {str(name): cell for name, cell in row.items() if not is_empty(cell)}


def is_empty(cell: Any) -> bool:
    """Whether a cell holds nothing: None, nan, or what pandas puts in their place."""
    import pandas as pd

    return bool(pd.api.types.is_scalar(cell) and pd.isna(cell))


def exclusion_counts(exclusions: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line per reason for which runs were left out, with how many."""
    counts = Counter(str(item["why"]) for item in exclusions)
    return [f"{count} × {why}" for why, count in counts.items()]


def left_out_words(table: pd.DataFrame) -> str:
    """How many of the runs that were read are not in the table, and why; empty where none is missing.

    For the end of a message about what is not in the table: "8 of 8 runs left out: status running".
    """
    exclusions = table.attrs.get("exclusions", ())
    if not exclusions:
        return ""
    reasons = Counter(_in_words(item) for item in exclusions)
    total = len(table) + len(exclusions)
    shown = [why if len(reasons) == 1 else f"{count} × {why}" for why, count in reasons.most_common(4)]
    more = f" and {len(reasons) - 4} more reasons" if len(reasons) > 4 else ""
    return f"{len(exclusions)} of {total} runs left out: {', '.join(shown)}{more}"


def _in_words(item: Mapping[str, Any]) -> str:
    why = str(item["why"])
    return f"status {why}" if item["by"] == "status" and not why.startswith("status ") else why


def refuse_without_runs(table: pd.DataFrame) -> None:
    """Refuse a table in which no run is left.

    Raises:
        AnalysisError: With what was left out and why.
    """
    if not table.empty:
        return
    words = left_out_words(table)
    raise AnalysisError(f"{words}; no run is left to answer from" if words else "the table has no rows")


def lost_places(
    table: pd.DataFrame, arm: str, columns: Sequence[str], measured: str
) -> Iterable[tuple[Mapping[str, Any], str]]:
    """Runs that did not survive and whose arm and block are known: their cells, and why they are left out."""
    for row in _left_out(table):
        cells = present(row["cells"])
        if row["by"] in SURVIVAL | {f"where {measured}"} and all(name in cells for name in (arm, *columns)):
            yield cells, str(row["why"])


def _left_out(table: pd.DataFrame) -> Sequence[Mapping[str, Any]]:
    """The runs that are left out with their cells; of exclusions that a caller listed, what they say."""
    found: Sequence[Mapping[str, Any]] | None = table.attrs.get("left_out")
    if found is not None:
        return found
    return [{"by": item["by"], "why": item["why"], "cells": item} for item in table.attrs.get("exclusions", ())]
