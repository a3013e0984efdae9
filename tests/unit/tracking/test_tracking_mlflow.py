"""The MLflow tracker on real SQLite stores: runs, points and files as they arrive, and again after a crash."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from analysis import compare, load_runs
from analysis.commands.selecting import selection, two_sources
from analysis.table.sources import mlflow_experiment
from analysis.table.sources.source_kind import LEFT_OUT
from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.records import MetricRecord, loss_kind
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.tracking.mlflow_store import prepare_environment, probe, refuses
from stackwise_ray.tracking.system_metrics import SAMPLES_KEPT, SystemMetrics
from tests.tracked_trials import history, make_tracker, of_machine, runs_of, tracked_report, tracked_trial, wait_until

EMPTY = "empty.db"
"""Beside the store of the module: what it was when its tables were made."""


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


def test_a_sweep_arrives_as_a_parent_with_children(client_and_uri: Any, journal: Journal, tmp_path: Path) -> None:
    client, uri = client_and_uri
    (tmp_path / "sweep.yaml").write_text("question: which?")
    tracker = make_tracker(journal, uri, "arrives", tags={"mlflow.note.content": "which?"}, system_interval_s=0.2)
    tracker.start()
    tracker.attach(tmp_path / "sweep.yaml")
    for number, name in enumerate("abcd"):
        journal.add_trial(tracked_trial(name, number, long="x" * 7000))
    for name in "abc":
        attempt = journal.start_attempt(name)
        journal.add_reports([tracked_report(name, attempt, step) for step in range(1, 6)])
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
    journal.add_trial(tracked_trial("a", 0))
    journal.start_attempt("a")
    journal.add_reports([tracked_report("a", 1, step) for step in (1, 2, 3)])
    first = make_tracker(journal, uri, "next run")
    first.start()
    journal.interrupt("a", 1, "interrupted by the user")
    assert not first.close(60, outcome="interrupted")
    _, children = runs_of(client, "next run")
    assert children["a"].info.status == "KILLED"
    journal.start_attempt("a", resumed_from_step=2)
    journal.add_reports([tracked_report("a", 2, 3), tracked_report("a", 2, 4)])
    journal.finish("a", 2, {"validation/loss": 1.0}, {})
    second = make_tracker(journal, uri, "next run")
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
    journal.add_trial(tracked_trial("a", 0))
    journal.start_attempt("a")
    journal.add_reports([tracked_report("a", 1, step) for step in range(1, 600)])
    for attempt in ("first.db", "second.db"):
        shutil.copy(empty, tmp_path / attempt)
        uri = f"sqlite:///{tmp_path / attempt}"
        tracker = make_tracker(journal, uri, "anew")
        tracker.start()
        assert not tracker.close(120)
        client = MlflowClient(uri)
        _, children = runs_of(client, "anew")
        assert [step for step, _ in history(client, children["a"], "train/loss")] == list(range(1, 600))


def test_a_run_deleted_by_its_user_comes_back_whole_when_the_trial_goes_on(
    client_and_uri: Any, journal: Journal
) -> None:
    client, uri = client_and_uri
    journal.add_trial(tracked_trial("a", 0))
    journal.start_attempt("a")
    journal.add_reports([tracked_report("a", 1, 1), tracked_report("a", 1, 2)])
    tracker = make_tracker(journal, uri, "deleted run")
    tracker.start()
    wait_until(lambda: not tracker._undelivered())
    _, children = runs_of(client, "deleted run")
    client.delete_run(children["a"].info.run_id)
    journal.add_reports([tracked_report("a", 1, 3)])
    assert not tracker.close(60)
    _, children = runs_of(client, "deleted run")
    assert [step for step, _ in history(client, children["a"], "train/loss")] == [1, 2, 3]


def test_what_the_store_refuses_is_left_out_and_the_rest_arrives(client_and_uri: Any, journal: Journal) -> None:
    client, uri = client_and_uri
    for number, name in enumerate("ab"):
        journal.add_trial(tracked_trial(name, number))
        journal.start_attempt(name)
    journal.add_reports([MetricRecord(trial_id="a", attempt=1, step=1, tokens=1, flops=1, time=1.0, metrics={"": 1.0})])
    journal.add_reports([tracked_report("b", 1, 1)])
    journal.finish("a", 1, {"": 2.0}, {})
    journal.finish("b", 1, {"validation/loss": 1.0}, {})
    tracker = make_tracker(journal, uri, "refused")
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
    journal.add_trial(tracked_trial("a", 0))
    journal.start_attempt("a")
    with pytest.raises(ValueError, match="not finite"):
        journal.add_reports([tracked_report("a", 1, 1, loss=math.inf)])
    journal.add_reports([tracked_report("a", 1, 2)])
    tracker = make_tracker(journal, uri, "finite")
    tracker.start()
    assert not tracker.close(60)
    _, children = runs_of(client, "finite")
    assert [step for step, _ in history(client, children["a"], "train/loss")] == [2]


def test_runs_have_the_times_tags_and_parameters_of_their_trials(client_and_uri: Any, journal: Journal) -> None:
    client, uri = client_and_uri
    many = {f"option{number}": number for number in range(120)}
    for number, name in enumerate("abcd"):
        journal.add_trial(tracked_trial(name, number, **(many if name == "a" else {})))
        journal.start_attempt(name)
    journal.finish("a", 1, {}, {})
    journal.fail("b", 1, "long " * 1500)
    journal.stop("c", 1, {"validation/loss": 4.0}, {})
    before = time.time()
    tracker = make_tracker(journal, uri, "tags", tags={"note": "n" * 6000})
    tracker.start()
    assert not tracker.close(60)
    assert tracker.experiment_id == client.get_experiment_by_name("tags").experiment_id
    location = client.get_experiment_by_name("tags").artifact_location
    assert location == (Path(uri.removeprefix("sqlite:///")).parent / "mlflow_artifacts").as_uri()
    parent, children = runs_of(client, "tags")
    assert len(parent.data.tags["note"]) == 5000
    assert parent.info.run_name == "sweep"
    assert before - 1 < parent.info.start_time / 1000 < time.time() + 1
    statuses = {name: (run.info.status, run.data.tags["status"]) for name, run in children.items()}
    assert statuses == {
        "a": ("FINISHED", "finished"),
        "b": ("FAILED", "failed"),
        "c": ("KILLED", "stopped"),
        "d": ("RUNNING", "running"),
    }
    a, b = children["a"], children["b"]
    assert (a.data.tags["reason"], len(b.data.tags["reason"])) == ("", 5000)
    assert {name: value for name, value in a.data.params.items() if name.startswith("option")} == {
        name: str(value) for name, value in many.items()
    }
    (record,) = (record for record in journal.trials() if record.trial_id == "a")
    assert record.ended_at is not None
    assert a.info.end_time == round(1000 * record.ended_at)
    assert a.info.start_time <= a.info.end_time
    assert children["d"].info.end_time is None


def test_files_and_folders_arrive_where_they_were_asked_for(
    client_and_uri: Any, journal: Journal, tmp_path: Path
) -> None:
    client, uri = client_and_uri
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("<p>")
    (tmp_path / "notes.txt").write_text("later")
    tracker = make_tracker(journal, uri, "files")
    tracker.attach(tmp_path / "report")
    tracker.attach(tmp_path / "report", "kept")
    tracker.attach(tmp_path / "notes.txt", "kept")
    tracker.attach(tmp_path / "absent")
    tracker.start()
    assert not tracker.close(60)
    parent, _ = runs_of(client, "files")
    listed = {
        item.path for place in ("", "report", "kept") for item in client.list_artifacts(parent.info.run_id, place)
    }
    assert listed == {"report", "report/index.html", "kept", "kept/report", "kept/notes.txt"}
    assert tracker._attachments == {}


def test_a_deleted_experiment_is_a_problem_that_says_how_to_restore_it(client_and_uri: Any, journal: Journal) -> None:
    client, uri = client_and_uri
    number = client.create_experiment("gone")
    client.delete_experiment(number)
    journal.add_trial(tracked_trial("a", 0))
    journal.start_attempt("a")
    journal.add_reports([tracked_report("a", 1, 1), tracked_report("a", 1, 2)])
    tracker = make_tracker(journal, uri, "gone")
    tracker.start()
    owed = tracker.close(60)
    assert (owed.reports, owed.trials, tracker.experiment_id) == (2, 1, None)
    problem = (
        "the MLflow experiment 'gone' was deleted; restore it with "
        f"'mlflow experiments restore --experiment-id {number}' or rename the sweep"
    )
    assert str(owed) == f"2 reports and the state of 1 trials wait in the journal ({problem})"
    assert tracker.close(60) is owed, "a second call has the same answer"


def test_a_store_that_is_away_ends_no_command_and_keeps_everything_for_later(journal: Journal) -> None:
    journal.add_trial(tracked_trial("a", 0))
    journal.start_attempt("a")
    nowhere = make_tracker(journal, "sqlite:////proc/none/mlflow.db", "away")
    nowhere.start()
    wait_until(lambda: nowhere.problem is not None)
    owed = nowhere.close(30)
    assert (owed.reports, owed.trials) == (0, 1)
    assert owed.problem == "[Errno 2] No such file or directory: '/proc/none'"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = make_tracker(journal, f"http://127.0.0.1:{silent.getsockname()[1]}", "away")
        mute.start()
        owed = mute.close(0.05)
    assert (owed.reports, owed.trials) == (0, 1)
    assert owed.problem == "the tracking store did not answer within 0.05 s"


def test_a_refusal_is_told_from_a_store_that_is_away() -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos import databricks_pb2 as codes

    refusals = (codes.INVALID_PARAMETER_VALUE, codes.RESOURCE_DOES_NOT_EXIST, codes.RESOURCE_ALREADY_EXISTS)
    assert all(refuses(MlflowException("no", error_code=code)) for code in refusals)
    passing = (codes.INTERNAL_ERROR, codes.TEMPORARILY_UNAVAILABLE)
    assert not any(refuses(MlflowException("later", error_code=code)) for code in passing)
    assert not refuses(ConnectionError("away"))


def test_the_doctors_probe_leaves_an_empty_experiment(client_and_uri: Any) -> None:
    client, uri = client_and_uri
    for _ in range(2):
        assert 0 <= probe(uri) < 60
    experiment = client.get_experiment_by_name("stackwise_ray-doctor")
    assert client.search_runs([experiment.experiment_id]) == []


def test_usage_statistics_are_off_and_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "99")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    prepare_environment()
    names = (
        "MLFLOW_DISABLE_TELEMETRY",
        "DO_NOT_TRACK",
        "MLFLOW_HTTP_REQUEST_TIMEOUT",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
    )
    assert [os.environ[name] for name in names] == ["true", "true", "99", "1"]


def test_the_machine_is_sampled_once_per_interval_and_samples_wait_until_they_are_delivered() -> None:
    seldom = SystemMetrics(3600.0, started_ms=round(1000 * time.time()))
    seldom.sample_if_due()
    assert seldom.waiting() == [], "the interval has not passed"
    metrics = SystemMetrics(0.0, started_ms=round(1000 * time.time()) - 5000)
    metrics.sample_if_due()
    points = metrics.waiting()
    names = [point.name for point in points]
    assert len(set(names)) == len(names)
    assert {"system/cpu_utilization_percentage", "system/disk_usage_percentage"} <= set(names)
    (step,) = {point.step for point in points}
    assert 5 <= step < 60, "seconds since the start, whatever else the machine does"
    assert all(abs(point.time_ms / 1000 - time.time()) < 60 for point in points)
    metrics.sample_if_due()
    assert len(metrics.waiting()) == 2 * len(points)
    metrics.delivered()
    assert metrics.waiting() == []
    ahead = SystemMetrics(0.0, started_ms=round(1000 * time.time()) + 60_000)
    for _ in range(SAMPLES_KEPT + 2):
        ahead.sample_if_due()
    assert {point.step for point in ahead.waiting()} == {0}, "a clock that was set back"
    assert len(ahead.waiting()) == SAMPLES_KEPT * len(points), "the oldest are dropped"


# -------------------------------------------------------------------------------------------- read by `analysis`


def test_an_experiment_of_somebody_else_is_read_and_compared(
    client_and_uri: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client, uri = client_and_uri
    experiment = client.create_experiment("lm", artifact_location=str(tmp_path / "artifacts"))
    parent = client.create_run(experiment, run_name="parent")
    losses = {"adam": [2.0, 2.1, 2.2], "lion": [1.8, 1.905, 2.01]}
    for optimizer, values in losses.items():
        for seed, value in enumerate(values):
            run = client.create_run(experiment, tags={"mlflow.parentRunId": parent.info.run_id, "team": "x"})
            client.log_param(run.info.run_id, "optimizer", optimizer)
            client.log_param(run.info.run_id, "seed", seed)
            client.log_metric(run.info.run_id, "val_loss", 9.0, step=0)
            client.log_metric(run.info.run_id, "val_loss", value, step=1)
            client.log_metric(run.info.run_id, "worst", math.inf if seed == 0 else -math.inf)
            client.log_metric(run.info.run_id, "broken", math.nan)
            client.set_terminated(run.info.run_id, end_time=run.info.start_time + 1500)
    crashed = client.create_run(experiment)
    client.set_terminated(crashed.info.run_id, status="FAILED")
    client.set_terminated(parent.info.run_id)

    runs = load_runs(f"{uri}#lm")
    assert len(runs) == 6
    assert runs["val_loss"].tolist() == [2.0, 2.1, 2.2, 1.8, 1.905, 2.01]
    assert runs["seed"].tolist() == [0, 1, 2] * 2
    assert runs["worst"].tolist() == [math.inf, -math.inf, -math.inf] * 2
    assert runs["broken"].isna().all()
    assert runs["attempt_seconds"].tolist() == [1.5] * 6
    assert set(runs["team"]) == {"x"}
    assert sorted(item["by"] for item in runs.attrs["exclusions"]) == ["parent", "status"]
    comparison = compare(runs, "val_loss", baseline="adam", arm="optimizer")
    assert comparison.verdicts == {"lion": "better"}
    assert any("budgets not recorded" in note for note in comparison.notes)
    both, first = two_sources(f"{uri}#lm", f"{uri}#lm", "optimizer", selection(None, None, None, False))
    assert (len(both), len(both.attrs["exclusions"]), first) == (12, 4, f"{uri}#lm/adam")
    with pytest.raises(AnalysisError, match="no experiment 'ln'; did you mean 'lm'"):
        load_runs(f"{uri}#ln")
    with pytest.raises(AnalysisError, match=r"name an experiment after '#'.*lm"):
        load_runs(uri)
    assert not Path("mlruns").exists()


def test_a_run_that_measured_something_counts_and_nested_ones_that_repeat_it_are_named(
    client_and_uri: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client, uri = client_and_uri
    experiment = client.create_experiment("nested", artifact_location=str(tmp_path / "artifacts"))

    def made(name: str, parent: str | None, params: dict[str, str], **metrics: float) -> str:
        tags = {} if parent is None else {"mlflow.parentRunId": parent}
        run: str = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        for key, text in params.items():
            client.log_param(run, key, text)
        for key, value in metrics.items():
            client.log_metric(run, key, value)
        client.set_terminated(run)
        return run

    trained = made("trained", None, {"arm": "0e12345", "seed": "007"}, loss=2.0)
    made("evaluated", trained, {"arm": "0e12345", "seed": "007"}, loss=2.6, mmlu=0.3)
    study = made("study", None, {}, best_loss=1.8)
    for seed in range(2):
        made(f"trial-{seed}", study, {"arm": "0e98765", "seed": f"{seed:03d}"}, loss=1.8 + seed)
    runs = load_runs(f"{uri}#nested")
    assert runs["run_name"].tolist() == ["trained", "study", "trial-0", "trial-1"]
    assert runs["loss"].tolist()[0] == 2.0
    assert runs["arm"].tolist()[::2] == ["0e12345", "0e98765"]
    assert [item["by"] for item in runs.attrs["exclusions"]] == ["nested"]
    assert runs.attrs["notes"] == ["nested runs evaluated would take the place of their parents: left out"]
    assert runs["started_at"].notna().all()


def test_every_page_of_an_experiment_is_read_and_names_that_are_taken_get_a_prefix(
    client_and_uri: Any,
) -> None:
    client, uri = client_and_uri
    experiment = client.create_experiment("pages")
    made = []
    for status in ("FINISHED", "KILLED", "FAILED"):
        run = client.create_run(experiment, run_name=status.lower(), tags={"loss": "mine", "lr": "high"})
        client.log_metric(run.info.run_id, "loss", 1.5)
        client.log_param(run.info.run_id, "lr", "1e-3")
        client.log_param(run.info.run_id, "loss", "7")
        client.update_run(run.info.run_id, status=status)
        made.append(run.info.run_id)
    ours = client.create_run(experiment, tags={"trial_id": "t", "status": "stopped", "reason": ""})
    client.log_param(ours.info.run_id, "model.role", "decoder")
    rows = mlflow_experiment.read_experiment(f"{uri}#pages", page_size=2).rows
    assert [row["run_id"] for row in rows] == [*made, ours.info.run_id], "the oldest first"
    assert [row["status"] for row in rows] == ["finished", "interrupted", "failed", "stopped"]
    assert [row["run_name"] for row in rows[:3]] == ["finished", "killed", "failed"]
    assert not any(LEFT_OUT in row for row in rows)
    first, *_, last = rows
    assert (first["loss"], first["parameters/loss"], first["tags/loss"]) == (1.5, "7", "mine")
    assert (first["lr"], first["tags/lr"]) == ("1e-3", "high"), "text until a role asks"
    assert "loss_kind" not in first
    assert "attempt_seconds" not in first, "it has no end"
    assert (last["reason"], last["loss_kind"]) == (None, loss_kind({"model": {"role": "decoder"}}))
    assert "pages" in mlflow_experiment.experiment_names(uri)
