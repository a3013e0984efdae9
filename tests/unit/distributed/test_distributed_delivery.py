"""What one command delivers beside the sweep: begun once it is accepted, closed once, the rest named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stackwise_ray.core.callbacks import NoWaitingLine
from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.distributed import delivery
from stackwise_ray.distributed.delivery import Delivery
from stackwise_ray.tracking.interface import Undelivered
from stackwise_ray.tracking.journal import Journal
from tests.in_memory_tracker import InMemoryTracker
from tests.unit.trials.ended_trials import ended_trial
from tests.unit.trials.test_trials_proposals import ARMS, sweep


class Store(InMemoryTracker):
    """Keeps what it was made with, and owes what it is told to."""

    owes = Undelivered()
    experiment_id: str | None = "7"

    def __init__(self, journal_path: Path, uri: str, experiment: str, name: str, *, tags: dict[str, str]) -> None:
        super().__init__(journal_path)
        self.uri, self.about, self.closed = uri, (experiment, name, tags), 0

    def close(self, *words: Any, **options: Any) -> Undelivered:
        self.closed += 1
        super().close(*words, **options)
        return self.owes


class Line(NoWaitingLine):
    """What the command waits for."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def __call__(self, what: str, *progress: Any) -> None:
        self.shown.append(what)

    def clear(self) -> None:
        self.shown.append("")


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def made(tmp_path: Path, journal: Journal, console: Console, line: Line, monkeypatch: pytest.MonkeyPatch) -> Delivery:
    # What is tested is what the delivery says of a store; MLflow itself is in test_tracking_mlflow.
    monkeypatch.setattr(delivery, "MlflowTracker", Store)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    asked = sweep(tmp_path, "question: Which is best?\n" + ARMS.lstrip())
    return Delivery(asked, Goal.of("validation/loss"), tmp_path, journal, console, line)


def test_a_sweep_that_ended_is_delivered_with_its_report_and_the_command_that_shows_it(
    made: Delivery, journal: Journal, tmp_path: Path, console: Console, line: Line
) -> None:
    store = made._tracker
    assert isinstance(store, Store)
    assert store.about == ("arms", "arms", {"mlflow.note.content": "Which is best?"})
    made.start()
    journal.add_trial(ended_trial("t", "a", 0, {}, status="pending"))
    journal.start_attempt("t")
    made.notify()
    assert list(store._states) == ["t"]
    shown = made.finish(tmp_path / "report" / "index.html", "failed")
    assert shown is not None
    assert f"--backend-store-uri sqlite:///{tmp_path}/mlflow.db" in shown
    assert "/experiments/7/runs" in shown
    assert (store.outcome, store.attachments) == ("failed", {"report": tmp_path / "report"})
    made.close("interrupted")
    assert (store.closed, store.outcome) == (1, "failed"), "it was closed already"
    assert line.shown == ["delivering to MLflow", ""]
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_without_an_answer_of_the_store_there_is_no_command_and_the_rest_is_named(
    made: Delivery, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The store of this test, which is away.
    monkeypatch.setattr(Store, "experiment_id", None)
    monkeypatch.setattr(Store, "owes", Undelivered(reports=3, trials=1, problem="it is away"))
    made.start()
    assert made.finish(None, "finished") is None
    assert console.file.getvalue() == (  # type: ignore[attr-defined]
        "MLflow: 3 reports and the state of 1 trials wait in the journal (it is away); "
        "the next run of this command delivers them\n"
    )
    assert made._tracker.attachments == {}  # type: ignore[attr-defined]


def test_what_was_never_accepted_delivers_nothing(made: Delivery, line: Line) -> None:
    made.close("interrupted")
    assert made._tracker.closed == 0  # type: ignore[attr-defined]
    assert line.shown == []
