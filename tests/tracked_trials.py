"""Trials as a journal holds them, how a tracker of MLflow gets them, and what MLflow's store then holds of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from stackwise_ray.core.records import MetricRecord, TrialRecord
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.tracking.mlflow import MlflowTracker


def tracked_report(
    name: str, attempt: int, step: int, loss: float | None = None, time: float | None = None, **metrics: float
) -> MetricRecord:
    """A step's report; its loss falls unless it is given. Metrics are named with __ for /."""
    others = {path.replace("__", "/"): value for path, value in metrics.items()}
    return MetricRecord(
        trial_id=name,
        attempt=attempt,
        step=step,
        tokens=64 * step,
        flops=1000 * step,
        time=time or 1.7e9 + step,
        metrics=others | {"train/loss": 5.0 / (1 + step) if loss is None else loss},
    )


def tracked_trial(name: str, number: int, **config: Any) -> TrialRecord:
    return TrialRecord(
        trial_id=name,
        number=number,
        arm="gpt2",
        seed=number,
        role="replicate",
        config={"model": {"family": "gpt2", "d_model": 64}, "seed": number, **config},
    )


def make_tracker(journal: Journal, uri: str, experiment: str, **settings: Any) -> MlflowTracker:
    settings = {"system_interval_s": None, "interval_s": 0.1, **settings}
    return MlflowTracker(journal.path, uri, experiment, "sweep", **settings)


def runs_of(client: Any, experiment: str) -> tuple[Any, dict[str, Any]]:
    """The parent run of an experiment, and its child runs by the id of their trial."""
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in found if "mlflow.parentRunId" in run.data.tags]
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in children)
    by_id = {run.data.tags["trial_id"]: run for run in children}
    assert len(by_id) == len(children), "a trial has one run"
    return parent, by_id


def history(client: Any, run: Any, metric: str) -> list[tuple[int, float]]:
    """(step, value) of one metric, by step."""
    points = client.get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def of_machine(client: Any, experiment: str) -> list[tuple[int, float]]:
    """What the machine did meanwhile, as far as it has arrived with the parent."""
    if client.get_experiment_by_name(experiment) is None:
        return []
    parents = client.search_runs(
        [client.get_experiment_by_name(experiment).experiment_id], "tags.`mlflow.runName` = 'sweep'"
    )
    return [point for run in parents for point in history(client, run, "system/cpu_utilization_percentage")]


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
