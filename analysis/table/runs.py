"""Runs from anywhere as one typed table: a sweep directory, a journal, an MLflow experiment or a CSV.

`load_runs` is the public face; `load_curves` gives what a sweep measured on the way. What is left out stands in
`DataFrame.attrs["exclusions"]`, each with its reason. Nothing here computes a statistic.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.records import (
    TABLE_COLUMNS,
    TrialRecord,
    open_journal,
    read_meta,
    read_reports,
    read_trials,
    table_row,
)

from .columns import short_names

if TYPE_CHECKING:
    import pandas as pd

REPLICATES = ("replicate",)
EARLIER = "from an earlier version of the file"
"""Why a trial of the journal that is none of the sweep's own is left out."""
_SOURCES = "a sweep folder, journal.sqlite, a .csv file, or an MLflow store as sqlite:///FILE#EXPERIMENT"
_LARGEST = 1.797e308
"""MLflow's databases store ±infinity as ±1.7976931348623157e308."""


def load_runs(source: str | Path, *, roles: Collection[str] | None = REPLICATES) -> pd.DataFrame:
    """A table with one row per finished run.

    Args:
        source: Folder of a sweep, its `journal.sqlite`, an MLflow store with an experiment
            ("sqlite:///mlflow.db#experiment", "http://host:5000#experiment"), or a CSV file.
        roles: Roles to keep where runs have one: "replicate", "tuning", "search"; None: all of them. Where a sweep
            has search trials and no replicates, the default keeps the search trials; tuning trials it never keeps.

    Returns:
        `core.records.TABLE_COLUMNS` that are known come first, then every metric under its path and what was set as
        `parameters/<path>`. `attrs["exclusions"]` lists what was left out: run, arm, seed, by ("role", "status",
        "parent", or "version" for trials of an earlier version of a sweep's file) and why. `attrs["source"]` is the
        source.

    Raises:
        AnalysisError: No such source, or one that cannot be read; the message says what is missing.
    """
    text = str(source)
    if "#" in text and not Path(text).exists():
        from .mlflow_runs import read_experiment

        rows = read_experiment(text)
    elif "://" in text:
        from .mlflow_runs import experiment_names

        names = ", ".join(experiment_names(text)) or "none"
        raise AnalysisError(f"{text}: name an experiment after '#'; the store has: {names}")
    else:
        path = Path(source)
        if path.suffix.lower() == ".csv":
            rows, columns = _read_csv(path)
            frame = _typed(rows, text, roles)
            frame.attrs["empty"] = Unchanged(name for name in columns if not any(name in row for row in rows))
            return frame
        with connect(journal_path(path), _SOURCES) as connection:
            return runs_in(connection, text, roles)
    return _typed(rows, text, roles)


def runs_in(connection: Any, source: str, roles: Collection[str] | None = REPLICATES) -> pd.DataFrame:
    """As `load_runs`, of a journal that is open already."""
    return _typed(_journal_rows(connection), source, roles)


def load_curves(
    source: str | Path, metrics: Iterable[str], *, roles: Collection[str] | None = REPLICATES
) -> pd.DataFrame:
    """What a sweep's finished trials reported on the way.

    Returns:
        Long format: trial_id, arm, seed, metric, step, tokens, flops, seconds (since the trial's first report), value.
        Where a continued attempt reported a step again, the later report counts.

    Raises:
        AnalysisError: There is no journal at `source`.
    """
    import pandas as pd

    wanted = tuple(metrics)
    with connect(journal_path(Path(source))) as connection:
        trials: dict[str, list[TrialRecord]] = {}
        for trial in sweep_trials(connection)[0]:
            if trial.status == "finished" and (roles is None or trial.role in roles):
                trials.setdefault(trial.trial_id, []).append(trial)
        latest: dict[tuple[str, str, int], tuple[Any, float]] = {}
        first: dict[str, float] = {}
        for _, record in read_reports(connection):
            if record.trial_id not in trials:
                continue
            first.setdefault(record.trial_id, record.time)
            for metric in wanted:
                if metric in record.metrics:
                    latest[record.trial_id, metric, record.step] = (record, record.metrics[metric])
    rows = [
        {
            "trial_id": name,
            "arm": trial.arm,
            "seed": trial.seed,
            "metric": metric,
            "step": step,
            "tokens": record.tokens,
            "flops": record.flops,
            "seconds": record.time - first[name],
            "value": value,
        }
        for (name, metric, step), (record, value) in sorted(latest.items(), key=lambda item: item[0])
        for trial in trials[name]
    ]
    columns = ["trial_id", "arm", "seed", "metric", "step", "tokens", "flops", "seconds", "value"]
    return pd.DataFrame(rows, columns=columns)


