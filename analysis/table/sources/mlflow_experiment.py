"""Runs of an MLflow experiment as rows: the only module of this package that imports mlflow.

Called by `kinds`. It reads any experiment, ours or not: metrics under their names (last value), parameters and own tags
under theirs where the name is free, else as `parameters/<name>` and `tags/<name>`, as the text that MLflow holds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError, did_you_mean, first_few
from stackwise_ray.core.records import loss_kind

from .foreign import parted, sqlite_tables
from .source_kind import LEFT_OUT, SourceKind, SourceRows, columns_met

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_STATUS = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "interrupted",
    "RUNNING": "running",
    "SCHEDULED": "pending",
}
_PARENT = "mlflow.parentRunId"
_MOST_NAMES = 6
_REPEATS = "nested in a run that has the same parameters and its own measurements"


def is_store(source: str) -> bool:
    """Whether it is a URI, or the folder or database of a store, with an experiment after # or without."""
    where = parted(source)[0]
    path = Path(where)
    if path.is_dir():
        return any(path.glob("*/meta.yaml"))
    return "experiments" in sqlite_tables(path) if path.is_file() else "://" in where


def read_experiment(source: str, page_size: int = 1000) -> SourceRows:
    """One row per run of "uri#experiment".

    A run that only groups others (no metrics of its own) is left out. One that measured something counts, and a run
    nested in it that repeats its parameters is left out, as it would take its place.

    Args:
        page_size: Runs that one request to the store asks for.

    Raises:
        AnalysisError: No such store or experiment, no experiment named, or the server does not answer.
    """
    uri, name = parted(source)
    uri = f"sqlite:///{uri}" if Path(uri).is_file() else uri
    if name is None:
        names = ", ".join(experiment_names(uri)) or "none"
        raise AnalysisError(f"{source}: name an experiment after '#'; the store has: {names}")
    client = _client(uri)
    from mlflow.exceptions import MlflowException

    try:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            known = [item.name for item in client.search_experiments()]
            raise AnalysisError(f"{uri}: no experiment '{name}'; {did_you_mean(name, known)}")
        runs = []
        token: str | None = None
        while True:
            page = client.search_runs([experiment.experiment_id], max_results=page_size, page_token=token)
            runs += list(page)
            token = page.token
            if not token:
                break
    except MlflowException as error:
        raise AnalysisError(f"{uri}: the MLflow store does not answer ({str(error).splitlines()[0][:200]})") from error
    repeating = _repeating_runs(runs)
    left_out = _grouping_runs(runs) | repeating
    rows = [_row(run) for run in reversed(runs)]  # oldest first, the order in which they were made
    for row in rows:
        if row["run_id"] in left_out:
            row[LEFT_OUT] = left_out[row["run_id"]]
    return SourceRows(rows=rows, columns=columns_met(rows), notes=_named(runs, repeating))


def experiment_names(uri: str) -> list[str]:
    """Names of the active experiments of a store."""
    return [experiment.name for experiment in _client(uri).search_experiments()]


def _client(uri: str) -> MlflowClient:
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise AnalysisError(f"{uri}: no such file; MLflow would create an empty store there")
    # one quick answer instead of minutes of retries; a value that the user has set stays
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder mlruns is only read
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _grouping_runs(runs: Sequence[Run]) -> dict[str, tuple[str, str]]:
    """Parents that measured nothing, with why they are left out."""
    parents = {run.data.tags[_PARENT] for run in runs if _PARENT in run.data.tags}
    why = "parent run: it groups others and measured nothing itself"
    return {run.info.run_id: ("parent", why) for run in runs if run.info.run_id in parents and not _measured(run)}


def _repeating_runs(runs: Sequence[Run]) -> dict[str, tuple[str, str]]:
    """Nested runs with the parameters of their parent, which measured something itself, with why they are left out.

    Nested runs that differ among themselves in parameters of their own are trials, not repetitions of the parent.
    """
    by_name = {run.info.run_id: run for run in runs}
    nested: dict[str, list[Run]] = {}
    for run in runs:
        parent = by_name.get(run.data.tags.get(_PARENT, ""))
        if parent is not None and _measured(parent) and _repeats(run, parent):
            nested.setdefault(parent.info.run_id, []).append(run)
    found: dict[str, tuple[str, str]] = {}
    for name, children in nested.items():
        own = {tuple(sorted(run.data.params.items() - by_name[name].data.params.items())) for run in children}
        if len(own) == 1:
            found |= {run.info.run_id: ("nested", _REPEATS) for run in children}
    return found


def _named(runs: Sequence[Run], repeating: Mapping[str, tuple[str, str]]) -> list[str]:
    """A note with the names of the nested runs that are left out."""
    names = [run.info.run_name or run.info.run_id for run in reversed(runs) if run.info.run_id in repeating]
    if not names:
        return []
    return [f"nested runs {first_few(names, _MOST_NAMES)} would take the place of their parents: left out"]


def _repeats(run: Run, parent: Run) -> bool:
    """Whether a nested run says nothing else of itself than its parent does."""
    ours, theirs = run.data.params, parent.data.params
    return all(ours.get(key) == theirs[key] for key in theirs) if ours else True


def _measured(run: Run) -> bool:
    return any(not name.startswith("system/") for name in run.data.metrics)


def _row(run: Run) -> dict[str, Any]:
    row: dict[str, Any] = {"run_id": run.info.run_id, "run_name": run.info.run_name}
    row["status"] = _STATUS.get(run.info.status, run.info.status.lower())
    row.update(run.data.metrics)
    own_tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    for prefix, texts in (("parameters", run.data.params), ("tags", own_tags)):
        for key, value in texts.items():
            row[key if key not in row else f"{prefix}/{key}"] = value
    if "trial_id" in own_tags:  # a run of ours: its tags know more states than MLflow does
        row["status"] = own_tags.get("status", row["status"])
        row["reason"] = own_tags.get("reason") or None
        row["loss_kind"] = loss_kind(_nested(run.data.params))
    if run.info.start_time is not None:
        row.setdefault("started_at", run.info.start_time / 1000)
        if run.info.end_time is not None:
            row.setdefault("attempt_seconds", (run.info.end_time - run.info.start_time) / 1000)
    return row


def _nested(settings: Mapping[str, str]) -> dict[str, Any]:
    """Parameters under dotted paths as the configuration that they were.

    >>> _nested({"model.role": "encoder", "seed": "0"})
    {'model': {'role': 'encoder'}, 'seed': '0'}
    """
    config: dict[str, Any] = {}
    for path, value in settings.items():
        *parents, name = path.split(".")
        place = config
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return config


KIND = SourceKind(
    name="mlflow",
    described="an MLflow experiment as sqlite:///FILE#EXPERIMENT or http://HOST:PORT#EXPERIMENT",
    recognises=is_store,
    read=read_experiment,
)
