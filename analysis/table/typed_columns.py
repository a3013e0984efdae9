"""What the cells of a column are, by the role that asks: text of sources as numbers, and as the names that they are.

`as_frame` makes the table that a caller gets: a column that is only numbers becomes numbers, so that a notebook can
compute with it; columns of names stay text, and so does every column in which two texts are one number (1.1 and 1.10).
Where the text of a number is not how Python writes it (007, 2.10, 1e3), the table keeps it in `attrs["texts"]`.
Whoever needs a role asks `numbers_of` or `names_of`, whatever the column holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.metric_catalogue import metric_called
from stackwise_ray.core.records import TABLE_COLUMNS

from .cell_numbers import LARGEST, is_plain_number, numbers, plain_number, why_not

if TYPE_CHECKING:
    import pandas as pd

COUNTS = frozenset(
    {"params", "params_total", "tokens", "unique_tokens", "flops", "steps", "step", "budget", "peak_bytes"}
)
"""Columns of whole numbers, in which 1,024 is a thousand and some."""
_MEASURED = COUNTS | {"loss", "wall_seconds", "attempt_seconds", "gpus", "device_memory_bytes", "gpu_share"}
NAMES = frozenset(
    {"arm", "task", "level", "tag", "tags", "name", "run_name", "notes", "group", "commit", "sha", "git", "hash"}
    | (set(TABLE_COLUMNS) - _MEASURED - {"seed"})
)
"""Columns, in lower case, that are text whatever it looks like."""
_WHOLE = re.compile(r"[+-]?[0-9]+\.0*")


class Texts(dict[str, dict[float, str]]):
    """By column, the text of those numbers that Python writes otherwise; nobody changes it, so nobody copies it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Texts:
        return self


