"""Runs in a Parquet file: typed cells, nested ones under dotted columns. Read with pyarrow.

Called by `kinds`. A date becomes text; a cell without a value is absent.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from stackwise_ray.core.errors import AnalysisError

from .foreign import flattened, library
from .source_kind import SourceKind, SourceRows, columns_met, without_empty

SUFFIXES = (".parquet", ".pq")
MAGIC = b"PAR1"


def read_parquet(source: str) -> SourceRows:
    """The rows of a Parquet file.

    Raises:
        AnalysisError: pyarrow is not installed, or the file is damaged, no Parquet file or without rows.
    """
    parquet = library("pyarrow.parquet", "pyarrow", "Parquet files")
    try:
        table = parquet.read_table(source, partitioning=None)
    except (OSError, ValueError) as error:  # pyarrow's errors are both of these
        raise AnalysisError(f"{source}: no whole Parquet file ({str(error).splitlines()[0]})") from error
    index = [name for name in table.column_names if name.startswith("__index_level_")]  # of pandas; it has no name
    table = table.drop_columns(index)
    rows = [flattened(row) for row in table.to_pylist()]
    if not rows:
        raise AnalysisError(f"{source}: the table has no rows")
    filled = [{name: _plain(cell) for name, cell in without_empty(row).items()} for row in rows]
    return SourceRows(rows=filled, columns=list(dict.fromkeys([*table.column_names, *columns_met(filled)])))


def _plain(cell: Any) -> Any:
    """A cell as a number, a bool or text."""
    if isinstance(cell, Decimal):
        return float(cell)
    if isinstance(cell, (datetime, date)):
        return cell.isoformat()
    if isinstance(cell, timedelta):
        return cell.total_seconds()
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    return cell


KIND = SourceKind(
    name="parquet",
    described="a Parquet file (.parquet)",
    recognises=lambda source: Path(source).suffix.lower() in SUFFIXES and Path(source).is_file(),
    read=read_parquet,
)
