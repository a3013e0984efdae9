"""What a kind of source is: a name, what it recognises, and how its rows are read.

A new kind is one file beside this one with a `SourceKind`, and one line in `kinds.KINDS`. Nothing here knows what a
cell means: text stays text, and `table.typed_columns` makes numbers of it where a role asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

LEFT_OUT = "_left_out"
"""Key of a row that its source leaves out: (by, why)."""


@dataclass(frozen=True, kw_only=True)
class SourceRows:
    """What a source holds.

    Attributes:
        rows: One mapping per run, cells by column. A cell is text where the source is text, else a Python number, bool
            or text; a cell without a value is absent. `LEFT_OUT` holds why a source leaves a run out.
        columns: Names of all columns, in order, those without a value included.
        notes: What a reader must know beside every result.
        directions: Which way of a metric is better, "minimize" or "maximize", where the source says so.
        ours: Whether our own sweeps wrote it, so that its units are known.
    """

    rows: list[dict[str, Any]]
    columns: list[str]
    notes: list[str] = field(default_factory=list)
    ours: bool = False
    directions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SourceKind:
    """A kind of source.

    Attributes:
        name: One word.
        described: What to give, as it stands in a message: "a .csv file".
        recognises: Whether a source (a path or a URI) is of this kind; it may look at the file system.
        read: Its rows; raises `AnalysisError` where it cannot be read.
    """

    name: str
    described: str
    recognises: Callable[[str], bool]
    read: Callable[[str], SourceRows]


def columns_met(rows: list[dict[str, Any]]) -> list[str]:
    """The columns of rows in the order in which they are met, for sources without a heading."""
    return list(dict.fromkeys(name for row in rows for name in row if not name.startswith("_")))


def without_empty(row: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of a row that hold something."""
    return {name: cell for name, cell in row.items() if cell is not None and cell != "" and cell == cell}
