"""Options that all commands on a table share: its columns, its units, and which of its runs count."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from stackwise_ray.core.errors import AnalysisError

if TYPE_CHECKING:
    import pandas as pd

    from ..table.sweep_directory import Sweep

Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="NAME=COLUMN",
        help='What the source calls a column, for example params="Model Size". It wins over a column of that name, '
        "which is called original_NAME then; may be repeated.",
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION",
        help='Keep the runs that meet it: "COLUMN OP VALUE" with ==, !=, <, <=, > or >=; may be repeated. The others '
        "are counted as left out.",
    ),
]
DropMissing = Annotated[
    bool,
    typer.Option("--drop-missing", help="Leave out runs that lack a value in a column that is used; they are counted."),
]
Units = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN=UNIT",
        help="Units of columns that are not in counts, nats or seconds: params=M tokens=B flops=PFdays loss=bits. "
        "params=1 says that it is in counts.",
    ),
]
_TABLES: ContextVar[list[pd.DataFrame]] = ContextVar("tables")
"""The tables that the command has read so far."""
_PAIR = re.compile(r"[^-=\s][^=\s]*=[^=\s]+")


class Selecting(typer.core.TyperCommand):
    """A command on tables: `--units` takes all words NAME=UNIT behind it, and a refusal says what was left out."""

    def invoke(self, context: Any) -> Any:
        """As every command does; what its tables lack is added to a refusal that does not say it."""
        read: list[pd.DataFrame] = []
        token = _TABLES.set(read)
        try:
            return super().invoke(context)
        except AnalysisError as error:
            from ..table.exclusions import left_out_words

            words = [text for text in map(left_out_words, read) if text]
            if not words or " left out: " in str(error):
                raise
            raise AnalysisError(f"{error} ({'; '.join(words)})") from None
        finally:
            _TABLES.reset(token)

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        """As every command does, once `--units` stands before each of its words."""
        return super().parse_args(context, _spread(args))


def _spread(args: Sequence[str]) -> list[str]:
    """Words of the command line with `--units` before each unit.

    >>> _spread(["runs.csv", "--units", "params=M", "tokens=B", "--json"])
    ['runs.csv', '--units', 'params=M', '--units', 'tokens=B', '--json']
    """
    words: list[str] = []
    inside = False
    for word in args:
        if inside and words[-1] != "--units" and _PAIR.fullmatch(word):
            words.append("--units")
        inside = word == "--units" or (inside and _PAIR.fullmatch(word) is not None)
        words.append(word)
    return words


@dataclass(frozen=True)
class Selection:
    """What was asked of a table on the command line."""

    columns: dict[str, str]
    units: dict[str, str]
    where: tuple[str, ...]
    drop_missing: bool

    def table(self, source: str) -> pd.DataFrame:
        """The runs of a source under these names, in counts, those that meet the conditions."""
        from ..table.runs import load_runs

        return _read(load_runs(source, columns=self.columns, units=self.units, where=self.where))

    def read(self, source: str) -> tuple[pd.DataFrame, Sweep | None]:
        """As `table`, and the sweep whose folder or journal the source is; None for other sources."""
        from ..table.sources import sweep_journal
        from ..table.sources.kinds import kind_of

        if kind_of(source) is not sweep_journal.KIND:
            return self.table(source), None
        from ..table.selection import select
        from ..table.sweep_directory import read_sweep

        sweep = read_sweep(Path(source))
        return _read(select(sweep.runs, columns=self.columns, units=self.units, where=self.where)), sweep

    def measured(self, table: pd.DataFrame, *columns: str) -> pd.DataFrame:
        """The table without the runs that lack one of the columns, where that was asked for."""
        if not self.drop_missing:
            return table
        from ..table.placement import measured_in
        from ..table.selection import drop_missing

        measured = drop_missing(table, [measured_in(column, table) for column in columns])
        _TABLES.get([]).clear()
        return _read(measured)


def _read(table: pd.DataFrame) -> pd.DataFrame:
    """The table, which the command that runs remembers for its refusals."""
    _TABLES.get([]).append(table)
    return table


def selection(
    columns: list[str] | None, units: list[str] | None, where: list[str] | None, drop_missing: bool
) -> Selection:
    """The options as one value.

    Raises:
        AnalysisError: A word that is no NAME=COLUMN or COLUMN=UNIT, or a name twice.
    """
    from ..table.units import parse_units

    return Selection(_names(columns or ()), parse_units(units or []), tuple(where or ()), drop_missing)


def _names(words: Sequence[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for word in words:
        ours, sign, theirs = word.partition("=")
        if not sign or not ours or not theirs:
            raise AnalysisError(f"--map '{word}': write NAME=COLUMN, for example params=\"Model Size\"")
        if ours in names:
            raise AnalysisError(f"--map names '{ours}' twice: '{names[ours]}' and '{theirs}'")
        names[ours] = theirs
    return names


def two_sources(first: str, second: str, arm: str, selected: Selection) -> tuple[pd.DataFrame, str]:
    """Both tables as one, one arm per source (or `source/arm` where a source has several), and the first's name."""
    import pandas as pd

    from ..table.exclusions import Unchanged
    from ..table.typed_columns import names_of, written_alike

    names = [_source_name(first), _source_name(second)]
    if names[0] == names[1]:
        names = [first, second]
    tables = []
    lists: dict[str, list[Any]] = {"exclusions": [], "left_out": [], "notes": []}
    for name, source in zip(names, (first, second), strict=True):
        table = selected.table(source)
        arms = names_of(table, arm) if arm in table.columns else None
        several = arms is not None and arms.nunique() > 1

        def within(own: Any, name: str = name, several: bool = several) -> str:
            return f"{name}/{own}" if several else name

        lists["exclusions"] += [{**item, "arm": within(item["arm"])} for item in table.attrs["exclusions"]]
        lists["left_out"] += [
            {**row, "cells": {**row["cells"], arm: within(row["cells"].get(arm))}} for row in table.attrs["left_out"]
        ]
        lists["notes"] += [f"{name}: {note}" for note in table.attrs["notes"]]
        named = table.assign(**{arm: [name] * len(table) if arms is None else [within(own) for own in arms]})
        named.attrs = dict(table.attrs)
        tables.append(named)
    tables, texts = written_alike(tables)
    merged = pd.concat(tables, ignore_index=True)
    lists["empty"] = [name for name in tables[0].attrs.get("empty", ()) if name in tables[1].attrs.get("empty", ())]
    merged.attrs = {
        **{key: Unchanged(items) for key, items in lists.items()},
        "texts": texts,
        "directions": {**tables[1].attrs.get("directions", {}), **tables[0].attrs.get("directions", {})},
        "source": f"{first}, {second}",
    }
    return merged, str(tables[0][arm].iloc[0]) if len(tables[0]) else names[0]


def _source_name(source: str) -> str:
    return source.rpartition("#")[2] if "#" in source else Path(source).stem
