"""A driver of a sweep that is killed while it delivers to MLflow: a real process, and a real SQLite store."""

from __future__ import annotations

import signal
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from stackwise_ray.core.records import TrialRecord
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.tracking.mlflow import MlflowTracker
from stackwise_ray.tracking.mlflow_store import prepare_environment
from tests import warm_processes
from tests.tracked_trials import history, make_tracker, runs_of, tracked_report

pytestmark = pytest.mark.slow


def write_and_deliver(path: Path, uri: str, delivers: Connection) -> None:
    """A driver that goes on until it is killed, and says when it delivers."""
    journal = Journal(path)
    tracker = MlflowTracker(path, uri, "killed", "sweep", interval_s=0.05, system_interval_s=None)
    tracker.start()
    if journal.next_number() == 0:
        journal.add_trial(TrialRecord(trial_id="a", number=0, arm="x", seed=0, role="replicate", config={"seed": 0}))
    attempt = journal.start_attempt("a")
    row = journal._connection.execute("SELECT COALESCE(MAX(step), 0) FROM reports").fetchone()[0]
    while True:
        row += 1
        journal.add_reports([tracked_report("a", attempt, row, loss=1.0 / row)])
        if tracker.experiment_id and row % 50 == 0:
            delivers.send(row)
        time.sleep(0.002)


def test_a_driver_killed_while_delivering_leaves_nothing_lost_or_doubled(tmp_path: Path) -> None:
    prepare_environment()
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    path = tmp_path / "journal.sqlite"
    for pause in (0.0, 0.13, 0.31):
        ours, theirs = Pipe(duplex=False)
        driver = warm_processes.process(write_and_deliver, path, uri, theirs)
        driver.start()
        assert ours.recv(), "it writes and delivers"
        time.sleep(pause)
        driver.kill()
        driver.join()
        assert driver.exitcode == -signal.SIGKILL
    with Journal(path) as journal:
        tracker = make_tracker(journal, uri, "killed")
        tracker.start()
        assert not tracker.close(60)
        count = journal._connection.execute("SELECT COUNT(*), MAX(step) FROM reports").fetchone()
    _, children = runs_of(client, "killed")
    assert count[0] == count[1] > 100
    assert history(client, children["a"], "train/loss") == [(step, 1.0 / step) for step in range(1, count[1] + 1)]
