"""The journal of a sweep as rows: which trials are its own, what they measured, how long they took.

Called by `kinds` for a folder or a journal, and by `runs` and `sweep_directory`, which read more of the same journal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from sqlite3 import DatabaseError
from typing import Any

from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.records import TrialRecord, open_journal, read_meta, read_trials, table_row

from .source_kind import LEFT_OUT, SourceKind, SourceRows, columns_met

EARLIER = "from an earlier version of the file"
"""Why a trial of the journal that is none of the sweep's own is left out."""


def is_sweep(source: str) -> bool:
    """Whether it is the folder of a sweep, or a database that may be a journal."""
    path = Path(source)
    return (path / "journal.sqlite").is_file() if path.is_dir() else path.suffix == ".sqlite" and path.exists()


def read_journal(source: str) -> SourceRows:
    """The trials of a sweep, one row each.

    Raises:
        AnalysisError: There is no journal, or it is not one.
    """
    with connect(journal_path(Path(source))) as connection:
        return journal_rows(connection)


def journal_path(path: Path) -> Path:
    """The journal in a folder, or the file itself."""
    if path.is_dir():
        journal = path / "journal.sqlite"
        if journal.is_file():
            return journal
        raise AnalysisError(f"{path}: no journal.sqlite in this folder{sweeps_inside(path)}")
    if not path.exists():
        raise AnalysisError(f"{path}: no such file or folder; give the folder of a sweep, or its journal.sqlite")
    return path


def sweeps_inside(folder: Path) -> str:
    """The end of a message about a folder that is no sweep: the sweeps that it holds."""
    inside = sorted(child.parent.name for child in folder.glob("*/journal.sqlite"))
    return (
        f"; it holds the sweeps {', '.join(inside)}: name one of these folders"
        if inside
        else "; give the folder of a sweep"
    )


@contextmanager
def connect(path: Path) -> Iterator[Any]:
    """A read-only journal that closes itself, with the database's complaints in our words, and what to give instead."""
    connection = open_journal(path)
    try:
        yield connection
    except DatabaseError as error:
        raise AnalysisError(
            f"{path}: not a journal of a sweep ({error}); give the folder of a sweep, or its journal.sqlite"
        ) from error
    finally:
        connection.close()


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


def journal_rows(connection: Any) -> SourceRows:
    """As `read_journal`, of a journal that is open already."""
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
    rows += [{**table_row(trial), LEFT_OUT: ("version", EARLIER)} for trial in earlier]
    return SourceRows(rows=rows, columns=columns_met(rows), ours=True)


KIND = SourceKind(
    name="sweep",
    described="the folder of a sweep, or its journal.sqlite",
    recognises=is_sweep,
    read=read_journal,
)
