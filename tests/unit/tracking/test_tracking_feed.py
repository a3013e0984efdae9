"""What trackers read from a journal, and the in-memory tracker that shows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.core.records import TrialRecord
from stackwise_ray.tracking.feed import flatten, run_name
from stackwise_ray.tracking.interface import Undelivered
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.tracking.mlflow import tracking_uri, ui_command
from tests.in_memory_tracker import InMemoryTracker
from tests.tracked_trials import tracked_report as report


@pytest.fixture
def journal(tmp_path: Path):
    with Journal(tmp_path / "journal.sqlite") as opened:
        config = {"model": {"family": "gpt2"}, "flags": []}
        opened.add_trial(TrialRecord(trial_id="a", number=0, arm="gpt2", seed=1, role="replicate", config=config))
        yield opened


def test_every_report_arrives_once_with_tokens_and_flops_as_further_axes(journal: Journal) -> None:
    tracker = InMemoryTracker(journal.path)
    attempt = journal.start_attempt("a")
    journal.add_reports([report("a", attempt, 1, 3.0)])
    tracker.start()
    journal.add_reports([report("a", attempt, 2, 2.5)])
    tracker.notify()
    tracker.notify()
    run = tracker.runs["a"]
    assert (run.name, run.status) == ("gpt2/1", "running")
    assert run.history("train/loss") == [(1, 3.0), (2, 2.5)]
    assert run.history("tokens/total") == [(1, 64), (2, 128)]
    assert run.history("flops/total") == [(1, 1000), (2, 2000)]
    assert run.points[0].name == "train/loss"  # MLflow compares by the first
    assert run.settings == {"arm": "gpt2", "model.family": "gpt2", "flags": "[]"}


def test_final_metrics_arrive_at_the_last_step_without_repeating_what_was_reported_there(journal: Journal) -> None:
    attempt = journal.start_attempt("a")
    journal.add_reports([report("a", attempt, 1, 3.0), report("a", attempt, 2, 2.5)])
    final = {"train/loss": 2.5, "flops/total": 2000, "test/perplexity_token": 9.5}
    journal.finish("a", attempt, final, {})
    tracker = InMemoryTracker(journal.path)
    tracker.start()
    assert not tracker.close(outcome="finished")
    run = tracker.runs["a"]
    assert run.status == "finished"
    assert run.history("train/loss") == [(1, 3.0), (2, 2.5)]
    assert run.history("flops/total") == [(1, 1000), (2, 2000)]
    assert run.history("test/perplexity_token") == [(2, 9.5)]


def test_a_step_repeated_by_a_continued_attempt_is_shown_once_unless_its_value_differs(journal: Journal) -> None:
    journal.start_attempt("a")
    journal.add_reports([report("a", 1, 1, 3.0), report("a", 1, 2, 2.5), report("a", 1, 3, 2.25)])
    journal.start_attempt("a", resumed_from_step=1)
    journal.add_reports([report("a", 2, 2, 2.5, time=2e9), report("a", 2, 3, 2.26, time=2e9), report("a", 2, 4, 2.0)])
    tracker = InMemoryTracker(journal.path)
    tracker.start()
    assert tracker.runs["a"].history("train/loss") == [(1, 3.0), (2, 2.5), (3, 2.25), (3, 2.26), (4, 2.0)]
    assert tracker.runs["a"].history("tokens/total") == [(1, 64), (2, 128), (3, 192), (4, 256)]


def test_a_trial_that_has_not_begun_is_not_shown(journal: Journal) -> None:
    tracker = InMemoryTracker(journal.path)
    tracker.start()
    assert tracker.runs == {}


def test_settings_are_flat_text() -> None:
    nested = {"training": {"lr": 3e-4, "budget": {"steps": 10, "flops": None}}, "betas": (0.9, 0.95), "empty": {}}
    assert flatten(nested) == {
        "training.lr": "0.0003",
        "training.budget.steps": "10",
        "training.budget.flops": "None",
        "betas": "[0.9, 0.95]",
        "empty": "{}",
    }


def test_a_trial_that_is_no_replicate_says_so_in_its_name() -> None:
    tuning = TrialRecord(trial_id="x", number=12, arm="gpt2", seed=2085357301318934985, role="tuning", config={})
    assert run_name(tuning) == "gpt2 tuning 12"


def test_what_is_undelivered_is_said_in_words() -> None:
    assert str(Undelivered()) == "everything was delivered"
    owed = Undelivered(reports=3, trials=1, problem="connection refused")
    assert owed
    assert str(owed) == "3 reports and the state of 1 trials wait in the journal (connection refused)"


def test_the_store_is_beside_the_results_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tracking_uri(tmp_path) == "http://127.0.0.1:9"


def test_the_way_to_the_ui_is_an_address_on_a_server_and_a_command_for_a_file() -> None:
    page = (
        "#/experiments/7/runs?workflowType=machine_learning&searchFilter=tags.role%20%21%3D%20%27tuning%27"
        "&orderByKey=metrics.%60cola/matthews%60&orderByAsc=false"
    )
    address = ui_command("https://me:secret@host/base/", "7", goal=Goal.of("cola/matthews"))
    assert address == f"https://host/base/{page}"
    command = ui_command("sqlite:////some where/mlflow.db", "7", goal=Goal.of("validation/loss"), port=5001)
    assert "-m mlflow ui --backend-store-uri 'sqlite:////some where/mlflow.db' --host 127.0.0.1 --port 5001 " in command
    least_first = page.replace("cola/matthews", "validation/loss").replace("=false", "=true")
    assert command.endswith(f"# then open http://127.0.0.1:5001/{least_first}")


def test_importing_the_tracker_imports_no_mlflow() -> None:
    code = "import sys, stackwise_ray.tracking.mlflow as t; print('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
