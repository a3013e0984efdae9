"""One sweep in one MLflow store: its experiment, parent run and child runs, found again by their tags.

Called by the thread of `tracking.mlflow.MlflowTracker` alone; every call may raise whatever MLflow raises, and every
call may be repeated: runs are looked up before they are made, a metric that is there already is dropped by the store's
own primary key (run, metric, step, timestamp, value), parameters and tags are set to the same values again. A tag of
the parent run says how far the delivery has come. A store that was deleted or changed lacks this tag, so everything is
delivered again.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackwise_ray.core.records import Status, TrialRecord
from stackwise_ray.tracking.feed import Point, TrialState, run_name, settings
from stackwise_ray.tracking.interface import SweepEnding

METRICS_IN_A_BATCH = 500  # MLflow takes 1000; 500 take about 50 ms in SQLite, which bounds how long `close` waits
PARAMS_IN_A_BATCH = 100  # MLflow's limit
LONGEST_PARAM = 6000  # MLflow's limit in characters
LONGEST_TAG = 5000  # of 8000: older servers take 5000

DELIVERED = "stackwise.delivered"  # parent: last row of the journal that has arrived
SWEEP = "stackwise.sweep"  # parent: id of the journal
STATE = "stackwise.state"  # child: the state that has arrived, or "created" once its settings have

_RUN_STATUS: Mapping[Status, str] = {
    "pending": "SCHEDULED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "stopped": "KILLED",
}
_PARENT_STATUS: Mapping[SweepEnding, str] = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


def prepare_environment() -> None:
    """Settings that MLflow reads from the environment: quiet, no usage statistics, and few, short retries.

    At MLflow's own settings one call to a dead server blocks for 246 s. Values that the user has set stay, except
    that usage statistics are always off.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    for name, value in {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
    }.items():
        os.environ.setdefault(name, value)
    # The tracker tries again what fails here, and reports it; the libraries would print it into the progress display.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)


@dataclass
class Child:
    """A child run: its MLflow id, and the state that has arrived there (None: its settings have not yet)."""

    run_id: str
    state: str | None = None


