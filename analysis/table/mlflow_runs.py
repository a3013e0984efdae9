"""Runs of an MLflow experiment as rows: the only module of this package that imports mlflow.

Called by `runs.load_runs`. It reads any experiment, ours or not: metrics under their names (last value), parameters
and own tags under theirs where the name is free, else as `parameters/<name>` and `tags/<name>`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError, did_you_mean
from stackwise_ray.core.records import loss_kind

if TYPE_CHECKING:
    from mlflow import MlflowClient

_STATUS = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "interrupted",
    "RUNNING": "running",
    "SCHEDULED": "pending",
}
_PARENT = "mlflow.parentRunId"
_PAGE = 1000


def read_experiment(source: str) -> list[dict[str, Any]]:
    """One row per run of "uri#experiment", parents marked with `_parent`.

    Raises:
        AnalysisError: No such store or experiment, or the server does not answer.
    """
    uri, _, name = source.rpartition("#")
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
            page = client.search_runs([experiment.experiment_id], max_results=_PAGE, page_token=token)
            runs += list(page)
            token = page.token
            if not token:
                break
    except MlflowException as error:
        raise AnalysisError(f"{uri}: the MLflow store does not answer ({str(error).splitlines()[0][:200]})") from error
    parents = {run.data.tags[_PARENT] for run in runs if _PARENT in run.data.tags}
    return [_row(run, parents) for run in reversed(runs)]  # oldest first, the order in which they were made


def experiment_names(uri: str) -> list[str]:
    """Names of the active experiments of a store."""
    return [experiment.name for experiment in _client(uri).search_experiments()]


def _client(uri: str) -> MlflowClient:
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise AnalysisError(f"{uri}: no such file; MLflow would create an empty store there")
    # one quick answer instead of minutes of retries; a value that the user has set stays
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _row(run: Any, parents: set[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "run_id": run.info.run_id,
        "run_name": run.info.run_name,
        "_parent": run.info.run_id in parents,
    }
    row["status"] = _STATUS.get(run.info.status, run.info.status.lower())
    row.update(run.data.metrics)
    own_tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    for prefix, texts in (("parameters", run.data.params), ("tags", own_tags)):
        for key, value in texts.items():
            row[key if key not in row else f"{prefix}/{key}"] = _parse(value)
    if "trial_id" in own_tags:  # a run of ours: its tags know more states than MLflow does
        row["status"] = own_tags.get("status", row["status"])
        row["reason"] = own_tags.get("reason") or None
        row["loss_kind"] = loss_kind(_nested(run.data.params))
    if run.info.start_time is not None and run.info.end_time is not None:
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


def _parse(text: str) -> Any:
    """A parameter's text as a number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