def exclusion_counts(exclusions: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line per reason for which runs were left out, with how many."""
    counts = Counter(str(item["why"]) for item in exclusions)
    return [f"{count} × {why}" for why, count in counts.items()]


def journal_path(path: Path) -> Path:
    if path.is_dir():
        journal = path / "journal.sqlite"
        if journal.is_file():
            return journal
        inside = sorted(child.parent.name for child in path.glob("*/journal.sqlite"))
        hint = f"; it holds the sweeps {', '.join(inside)}: name one of these folders" if inside else ""
        raise AnalysisError(f"{path}: no journal.sqlite in this folder{hint}")
    if not path.exists():
        raise AnalysisError(f"{path}: no such file or folder; give a sweep folder, a CSV file or an MLflow store")
    return path


def connect(path: Path, instead: str = "the folder of a sweep, or its journal.sqlite") -> Any:
    """A read-only journal that closes itself, with the database's complaints in our words, and what to give instead."""
    from contextlib import contextmanager
    from sqlite3 import DatabaseError

    @contextmanager
    def opened() -> Any:
        connection = open_journal(path)
        try:
            yield connection
        except DatabaseError as error:
            raise AnalysisError(f"{path}: not a journal of a sweep ({error}); give {instead}") from error
        finally:
            connection.close()

    return opened()


def sweep_trials(connection: Any) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """The sweep's own trials, and those of the journal that an earlier version of its file made.

    The journal's fact "trial_set" says which are its own, and under which arm, seed, role and parameters; a trial may
    stand under two arms. Where it is absent or empty, all trials are the sweep's own. One that the set names and the
    journal does not hold yet is pending.
    """
    found = {trial.trial_id: trial for trial in read_trials(connection)}
    listed = read_meta(connection).get("trial_set") or []
    if not listed:
        return list(found.values()), []
    own = []
    for entry in listed:
        name, arm, seed, role = entry["trial_id"], entry["arm"], entry["seed"], entry["role"]
        trial = found.get(name) or TrialRecord(
            trial_id=name, number=len(found), arm=arm, seed=seed, role=role, config={}
        )
        own.append(replace(trial, arm=arm, seed=seed, role=role, parameters=entry.get("parameters") or {}))
    names = {trial.trial_id for trial in own}
    return own, [trial for name, trial in found.items() if name not in names]


def attempt_seconds(connection: Any) -> dict[str, float]:
    """By trial, the wall time of all its attempts; an attempt whose end nobody saw leaves the trial's time unknown."""
    seconds: dict[str, float | None] = {}
    for name, start, end in connection.execute("SELECT trial_id, started_at, ended_at FROM attempts"):
        so_far = seconds.get(name, 0.0)
        seconds[name] = None if so_far is None or end is None else so_far + (end - start)
    return {name: value for name, value in seconds.items() if value is not None}


def _journal_rows(connection: Any) -> list[dict[str, Any]]:
    trials, earlier = sweep_trials(connection)
    seconds = attempt_seconds(connection)
    steps = dict(connection.execute("SELECT trial_id, MAX(step) FROM reports GROUP BY trial_id").fetchall())
    rows = []
    for trial in trials:
        row = table_row(trial)
        if trial.trial_id in seconds:
            row["attempt_seconds"] = seconds[trial.trial_id]
        if trial.trial_id in steps:
            row["steps"] = steps[trial.trial_id]
        rows.append(row)
    return rows + [{**table_row(trial), "_earlier": True} for trial in earlier]


def _read_csv(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Its rows without their empty cells, and the names of all columns."""
    import pandas as pd

    if not path.is_file():
        raise AnalysisError(f"{path}: no such file")
    try:
        heading = pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0].dropna()
        separator = next((mark for mark in ";\t|" if heading.size == 1 and mark in heading.iloc[0]), None)
        if separator is not None:
            raise AnalysisError(
                f"{path}: its values are separated by {separator!r}; save it with commas between them, and points in "
                f"numbers"
            )
        frame = pd.read_csv(path)
    except UnicodeDecodeError as error:
        raise AnalysisError(
            f"{path}: not a text file in UTF-8; give a CSV table, or save it in that encoding"
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise AnalysisError(f"{path}: not a CSV table ({error})") from error
    if frame.empty:
        raise AnalysisError(f"{path}: the table has no rows")
    if heading.duplicated().any():
        twice = heading[heading.duplicated()].iloc[0]
        raise AnalysisError(f"{path}: two columns are called '{twice}'; rename one")
    rows = frame.to_dict("records")
    filled = [{str(key): value for key, value in row.items() if not _is_nan(value)} for row in rows]
    return filled, [str(name) for name in frame.columns]


class Unchanged(list[Any]):
    """A list that nobody changes: pandas copies `attrs` in depth with every column and every selection of a table."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Unchanged:
        return self


def _typed(rows: list[dict[str, Any]], source: str, roles: Collection[str] | None) -> pd.DataFrame:
    import pandas as pd

    kinds = {row["role"] for row in rows if "role" in row and not row.get("_earlier")}
    if roles == REPLICATES and "replicate" not in kinds:
        roles = tuple(kinds - {"tuning"}) or roles  # the loss after a short tuning budget answers nothing
    kept, exclusions = [], []
    for row in rows:
        by, why = _exclusion(row, roles)
        if why is None:
            kept.append(_with_derived(row))
        else:
            facts = {key: row.get(key) for key in ("arm", "seed", "role", "status")}
            exclusions.append({"run": row.get("trial_id") or row.get("run_id"), **facts, "by": by, "why": why})
    names = list(dict.fromkeys(key for row in kept for key in row if not key.startswith("_")))
    leading = [name for name in TABLE_COLUMNS if name in names]
    frame = pd.DataFrame(kept, columns=leading + [name for name in names if name not in leading])
    for name in frame.columns:
        frame[name] = _column(frame[name])
    frame.attrs = {"exclusions": Unchanged(exclusions), "source": source}
    return frame


def _exclusion(row: Mapping[str, Any], roles: Collection[str] | None) -> tuple[str, str | None]:
    if row.get("_earlier"):
        return "version", EARLIER
    if row.get("_parent"):
        return "parent", "parent run: it groups others and measured nothing itself"
    if roles is not None and "role" in row and row["role"] not in roles:
        return "role", f"role {row['role']}"
    status = row.get("status", "finished")
    if status != "finished":
        reason = row.get("reason")
        detail = " early, so its loss is that of a truncated run" if status == "stopped" and not reason else ""
        return "status", f"{status}{detail}" + (f": {reason}" if reason and reason != status else "")
    return "", None


def _with_derived(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the table's short names filled in from the metric paths that define them."""
    missing = {short: row[path] for short, path in short_names().items() if short not in row and path in row}
    return {**row, **missing}


def _column(column: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers as numbers (MLflow's stand-ins for infinity read back), text as text, anything else as JSON."""
    import numpy as np
    import pandas as pd

    if pd.api.types.is_bool_dtype(column):
        return column
    if pd.api.types.is_numeric_dtype(column):
        if pd.api.types.is_float_dtype(column):
            return column.where(~(column.abs() >= _LARGEST), np.sign(column) * np.inf)
        return column
    return column.map(lambda value: json.dumps(value) if isinstance(value, (list, dict, tuple)) else value)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value
