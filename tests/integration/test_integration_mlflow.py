"""The MLflow tracker on real SQLite stores: runs, points and files as they arrive, and again after a crash."""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from stackwise_ray.core.records import MetricRecord, TrialRecord
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.tracking.mlflow import MlflowTracker
from stackwise_ray.tracking.mlflow_store import prepare_environment
from tests import warm_processes

pytestmark = pytest.mark.slow
EMPTY = "empty.db"
"""Beside the store of the module: what it was when its tables were made."""


def report(name: str, attempt: int, step: int, loss: float | None = None) -> MetricRecord:
    return MetricRecord(
        trial_id=name,
        attempt=attempt,
        step=step,
        tokens=64 * step,
        flops=1000 * step,
        time=1.7e9 + step,
        metrics={"train/loss": 5.0 / (1 + step) if loss is None else loss},
    )


def trial(name: str, number: int, **config: Any) -> TrialRecord:
    return TrialRecord(
        trial_id=name,
        number=number,
        arm="gpt2",
        seed=number,
        role="replicate",
        config={"model": {"family": "gpt2", "d_model": 64}, "seed": number, **config},
    )


@pytest.fixture(scope="module")
def client_and_uri(tmp_path_factory: pytest.TempPathFactory):
    """One store for the module: making its tables takes seconds. Each test has its own experiment."""
    prepare_environment()
    from mlflow.tracking import MlflowClient

    store = tmp_path_factory.mktemp("store") / "mlflow.db"
    client = MlflowClient(f"sqlite:///{store}")
    shutil.copy(store, store.with_name(EMPTY))
    return client, f"sqlite:///{store}"


@pytest.fixture
def journal(tmp_path: Path):
    with Journal(tmp_path / "journal.sqlite") as opened:
        yield opened


def make(journal: Journal, uri: str, experiment: str, **settings: Any) -> MlflowTracker:
    settings = {"system_interval_s": None, "interval_s": 0.1, **settings}
    return MlflowTracker(journal.path, uri, experiment, "sweep", **settings)


def runs_of(client: Any, experiment: str) -> tuple[Any, dict[str, Any]]:
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in found if "mlflow.parentRunId" in run.data.tags]
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in children)
    by_id = {run.data.tags["trial_id"]: run for run in children}
    assert len(by_id) == len(children), "a trial has one run"
    return parent, by_id


def history(client: Any, run: Any, metric: str) -> list[tuple[int, float]]:
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


def test_a_sweep_arrives_as_a_parent_with_children(client_and_uri: Any, journal: Journal, tmp_path: Path) -> None:
    client, uri = client_and_uri
    (tmp_path / "sweep.yaml").write_text("question: which?")
    tracker = make(journal, uri, "arrives", tags={"mlflow.note.content": "which?"}, system_interval_s=0.2)
    tracker.start()
    tracker.attach(tmp_path / "sweep.yaml")
    for number, name in enumerate("abcd"):
        journal.add_trial(trial(name, number, long="x" * 7000))
    for name in "abc":
        attempt = journal.start_attempt(name)
        journal.add_reports([report(name, attempt, step) for step in range(1, 6)])
        tracker.notify()
    journal.finish("a", 1, {"validation/loss": 1.25, "memory/peak_bytes": 4096, "odd@name": 1.0}, {"torch": "2.13"})
    journal.fail("b", 1, "train/loss is NaN at step 6")
    wait_until(lambda: len(of_machine(client, "arrives")) > 1)
    assert not tracker.close(60, outcome="failed")
    assert tracker.problem is None
    parent, children = runs_of(client, "arrives")
    assert (parent.info.status, parent.data.tags["mlflow.note.content"]) == ("FAILED", "which?")
    assert set(children) == {"a", "b", "c"}, "a trial that has not begun has no run"
    assert {name: run.info.status for name, run in children.items()} == {"a": "FINISHED", "b": "FAILED", "c": "RUNNING"}
    a = children["a"]
    assert history(client, a, "train/loss") == [(step, 5.0 / (1 + step)) for step in range(1, 6)]
    assert history(client, a, "tokens/total") == [(step, 64.0 * step) for step in range(1, 6)]
    assert history(client, a, "flops/total") == [(step, 1000.0 * step) for step in range(1, 6)]
    assert history(client, a, "validation/loss") == [(5, 1.25)]
    assert history(client, a, "odd_name") == [(5, 1.0)]
    assert client.get_metric_history(a.info.run_id, "train/loss")[0].timestamp == 1_700_000_001_000
    assert a.data.params["model.d_model"] == "64"
    assert len(a.data.params["long"]) == 6000
    assert (a.info.run_name, a.data.tags["arm"], a.data.tags["seed"], a.data.tags["role"]) == (
        "gpt2/0",
        "gpt2",
        "0",
        "replicate",
    )
    assert children["b"].data.tags["reason"] == "train/loss is NaN at step 6"
    assert {item.path for item in client.list_artifacts(a.info.run_id)} == {"config.json", "environment.json"}
    assert [item.path for item in client.list_artifacts(parent.info.run_id)] == ["sweep.yaml"]
    local = Path(client.download_artifacts(a.info.run_id, "environment.json", str(tmp_path)))
    assert json.loads(local.read_text()) == {"torch": "2.13"}
    assert parent.data.metrics["system/system_memory_usage_percentage"] > 0


