"""What a reader asks of a table before a question: columns under other names, some of the runs, only measured ones.

`load_runs` and every command ask here. What is left out is counted among the exclusions; what is renamed is noted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import ge, gt, le, lt
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError, did_you_mean, first_few
from stackwise_ray.core.records import OWN_MASKS

from .cell_numbers import is_plain_number, numbers
from .exclusions import Unchanged, left_out_words, without
from .typed_columns import NAMES, Texts, filled, names_of, numbers_of
from .units import convert_units

if TYPE_CHECKING:
    import pandas as pd

_CONDITION = re.compile(r"\s*(.+?)\s*(==|!=|<=|>=|<|>|=)\s*(.*?)\s*")
_ORDERS: Mapping[str, Callable[[Any, Any], Any]] = {"<": lt, "<=": le, ">": gt, ">=": ge}


def select(
    table: pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    where: Iterable[str] = (),
) -> pd.DataFrame:
    """The table with columns renamed, then converted, then without the runs that do not meet a condition."""
    return keep_where(convert_units(rename_columns(table, columns or {}), units or {}), where)


def rename_columns(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """The table with `names[ours]` called `ours`; a column that has the name already gets another, and a note says so.

    Raises:
        AnalysisError: A column that is not there, or one that is asked for under two names.
    """
    for ours, theirs in names.items():
        if theirs not in table.columns:
            raise AnalysisError(f"{ours} = '{theirs}' is not a column of the table; {_hint(theirs, table)}")
        if list(names.values()).count(theirs) > 1:
            twice = " and ".join(name for name, column in names.items() if column == theirs)
            raise AnalysisError(f"column '{theirs}' cannot be {twice} at once; name one of them")
    moves = {theirs: ours for ours, theirs in names.items()}
    notes = []
    for ours, theirs in names.items():
        if ours == "loss" and theirs != ours and theirs not in OWN_MASKS:
            table = _dropped(table, "loss_kind")  # of the masks of the loss that it stands beside
        if ours == theirs or ours not in table.columns or ours in moves:
            continue
        free = next(name for name in _other_names(ours) if name not in table.columns and name not in moves.values())
        moves[ours] = free
        notes.append(f"{ours} is the column '{theirs}', as asked; the column '{ours}' of the table is called '{free}'")
    renamed = table.rename(columns=moves)
    attrs = dict(table.attrs)
    attrs["notes"] = Unchanged([*attrs.get("notes", ()), *notes])
    attrs["directions"] = {moves.get(name, name): way for name, way in attrs.get("directions", {}).items()}
    attrs["empty"] = Unchanged(moves.get(name, name) for name in attrs.get("empty", ()))
    attrs["texts"] = Texts({moves.get(name, name): kept for name, kept in attrs.get("texts", {}).items()})
    if "left_out" in attrs:
        attrs["left_out"] = Unchanged(
            {**row, "cells": {moves.get(name, name): cell for name, cell in row["cells"].items()}}
            for row in attrs["left_out"]
        )
    attrs["sources_of"] = {**attrs.get("sources_of", {}), **{theirs: ours for ours, theirs in names.items()}}
    renamed.attrs = attrs
    return renamed


def keep_where(table: pd.DataFrame, conditions: Iterable[str]) -> pd.DataFrame:
    """The runs that meet every condition, such as "lr == 0.001", "optimizer != sgd" or "loss < 9".

    == and != compare names as they are written, and numbers by their value where the column holds only numbers. Quotes
    around a value say that it is a name. A run without a value meets no condition. A column may be called as in the
    source, or as it was renamed.

    Raises:
        AnalysisError: No condition, a column that is not there, <, <=, > or >= with something else than numbers, no
            run that meets it, or a number that the column writes in several ways.
    """
    for condition in conditions:
        column, sign, value, quoted = _parts(table, condition)
        met = _meets(table, column, sign, value, quoted)
        if not met.any() and len(table):
            held = list(dict.fromkeys(names_of(table, column)))
            shown = first_few(held, 8)
            raise AnalysisError(f"no run meets '{condition}': column '{column}' holds {shown}")
        table = without(table, ~met, f"where {column}", f"not {column} {sign} {value}, as asked")
    return table


def drop_missing(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The runs that have a value in each of these columns (those of them that the table has); nan is none."""
    for column in columns:
        missing = _unmeasured(table, column) if column in table.columns else None
        if missing is not None and missing.any():
            table = without(table, missing, "unmeasured", f"no {column}")
    return table


