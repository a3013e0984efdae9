"""Real MLflow servers on loopback: one that is killed and comes back while a sweep goes on, and the UI command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stackwise_ray.core.records import MetricRecord, TrialRecord
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.tracking.mlflow import MlflowTracker, ui_command

pytestmark = pytest.mark.slow


class Server:
    """`mlflow server` in its own process group, on one port over its lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        words += ["--artifacts-destination", str(self.folder / "artifacts"), "--workers", "1"]
        self.run(f"{sys.executable} -m mlflow server {' '.join(words)} --host 127.0.0.1 --port {self.port}", "/version")

    def run(self, command: str, path: str) -> None:
        self.process = subprocess.Popen(
            command,
            shell=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        )
        wait_until(lambda: self.get(path) is not None, 100)

    def get(self, path: str) -> bytes | None:
        try:
            with urllib.request.urlopen(self.uri + path, timeout=5) as answer:
                return bytes(answer.read())
        except OSError:
            return None

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.kill()


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def write(journal: Journal, steps: range) -> float:
    """Reports these steps and returns the longest time that one write took, in seconds."""
    longest = 0.0
    for step in steps:
        began = time.monotonic()
        values = {"train/loss": 1.0 / (1 + step)}
        record = MetricRecord(
            trial_id="a", attempt=1, step=step, tokens=step, flops=step, time=1.7e9 + step, metrics=values
        )
        journal.add_reports([record])
        longest = max(longest, time.monotonic() - began)
    return longest


def test_a_server_that_goes_away_holds_nothing_up_and_gets_everything_once(server: Server, tmp_path: Path) -> None:
    server.start()
    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.add_trial(TrialRecord(trial_id="a", number=0, arm="x", seed=0, role="replicate", config={"seed": 0}))
        journal.start_attempt("a")
        first = MlflowTracker(journal.path, server.uri, "away", "sweep", interval_s=0.1, system_interval_s=None)
        first.start()
        write(journal, range(1, 51))
        wait_until(lambda: not first._undelivered())

        server.kill()
        assert write(journal, range(51, 151)) < 2.0
        wait_until(lambda: first.problem is not None)
        began = time.monotonic()
        owed = first.close(timeout=8)
        assert time.monotonic() - began < 10
        assert (owed.reports, owed.trials) == (100, 0)
        assert owed.problem is not None

        second = MlflowTracker(journal.path, server.uri, "away", "sweep", interval_s=0.1, system_interval_s=None)
        second.start()
        write(journal, range(151, 201))
        wait_until(lambda: second.problem is not None)
        server.start()
        write(journal, range(201, 251))
        journal.finish("a", 1, {"validation/loss": 1.0}, {"torch": "2"})
        wait_until(lambda: second.problem is None and second.experiment_id is not None, 60)
        assert not second.close(60)

    from mlflow.tracking import MlflowClient

    client = MlflowClient(server.uri)
    runs = client.search_runs([str(second.experiment_id)])
    assert len(runs) == 2
    (child,) = [run for run in runs if "trial_id" in run.data.tags]
    points: list[Any] = client.get_metric_history(child.info.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in points) == [(s, 1.0 / (1 + s)) for s in range(1, 251)]
    assert child.info.status == "FINISHED"
    assert {item.path for item in client.list_artifacts(child.info.run_id)} == {"config.json", "environment.json"}


def test_the_ui_command_serves_the_experiment(server: Server, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with Journal(tmp_path / "journal.sqlite") as journal:
        tracker = MlflowTracker(journal.path, uri, "shown", "sweep")
        tracker.start()
        tracker.close(60)
    assert tracker.experiment_id is not None
    address = f"/api/2.0/mlflow/experiments/get?experiment_id={tracker.experiment_id}"
    server.run(ui_command(uri, tracker.experiment_id, port=server.port), address)
    answer = server.get(address)
    assert answer is not None
    assert json.loads(answer)["experiment"]["name"] == "shown"
