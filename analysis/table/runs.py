"""Runs from anywhere as one typed table: whatever `sources` can read.

`load_runs` is the public face; `load_curves` gives what a sweep measured on the way. What is left out stands in
`DataFrame.attrs["exclusions"]`, each with its reason. Nothing here computes a statistic.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.records import TABLE_COLUMNS, TrialRecord, read_reports

from .columns import short_names
from .exclusions import Unchanged, exclusion
from .run_status import check_words, is_finished, status_columns
from .selection import select
from .sources.kinds import read_rows
from .sources.source_kind import LEFT_OUT, SourceRows
from .sources.sweep_journal import connect, journal_path, journal_rows, sweep_trials
from .typed_columns import as_frame

if TYPE_CHECKING:
    import pandas as pd

REPLICATES = ("replicate",)


def load_runs(
    source: str | Path,
    *,
    roles: Collection[str] | None = REPLICATES,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    where: Iterable[str] = (),
) -> pd.DataFrame:
    """A table with one row per finished run.

    Args:
        source: Folder of a sweep, a table (CSV, TSV, JSON lines, Parquet), an MLflow experiment or an Optuna study
            ("sqlite:///mlflow.db#experiment", "sqlite:///study.db#study"), or a folder of TensorBoard, transformers,
            Hydra or lm-evaluation-harness (docs/sources.md).
        roles: Roles to keep where runs have one: "replicate", "tuning", "search"; None: all of them. Where a sweep
            has search trials and no replicates, the default keeps the search trials; tuning trials it never keeps.
        columns: What the source calls a column, by the name that it gets: {"params": "Model Size"}. A column that has
            the name already is called original_NAME then.
        units: Units of columns that are not in counts, nats or seconds: {"params": "M", "tokens": "B"}.
        where: Conditions that runs must meet, such as "lr == 0.001"; the others are listed as left out.

    Returns:
        `core.records.TABLE_COLUMNS` that are known come first, then every metric under its path and what was set as
        `parameters/<path>`. A column of numbers alone holds numbers; names (arm, task, tags) and columns in which two
        texts are one number (1.1, 1.10) stay text. `attrs["exclusions"]` lists what was left out: run, arm, seed, by
        ("role", "status", "parent", "nested", or "version" for trials of an earlier version of a sweep's file) and why.
        `attrs["notes"]` says what was tidied up, `attrs["texts"]` holds how numbers were written, and
        `attrs["source"]` is the source.

    Raises:
        AnalysisError: No such source, or one that cannot be read; the message says what is missing.
    """
    table = as_table(read_rows(str(source)), str(source), roles, renamed=tuple((columns or {}).values()))
    return select(table, columns=columns, units=units, where=where)


def runs_in(connection: Any, source: str, roles: Collection[str] | None = REPLICATES) -> pd.DataFrame:
    """As `load_runs`, of a journal that is open already."""
    return as_table(journal_rows(connection), source, roles)


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


def as_table(
    found: SourceRows,
    source: str,
    roles: Collection[str] | None = REPLICATES,
    renamed: Collection[str] = (),
) -> pd.DataFrame:
    """The rows of a source as the one table, without the runs that do not count.

    Args:
        renamed: Columns that get another name, so that their own says nothing of what they hold.

    Raises:
        AnalysisError: A column that says how runs ended holds a word that is not known.
    """
    kinds = {row["role"] for row in found.rows if "role" in row and LEFT_OUT not in row}
    if roles == REPLICATES and "replicate" not in kinds:
        roles = tuple(kinds - {"tuning"}) or roles  # the loss after a short tuning budget answers nothing
    states = [column for column in status_columns(found.columns) if column not in renamed]
    for column in states:
        check_words(column, (row[column] for row in found.rows if column in row))
    notes = list(found.notes)
    for column in states:
        unknown = sum(column not in row and LEFT_OUT not in row for row in found.rows)
        if 0 < unknown < len(found.rows):
            runs = "run has" if unknown == 1 else "runs have"
            notes.append(
                f"{unknown} {runs} nothing in column '{column}': whether they finished is not known; they count"
            )
    kept: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    for row in found.rows:
        by, why = _exclusion(row, roles, states)
        if why is None:
            kept.append(_with_derived(row))
        else:
            left_out.append({"by": by, "why": why, "cells": {name: row[name] for name in row if name != LEFT_OUT}})
    names = list(dict.fromkeys([*found.columns, *(name for row in kept for name in row)]))
    leading = [name for name in TABLE_COLUMNS if name in names]
    frame = as_frame(kept, leading + [name for name in names if name not in leading])
    frame.attrs |= {
        "exclusions": Unchanged(exclusion(item["cells"], item["by"], item["why"]) for item in left_out),
        "left_out": Unchanged(left_out),
        "empty": Unchanged(name for name in names if not any(name in row for row in kept)),
        "notes": Unchanged(notes),
        "source": source,
        "ours": found.ours,
        "directions": dict(found.directions),
    }
    return frame


def _exclusion(row: Mapping[str, Any], roles: Collection[str] | None, states: Iterable[str]) -> tuple[str, str | None]:
    if LEFT_OUT in row:
        by, why = row[LEFT_OUT]
        return by, why
    if roles is not None and "role" in row and row["role"] not in roles:
        return "role", f"role {row['role']}"
    for column in states:
        if column in row and not is_finished(row[column]):
            status, reason = row[column], row.get("reason")
            detail = " early, so its loss is that of a truncated run" if status == "stopped" and not reason else ""
            return "status", f"{status}{detail}" + (f": {reason}" if reason and reason != status else "")
    return "", None


def _with_derived(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the table's short names filled in from the metric paths that define them."""
    missing = {short: row[path] for short, path in short_names().items() if short not in row and path in row}
    return {**row, **missing}