def as_frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a table with typed columns; `attrs["texts"]` holds what their numbers were as text."""
    import pandas as pd

    texts = Texts()
    found = {}
    for name in columns:
        cells = [row.get(name) for row in rows]
        if any(isinstance(cell, str) for cell in cells):
            found[name], kept = _from_text(name, cells)
            if kept:
                texts[name] = kept
        else:
            found[name] = _from_values(cells)
    frame = pd.DataFrame(found, columns=list(columns), index=pd.RangeIndex(len(rows)))
    frame.attrs = {"texts": texts}
    return frame


def numbers_of(table: pd.DataFrame, column: str, where: Collection[str] | None = None) -> pd.Series[float]:
    """A column as numbers; nan where nothing was measured.

    Args:
        where: How to name each row in a message; None: by its index.

    Raises:
        AnalysisError: A cell that is no number, with its row and what to write instead, or several columns of the name.
    """
    import pandas as pd

    cells = table[column]
    if isinstance(cells, pd.DataFrame):
        raise AnalysisError(f"the table has several columns called '{column}'; keep one")
    found = numbers(filled(cells), counts=is_count(column))
    bad = [index for index, value in enumerate(found) if value is None]
    if bad:
        first = bad[0]
        place = list(where)[first] if where is not None else f"row {table.index[first]}"
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise AnalysisError(
            f"column '{column}' holds text where a number should be: {cells.iloc[first]!r} ({place}{more}); "
            f"{why_not(str(cells.iloc[first]))}"
        )
    return pd.Series(found, index=table.index, dtype=float)


def names_of(table: pd.DataFrame, column: str, *, block: bool = False) -> pd.Series[str]:
    """A column as names: the text that the source holds; "" where it holds none.

    Args:
        block: Whether they are blocks, of which 3.0 is the seed 3, where every block is written so.
    """
    import pandas as pd

    texts = _texts(table, column, block)
    return pd.Series([_name(cell, texts) for cell in filled(table[column])], index=table.index, dtype=object)


def name_of(table: pd.DataFrame, column: str, cell: Any, *, block: bool = False) -> str:
    """The name that a cell of a run which is not in the table would have in that column of it.

    Text is its own name (1.10 is not 1.1), but for sizes, which are numbers, and blocks that are written 3.0.
    """
    import pandas as pd

    if isinstance(cell, str) and pd.api.types.is_numeric_dtype(table[column]):
        found = numbers([cell], counts=is_count(column))[0] if _is_measured(column) else None
        if found is not None:
            return label(found)
        whole = block and _WHOLE.fullmatch(cell) is not None and not _texts(table, column, block)
        return label(plain_number(cell)) if whole else cell
    return _name(cell, _texts(table, column, block))


def _texts(table: pd.DataFrame, column: str, block: bool) -> Mapping[float, str]:
    texts: Mapping[float, str] = table.attrs.get("texts", {}).get(column, {})
    return {} if block and all(_WHOLE.fullmatch(text) for text in texts.values()) else texts


def _name(cell: Any, texts: Mapping[float, str]) -> str:
    if _is_number(cell):
        return texts.get(cell) or label(cell)
    return "" if cell is None else label(cell)


def written_alike(tables: Sequence[pd.DataFrame]) -> tuple[list[pd.DataFrame], Texts]:
    """Tables that are to become one, and the texts of their numbers together.

    As within a table, a column in which two texts are one number (2.1 and 2.10) becomes text in all of them; 3 and 3.0,
    which programs write for each other, do not count as two.
    """
    import pandas as pd

    texts, changed = Texts(), [table.copy() for table in tables]
    for column in dict.fromkeys(name for table in tables for name in table.attrs.get("texts", {})):
        holding = [table for table in changed if column in table.columns]
        found: dict[float, str] = {}
        twice = False
        for table in holding:
            for cell, name in zip(filled(table[column]), names_of(table, column), strict=True):
                if _is_number(cell) and not _WHOLE.fullmatch(name):
                    twice = found.setdefault(cell, name) != name or twice
        numeric = all(pd.api.types.is_numeric_dtype(table[column]) for table in holding)
        if twice or not numeric:
            for table in holding:
                empty = table[column].isna()
                table[column] = names_of(table, column).where(~empty, None)
        else:
            texts[column] = {number: text for number, text in found.items() if text != label(number)}
    return changed, texts


def filled(cells: pd.Series[Any]) -> list[Any]:
    """The cells of a column, None where one holds nothing."""
    return [None if empty else cell for cell, empty in zip(cells, cells.isna(), strict=True)]


def label(value: Any) -> str:
    """The name of an arm or a block as text: 3.0 and 3 are the same seed."""
    if isinstance(value, tuple):
        return " × ".join(label(part) for part in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def is_count(column: str) -> bool:
    """Whether a column holds counts: sizes and budgets, under the names of the table or of the metric catalogue."""
    found = metric_called(column)
    return column in COUNTS or (found is not None and not COUNTS.isdisjoint(found.also_called))


def _is_measured(column: str) -> bool:
    """Whether a column holds numbers whatever they look like: a metric of the catalogue, a size, a budget."""
    return metric_called(column) is not None or column in _MEASURED


def _from_text(name: str, cells: list[Any]) -> tuple[pd.Series[Any], dict[float, str]]:
    """A column with text in it, and the texts of its numbers where they are not how Python writes them."""
    import pandas as pd

    if _is_measured(name):
        found = numbers(cells, counts=is_count(name))
        if all(value is not None for value in found):
            return _numeric(name, cells, found), {}
    if name.lower() in NAMES:
        return pd.Series(cells, dtype=object), {}
    return _numbers_or_text(cells)


def _numeric(name: str, cells: list[Any], found: list[float | None]) -> pd.Series[Any]:
    import pandas as pd

    texts = [cell for cell in cells if cell is not None]
    if len(texts) == len(cells) and all(_is_int(cell) for cell in texts):
        return pd.Series([int(cell) for cell in texts])
    return pd.Series(found, dtype=float)


def _numbers_or_text(cells: list[Any]) -> tuple[pd.Series[Any], dict[float, str]]:
    """Numbers where every cell is one and no two texts are the same number; else the cells as they are."""
    import pandas as pd

    filled = [cell for cell in cells if cell is not None]
    plain = [isinstance(cell, str) and (is_plain_number(cell) or _is_nan_word(cell)) for cell in filled]
    typed = [_is_number(cell) for cell in filled]
    as_text = pd.Series(cells, dtype=object)
    if not all(one or other for one, other in zip(plain, typed, strict=True)):
        return as_text, {}
    by_number: dict[float, str] = {}
    values: list[Any] = []
    for cell in cells:
        text = cell if isinstance(cell, str) else None
        if text is None or _is_nan_word(text):
            values.append(float("nan") if cell is None or text is not None else cell)
            continue
        value = plain_number(text)
        if by_number.setdefault(value, text) != text or (isinstance(value, int) and abs(value) > 2**53):
            return as_text, {}
        values.append(value)
    if not by_number and not any(typed):
        return as_text, {}
    whole = all(isinstance(value, int) for value in values)
    kept = {value: text for value, text in by_number.items() if text != label(value)}
    return pd.Series(values, dtype="int64" if whole else float), kept


def _from_values(cells: list[Any]) -> pd.Series[Any]:
    """Numbers as numbers (MLflow's stand-ins for infinity read back), anything else as JSON."""
    import numpy as np
    import pandas as pd

    column = pd.DataFrame({"cells": cells})["cells"]
    if pd.api.types.is_bool_dtype(column):
        return column
    if pd.api.types.is_numeric_dtype(column):
        if pd.api.types.is_float_dtype(column):
            return column.where(~(column.abs() >= LARGEST), np.sign(column) * np.inf)
        return column
    return column.map(lambda value: json.dumps(value) if isinstance(value, (list, dict, tuple)) else value)


def _is_int(cell: Any) -> bool:
    return isinstance(cell, int) or (isinstance(cell, str) and cell.lstrip("+-").isdigit() and len(cell) < 18)


def _is_nan_word(text: str) -> bool:
    return text.lower() == "nan"


def _is_number(cell: Any) -> bool:
    return isinstance(cell, (int, float)) and not isinstance(cell, bool) and cell == cell
