"""Tables in text, one row per line (CSV): cells stay the text that they are.

Called by `kinds`. A row that does not fit its heading is refused by its line; what is tidied up (blanks around cells,
comments, empty lines, another separator) is noted.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

from stackwise_ray.core.errors import AnalysisError

from ..cell_numbers import has_decimal_commas, is_plain_number
from .source_kind import SourceKind, SourceRows, without_empty

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_LARGEST_CELL = 2**27
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
Line = tuple[int, list[str]]
"""Number of a line in the file, from 1, and its cells."""


def read_delimited(source: str) -> SourceRows:
    """The rows of a table in text, whose cells are parted by whichever of `SEPARATORS` parts the heading most.

    Raises:
        AnalysisError: No such file, no text in UTF-8, no rows, two columns of one name, or a row with other cells than
            the heading.
    """
    path = Path(source)
    text = _text(path)
    mark = _separator(text)
    notes = [] if mark == "," else [f"its cells are separated by {SEPARATORS[mark]}"]
    lines, comments = _lines(path, text, mark)
    if not lines:
        raise AnalysisError(f"{path}: not a CSV table (it holds no line)")
    if comments:
        notes.append(f"{comments} comment line{'s' if comments > 1 else ''} (#) skipped")
    (_, heading), *body = lines
    names = _names(path, heading)
    if not body:
        raise AnalysisError(f"{path}: the table has no rows")
    rows, blanks = [], Counter[str]()
    for number, cells in body:
        fitted = _fitted(path, number, cells, names)
        for name, cell in zip(names, fitted, strict=True):
            if cell != cell.strip() and cell.strip() and not is_plain_number(cell.strip()):
                blanks[name] += 1
        rows.append(without_empty({name: cell.strip() for name, cell in zip(names, fitted, strict=True)}))
    for name, count in blanks.items():
        where = "1 cell" if count == 1 else f"{count} cells"
        notes.append(f"blanks around {where} of column '{name}' removed")
    commas = [name for name in names if has_decimal_commas(row[name] for row in rows if name in row)]
    if commas:
        notes.append(f"commas are decimal points in column{'s' if len(commas) > 1 else ''} {', '.join(commas)}")
    return SourceRows(rows=_without_row_numbers(rows, names), columns=[name for name in names if name], notes=notes)


def _text(path: Path) -> str:
    if not path.is_file():
        raise AnalysisError(f"{path}: no such file")
    content = path.read_bytes()
    if content.startswith(_UTF_16):
        raise AnalysisError(f"{path}: text in UTF-16; save it in UTF-8 (iconv -f UTF-16 -t UTF-8 OLD > NEW)")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnalysisError(
            f"{path}: not a text file in UTF-8; give a CSV table, or save it in that encoding"
        ) from error


def _separator(text: str) -> str:
    """What parts the first lines that are no comments into the most cells; commas where nothing does."""
    heading = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    counts = {mark: len(next(csv.reader([heading], delimiter=mark), [])) for mark in SEPARATORS}
    return max(counts, key=lambda mark: counts[mark])


def _lines(path: Path, text: str, separator: str) -> tuple[list[Line], int]:
    """Lines with something in them, and how many comments there were.

    A line that begins with # and has as many cells as the others is a heading or a run.
    """
    before = csv.field_size_limit(_LARGEST_CELL)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise AnalysisError(f"{path}: not a CSV table (line {reader.line_num}: {error})") from error
    finally:
        csv.field_size_limit(before)
    if not lines:
        return [], 0
    usual = Counter(len(cells) for _, cells in lines).most_common(1)[0][0]
    fitting = {usual, *([usual - 1] if usual > 2 else [])}  # one less: a comma ends each row, and not the heading
    kept = [line for line in lines if not line[1][0].startswith("#") or len(line[1]) in fitting]
    if kept:
        kept[0][1][0] = kept[0][1][0].lstrip("# ")
    return kept, len(lines) - len(kept)


def _names(path: Path, heading: list[str]) -> list[str]:
    names = [name.strip() for name in heading]
    while names and not names[-1]:
        names.pop()
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        what = f"are called '{twice[0]}'; rename one" if twice[0] else "have no name; name them"
        raise AnalysisError(f"{path}: two columns {what}")
    return names


def _fitted(path: Path, number: int, cells: list[str], names: list[str]) -> list[str]:
    """The cells under their names: a trailing comma adds an empty cell and shifts nothing."""
    extra = [cell for cell in cells[len(names) :] if cell.strip()]
    if extra or len(cells) < len(names):
        raise AnalysisError(
            f"{path}: line {number} has {len(cells)} cells, and the heading names {len(names)} columns; write one cell "
            f"per column, with quotes around a cell that holds the separator"
        )
    return cells[: len(names)]


def _without_row_numbers(rows: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """Rows without the nameless column that pandas writes: 0, 1, 2, …; any other nameless column gets a name."""
    if "" not in names:
        return rows
    if all(row.get("") == str(index) for index, row in enumerate(rows)):
        return [{name: cell for name, cell in row.items() if name} for row in rows]
    names[names.index("")] = "unnamed"
    return [{name or "unnamed": cell for name, cell in row.items()} for row in rows]


KIND = SourceKind(
    name="csv",
    described="a .csv or .tsv file",
    recognises=lambda source: Path(source).suffix.lower() in (".csv", ".tsv") and not Path(source).is_dir(),
    read=read_delimited,
)