class MlflowStore:
    """A connection to the store; making one imports MLflow and may create the store's tables (a few seconds).

    Args:
        uri: Tracking URI.
        experiment: Name of the experiment, made where it is missing.
        artifact_location: Where a new experiment keeps its files; None: the server decides.
        sweep_id: Identity of the sweep (the journal's), by which its parent run is found again.
        parent_name: Name of the parent run.
        tags: Further tags of the parent run.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        *,
        artifact_location: str | None,
        sweep_id: str,
        parent_name: str,
        tags: Mapping[str, str],
    ) -> None:
        prepare_environment()
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(uri)
        self.experiment_id = self._find_or_make_experiment(experiment, artifact_location)
        self.parent_id, self.started_ms, delivered = self._find_or_make_parent(sweep_id, parent_name, tags)
        self.delivered = delivered
        self.children = self._find_children()

    # ------------------------------------------------------------------------------------------------ children

    def add_child(self, trial: TrialRecord, started_ms: int) -> Child:
        """The run of a trial, made where it is missing, with its settings."""
        child = self.children.get(trial.trial_id)
        if child is None:
            tags = {
                "mlflow.parentRunId": self.parent_id,
                "trial_id": trial.trial_id,
                "arm": trial.arm,
                "seed": str(trial.seed),
                "role": trial.role,
                "number": str(trial.number),
                "status": "running",
            }
            run = self._client.create_run(
                self.experiment_id, start_time=started_ms, tags=tags, run_name=run_name(trial)
            )
            child = self.children[trial.trial_id] = Child(run.info.run_id)
        if child.state is None:
            self._log_params(child.run_id, settings(trial))
            self._client.log_dict(child.run_id, dict(trial.config), "config.json")
            self._set_state(child, "created")
        return child

    def log_points(self, run_id: str, points: Sequence[Point]) -> None:
        """Adds metric values to a run, in batches; values that are not finite are left out (MLflow alters them)."""
        from mlflow.entities import Metric

        metrics = [
            Metric(_name(point.name), float(point.value), point.time_ms, point.step)
            for point in points
            if math.isfinite(point.value)
        ]
        for start in range(0, len(metrics), METRICS_IN_A_BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + METRICS_IN_A_BATCH])

    def set_trial(self, trial: TrialRecord, state: TrialState, final: Sequence[Point]) -> None:
        """Shows the trial's status, reason, final metrics and environment."""
        from mlflow.entities import RunTag

        child = self.children[trial.trial_id]
        self.log_points(child.run_id, final)
        if trial.environment:
            self._client.log_dict(child.run_id, dict(trial.environment), "environment.json")
        tags = {"status": trial.status, "reason": trial.reason or "", "attempts": str(state.attempts)}
        self._client.log_batch(child.run_id, tags=[RunTag(key, value[:LONGEST_TAG]) for key, value in tags.items()])
        status = _RUN_STATUS[trial.status]
        if status in ("RUNNING", "SCHEDULED"):
            self._client.update_run(child.run_id, status=status)
        else:
            ended_ms = round(trial.ended_at * 1000) if trial.ended_at is not None else None
            self._client.set_terminated(child.run_id, status=status, end_time=ended_ms)
        self._set_state(child, str(state))

    # ------------------------------------------------------------------------------------------------- parent

    def save_delivered(self, row: int) -> None:
        """Notes that every report up to `row` of the journal has arrived."""
        self._client.set_tag(self.parent_id, DELIVERED, str(row))
        self.delivered = row

    def attach(self, path: Path, folder: str) -> None:
        """Copies a file or folder into the parent run's artifacts."""
        if path.is_dir():
            self._client.log_artifacts(self.parent_id, str(path), "/".join(filter(None, (folder, path.name))))
        else:
            self._client.log_artifact(self.parent_id, str(path), folder or None)

    def end(self, outcome: SweepEnding) -> None:
        """Shows how the command ended."""
        self._client.set_terminated(self.parent_id, status=_PARENT_STATUS[outcome])

    # ------------------------------------------------------------------------------------------------ private

    def _find_or_make_experiment(self, name: str, artifact_location: str | None) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            with contextlib.suppress(MlflowException):  # somebody else made it in this moment: looked up below
                return str(self._client.create_experiment(name, artifact_location=artifact_location))
            experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return str(self._client.create_experiment(name, artifact_location=artifact_location))
        if experiment.lifecycle_stage != "active":
            raise ValueError(
                f"the MLflow experiment '{name}' was deleted; restore it with "
                f"'mlflow experiments restore --experiment-id {experiment.experiment_id}' or rename the sweep"
            )
        return str(experiment.experiment_id)

    def _find_or_make_parent(self, sweep_id: str, name: str, tags: Mapping[str, str]) -> tuple[str, int, int]:
        found = self._client.search_runs(
            [self.experiment_id], f"tags.`{SWEEP}` = '{sweep_id}'", max_results=1, order_by=["attribute.start_time ASC"]
        )
        if found:
            run = found[0]
            self._client.update_run(run.info.run_id, status="RUNNING")
        else:
            everything = {**{key: value[:LONGEST_TAG] for key, value in tags.items()}, SWEEP: sweep_id}
            run = self._client.create_run(self.experiment_id, tags=everything, run_name=name)
        started_ms = run.info.start_time or round(time.time() * 1000)
        return run.info.run_id, started_ms, int(run.data.tags.get(DELIVERED, 0))

    def _find_children(self) -> dict[str, Child]:
        children: dict[str, Child] = {}
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self.experiment_id], f"tags.`mlflow.parentRunId` = '{self.parent_id}'", page_token=token
            )
            for run in page:
                if trial_id := run.data.tags.get("trial_id"):
                    children[trial_id] = Child(run.info.run_id, run.data.tags.get(STATE))
            token = page.token
            if not token:
                return children

    def _log_params(self, run_id: str, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        params = [Param(_name(path), value[:LONGEST_PARAM]) for path, value in values.items()]
        for start in range(0, len(params), PARAMS_IN_A_BATCH):
            self._client.log_batch(run_id, params=params[start : start + PARAMS_IN_A_BATCH])

    def _set_state(self, child: Child, state: str) -> None:
        self._client.set_tag(child.run_id, STATE, state)
        child.state = state


def refuses(error: Exception) -> bool:
    """Whether the store refused the request itself: where it is only away or in trouble, a later try may succeed."""
    code: Any = getattr(error, "get_http_status_code", None)
    return callable(code) and code() in (400, 404, 409, 413)


def _name(path: str) -> str:
    """A metric or parameter name that MLflow takes: letters, digits and ``_-. :/``."""
    return re.sub(r"[^\w\-. :/]", "_", path)[:250]


def probe(uri: str) -> float:
    """Writes a run to the store, reads it back and deletes it: the seconds that took, the import of MLflow excluded.

    For `doctor`. The experiment ``stackwise_ray-doctor`` stays, empty.

    Raises:
        Exception: Whatever MLflow raises where the store cannot be reached, written or read.
    """
    prepare_environment()
    from mlflow.tracking import MlflowClient

    began = time.perf_counter()
    client = MlflowClient(uri)
    name = "stackwise_ray-doctor"
    experiment = client.get_experiment_by_name(name)
    experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
    run_id = client.create_run(experiment_id).info.run_id
    try:
        client.log_metric(run_id, "probe", 0.5, step=1)
        (point,) = client.get_metric_history(run_id, "probe")
        if (point.step, point.value) != (1, 0.5):
            raise RuntimeError(f"wrote 0.5 at step 1 and read {point.value} at step {point.step}")
    finally:
        client.delete_run(run_id)
    return round(time.perf_counter() - began, 1)
