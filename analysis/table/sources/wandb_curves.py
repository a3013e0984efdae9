"""A chart of W&B, exported as CSV: one row per step, and three columns per run (`run - metric`, `…__MIN`, `…__MAX`).

Called by `kinds`. The last value of each run is its measurement. The table of runs, which W&B exports too, needs no
reader of its own.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from stackwise_ray.core.errors import AnalysisError

from .delimited_text import read_delimited
from .foreign import as_source
from .source_kind import SourceKind, SourceRows

_ENDS = ("__MIN", "__MAX")
_BETWEEN = " - "


def is_chart(source: str) -> bool:
    """Whether the heading of a CSV file is that of a chart."""
    path = Path(source)
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        heading = next(csv.reader(file), [])
    return any(_BETWEEN in name and all(f"{name}{end}" in heading for end in _ENDS) for name in heading)


def read_chart(source: str) -> SourceRows:
    """One row per run and the last value of each of its metrics.

    Raises:
        AnalysisError: The file is no table in text, or no run has a value.
    """
    table = read_delimited(source)
    curves = [name for name in table.columns if _BETWEEN in name and not name.endswith(_ENDS)]
    step, runs = table.columns[0], dict[str, dict[str, Any]]()
    for row in table.rows:
        for name in curves:
            if name in row:
                run, _, metric = name.rpartition(_BETWEEN)
                runs.setdefault(run, {"Name": run}).update({metric: row[name], "last_step": row.get(step)})
    if not runs:
        raise AnalysisError(f"{source}: a chart of W&B in which no run has a value; export the table of runs instead")
    lengths = {row["last_step"] for row in runs.values()}
    notes = [
        "a chart of W&B: each value is the last one of its curve (the table of runs, exported as CSV, has settings too)"
    ]
    if len(lengths) > 1:
        notes.append(
            f"the runs end at different steps ({', '.join(sorted(map(str, lengths))[:4])} …, column last_step)"
        )
    return as_source(list(runs.values()), [*table.notes, *notes])


KIND = SourceKind(
    name="wandb_chart",
    described="a chart of W&B exported as .csv",
    recognises=is_chart,
    read=read_chart,
)