def test_the_next_run_goes_on_where_the_last_one_stood(client_and_uri: Any, journal: Journal) -> None:
    client, uri = client_and_uri
    journal.add_trial(trial("a", 0))
    journal.start_attempt("a")
    journal.add_reports([report("a", 1, step) for step in (1, 2, 3)])
    first = make(journal, uri, "next run")
    first.start()
    journal.interrupt("a", 1, "interrupted by the user")
    assert not first.close(60, outcome="interrupted")
    _, children = runs_of(client, "next run")
    assert children["a"].info.status == "KILLED"
    journal.start_attempt("a", resumed_from_step=2)
    journal.add_reports([report("a", 2, 3), report("a", 2, 4)])
    journal.finish("a", 2, {"validation/loss": 1.0}, {})
    second = make(journal, uri, "next run")
    second.start()
    assert not second.close(60)
    parent, children = runs_of(client, "next run")
    assert (parent.info.status, children["a"].info.status) == ("FINISHED", "FINISHED")
    assert parent.data.tags["stackwise.delivered"] == "5"
    assert children["a"].data.tags["attempts"] == "2"
    assert history(client, children["a"], "train/loss") == [(step, 5.0 / (1 + step)) for step in (1, 2, 3, 4)]


def test_a_store_that_was_deleted_gets_everything_anew(client_and_uri: Any, tmp_path: Path, journal: Journal) -> None:
    from mlflow.tracking import MlflowClient

    empty = Path(client_and_uri[1].removeprefix("sqlite:///")).with_name(EMPTY)
    journal.add_trial(trial("a", 0))
    journal.start_attempt("a")
    journal.add_reports([report("a", 1, step) for step in range(1, 1200)])
    for attempt in ("first.db", "second.db"):
        shutil.copy(empty, tmp_path / attempt)
        uri = f"sqlite:///{tmp_path / attempt}"
        tracker = make(journal, uri, "anew")
        tracker.start()
        assert not tracker.close(120)
        client = MlflowClient(uri)
        _, children = runs_of(client, "anew")
        assert [step for step, _ in history(client, children["a"], "train/loss")] == list(range(1, 1200))


def test_a_run_deleted_by_its_user_comes_back_whole_when_the_trial_goes_on(
    client_and_uri: Any, journal: Journal
) -> None:
    client, uri = client_and_uri
    journal.add_trial(trial("a", 0))
    journal.start_attempt("a")
    journal.add_reports([report("a", 1, 1), report("a", 1, 2)])
    tracker = make(journal, uri, "deleted run")
    tracker.start()
    wait_until(lambda: not tracker._undelivered())
    _, children = runs_of(client, "deleted run")
    client.delete_run(children["a"].info.run_id)
    journal.add_reports([report("a", 1, 3)])
    assert not tracker.close(60)
    _, children = runs_of(client, "deleted run")
    assert [step for step, _ in history(client, children["a"], "train/loss")] == [1, 2, 3]


def test_what_the_store_refuses_is_left_out_and_the_rest_arrives(client_and_uri: Any, journal: Journal) -> None:
    client, uri = client_and_uri
    for number, name in enumerate("ab"):
        journal.add_trial(trial(name, number))
        journal.start_attempt(name)
    journal.add_reports([MetricRecord(trial_id="a", attempt=1, step=1, tokens=1, flops=1, time=1.0, metrics={"": 1.0})])
    journal.add_reports([report("b", 1, 1)])
    journal.finish("a", 1, {"": 2.0}, {})
    journal.finish("b", 1, {"validation/loss": 1.0}, {})
    tracker = make(journal, uri, "refused")
    tracker.start()
    owed = tracker.close(60)
    assert list(tracker.refused) == ["reports 1 to 2 of trial a", "state finished 1 of trial a"]
    assert (owed.reports, owed.trials) == (0, 1)
    assert owed.problem is not None
    _, children = runs_of(client, "refused")
    assert history(client, children["b"], "train/loss") == [(1, 2.5)]
    assert children["b"].info.status == "FINISHED"


def test_nothing_that_is_not_finite_reaches_the_store(client_and_uri: Any, journal: Journal) -> None:
    client, uri = client_and_uri
    journal.add_trial(trial("a", 0))
    journal.start_attempt("a")
    with pytest.raises(ValueError, match="not finite"):
        journal.add_reports([report("a", 1, 1, loss=math.inf)])
    journal.add_reports([report("a", 1, 2)])
    tracker = make(journal, uri, "finite")
    tracker.start()
    assert not tracker.close(60)
    _, children = runs_of(client, "finite")
    assert [step for step, _ in history(client, children["a"], "train/loss")] == [2]


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
        journal.add_reports([report("a", attempt, row, loss=1.0 / row)])
        if tracker.experiment_id and row % 50 == 0:
            delivers.send(row)
        time.sleep(0.002)


def test_a_driver_killed_while_delivering_leaves_nothing_lost_or_doubled(client_and_uri: Any, tmp_path: Path) -> None:
    client, uri = client_and_uri
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
        tracker = make(journal, uri, "killed")
        tracker.start()
        assert not tracker.close(60)
        count = journal._connection.execute("SELECT COUNT(*), MAX(step) FROM reports").fetchone()
    _, children = runs_of(client, "killed")
    assert count[0] == count[1] > 100
    assert history(client, children["a"], "train/loss") == [(step, 1.0 / step) for step in range(1, count[1] + 1)]


def wait_until(condition: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