def _unmeasured(table: pd.DataFrame, column: str) -> pd.Series[bool]:
    """Where a column holds nothing; among numbers, the words for nothing (nan, NA, None) hold nothing either."""
    import pandas as pd

    empty = table[column].isna()
    values = numbers(filled(table[column])) if column.lower() not in NAMES else [None]
    if all(value is not None for value in values):
        return empty | pd.Series([value != value for value in values], index=table.index)
    return empty


def _parts(table: pd.DataFrame, condition: str) -> tuple[str, str, str, bool]:
    """Column, sign and value of a condition, and whether the value stands in quotes."""
    found = _CONDITION.fullmatch(condition)
    if found is None:
        raise AnalysisError(
            f'--where \'{condition}\': write "COLUMN OP VALUE" with ==, !=, <, <=, > or >=, for example "lr == 0.001"'
        )
    named, sign, value = found.groups()
    column = table.attrs.get("sources_of", {}).get(named, named) if named not in table.columns else named
    if column not in table.columns:
        raise AnalysisError(f"--where '{condition}': '{named}' is not a column of the table; {_hint(named, table)}")
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return column, "==" if sign == "=" else sign, value[1:-1] if quoted else value, quoted


def _meets(table: pd.DataFrame, column: str, sign: str, value: str, quoted: bool) -> pd.Series[bool]:
    known = table[column].notna()
    if sign in _ORDERS:
        (bound,) = numbers([value])
        if bound is None or bound != bound:
            raise AnalysisError(f"--where '{column} {sign} {value}': '{value}' is no number, so nothing is {sign} it")
        ordered: pd.Series[bool] = known & _ORDERS[sign](numbers_of(table, column), bound)
        return ordered
    same = names_of(table, column) == value
    if not quoted:
        same |= _equals(table, column, sign, value)
    met: pd.Series[bool] = known & (same if sign == "==" else ~same)
    return met


def _equals(table: pd.DataFrame, column: str, sign: str, value: str) -> pd.Series[bool]:
    """Where a column of numbers holds the number that is written so; nowhere in a column of names."""
    import pandas as pd

    nowhere = pd.Series(False, index=table.index)
    if not is_plain_number(value) or column.lower() in NAMES:
        return nowhere
    found = numbers(filled(table[column]))
    if any(cell is None for cell in found):
        return nowhere
    equal: pd.Series[bool] = pd.Series(found, index=table.index, dtype=float) == float(value)
    written = list(dict.fromkeys(names_of(table, column)[equal]))
    if len(written) > 1:
        raise AnalysisError(
            f"--where '{column} {sign} {value}': column '{column}' writes this number in {len(written)} ways "
            f"({', '.join(written)}); write it in one way, put a text in quotes ({column} {sign} '{written[0]}'), or "
            f"ask for the number by '{column} <= {value}' and '{column} >= {value}'"
        )
    return equal


def _hint(name: str, table: pd.DataFrame) -> str:
    words = left_out_words(table)
    return did_you_mean(name, table.columns) + (f" ({words})" if words else "")


def _other_names(name: str) -> Iterable[str]:
    yield f"original_{name}"
    number = 2
    while True:
        yield f"original_{name}_{number}"
        number += 1


def _dropped(table: pd.DataFrame, column: str) -> pd.DataFrame:
    kept = table.drop(columns=[column], errors="ignore")
    kept.attrs = dict(table.attrs)
    return kept
