"""What Tune is given and what it brings back, over a real ledger; Tune's own loop does not run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.search import Searcher

from stackwise_ray.distributed import tuner
from stackwise_ray.distributed.ledger import Ledger
from stackwise_ray.distributed.messages import Assignment, Finished, Report, RunSettings, decode, encode
from stackwise_ray.distributed.session import TRIAL_SLOT, Session
from stackwise_ray.distributed.tuner import _LedgerCallback, _LedgerSearcher, _resources, _RunningSweep, run_trials
from stackwise_ray.planning.demand import Demand
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.trials.sources import FixedSource, Proposal
from tests.small_trials import TRIAL

HERE = Session(slots=2, gpus=1, temp_directory=None, raylet=None)


@pytest.fixture
def ledger(journal: Journal) -> Ledger:
    """Three trials that nobody has begun."""
    settings = RunSettings(worker="not:run", objective="validation/loss", directory=journal.path.parent)
    proposals = [Proposal(arm="a", seed=seed, role="replicate", trial=replace(TRIAL, seed=seed)) for seed in range(3)]
    return Ledger(journal, FixedSource(proposals), settings, lambda data: "fingerprint")


@pytest.fixture
def key(ledger: Ledger) -> Iterator[int]:
    """The ledger, as Tune's copies of searcher and callbacks find it."""
    tuner._RUNNING[id(ledger)] = _RunningSweep(ledger, [])
    yield id(ledger)
    del tuner._RUNNING[id(ledger)]


def result(number: int, report: Report) -> dict[str, Any]:
    return {"training_iteration": number, "report": encode(report)}


DONE = Report(outcome=Finished(metrics={"validation/loss": 1.0}, environment={}))


def test_the_searcher_hands_out_every_trial_and_then_ends(ledger: Ledger, key: int) -> None:
    searcher = _LedgerSearcher(key)
    given = []
    for name in ("x", "y", "z"):
        config = searcher.suggest(name)
        assert isinstance(config, dict)
        given.append(decode(Assignment, config["assignment"]))
        if name != "z":
            searcher.on_trial_complete(name, result(1, DONE))
    assert [assignment.trial["seed"] for assignment in given] == [0, 1, 2]
    assert searcher.suggest("later") is None, "one still runs and may have to be tried again"
    searcher.on_trial_complete("z", error=True)
    assert [(trial.status, trial.reason) for trial in ledger.journal.trials()][2] == (
        "interrupted",
        "worker died: its process was killed or crashed",
    )
    assert isinstance(searcher.suggest("z2"), dict)
    searcher.on_trial_complete("z2", result(1, DONE))
    assert searcher.suggest("none") == Searcher.FINISHED
    assert {trial.status for trial in ledger.journal.trials()} == {"finished"}
    assert searcher.save("nowhere") is None
    assert searcher.restore("nowhere") is None


def test_a_trial_that_tune_ended_without_an_outcome_is_interrupted(ledger: Ledger, key: int) -> None:
    searcher = _LedgerSearcher(key)
    searcher.suggest("x")
    searcher.on_trial_complete("x", {})
    (trial,) = ledger.journal.trials()
    assert (trial.status, trial.reason) == ("interrupted", "ended before its budget")


def test_the_callback_books_results_and_ends_processes_that_hang(ledger: Ledger, key: int) -> None:
    _LedgerSearcher(key).suggest("x")
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    trial = SimpleNamespace(trial_id="x")
    callback = _LedgerCallback(key, local=True)
    callback.on_trial_result(1, [], trial, result(1, Report(pid=process.pid)))
    callback.on_step_end(1, [])
    assert process.poll() is None
    ledger.running["x"].last_heartbeat -= 10_000
    _LedgerCallback(key, local=False).on_step_end(2, [])
    assert process.poll() is None, "it is on another machine"
    callback.on_step_end(2, [])
    assert process.wait(10) == -signal.SIGKILL
    callback.on_step_end(3, [])  # it is gone
    callback.on_trial_result(2, [], trial, result(2, DONE))
    assert ledger.running == {}


def test_a_signal_asks_for_checkpoints_and_ends_the_sweep_once_they_are_there(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[int] = []
    running = _RunningSweep(ledger, received)
    ledger.next("x")
    running.handle_signals()
    assert not ledger.settings.stop_request.exists()
    received.append(signal.SIGINT)
    running.handle_signals()
    assert ledger.settings.stop_request.exists()
    assert ledger.halted == "interrupted"
    ledger.settings.stop_request.unlink()
    running.handle_signals()
    assert not ledger.settings.stop_request.exists(), "once"
    now = tuner.time.monotonic()
    # The grace is minutes.
    monkeypatch.setattr(tuner.time, "monotonic", lambda: now + tuner.GRACE_S + 1)
    with pytest.raises(KeyboardInterrupt):
        running.handle_signals()
    monkeypatch.undo()
    ledger.running.clear()
    with pytest.raises(KeyboardInterrupt):
        running.handle_signals()


def test_a_trial_holds_cpus_and_gpus_or_a_slot_where_its_workers_hold_them(ledger: Ledger) -> None:
    assert _resources(Demand(cpus=2), HERE, ledger) == {"cpu": 2}
    assert _resources(Demand(cpus=4, gpus=1, workers=2), HERE, ledger) == {"cpu": 0, TRIAL_SLOT: 1}
    assert _resources(Demand(cpus=1, gpus=1), HERE, ledger) == {"cpu": 1, "gpu": 1}
    assert _resources(Demand(cpus=1, gpus=0.25), HERE, ledger) == {"cpu": 1, "gpu": 0.5}, "two at once on one device"


class Tune:
    """Tune as far as `run_trials` sees it: what it was given, and a loop that does what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: dict[str, Any] = {}
        self.loop: Callable[[], None] = lambda: None
        bench = self

        class Tuner:
            def __init__(self, trainable: Any, *, tune_config: Any, run_config: Any) -> None:
                bench.given = {"tune": tune_config, "run": run_config}

            def fit(self) -> None:
                bench.loop()

        # Tune's own loop is in the slow tests: this one gives the callbacks what Tune would.
        monkeypatch.setattr(tuner.tune, "Tuner", Tuner)
        monkeypatch.setattr(tuner, "RayWatchdog", lambda session, on_lost: tuner.contextlib.nullcontext())
        monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "0")


@pytest.fixture
def tune(monkeypatch: pytest.MonkeyPatch) -> Tune:
    return Tune(monkeypatch)


def run(ledger: Ledger, **options: Any) -> None:
    run_trials(ledger, HERE, Demand(), on_ray_lost=lambda reason: None, **options)


def test_tune_decides_nothing_about_which_trials_exist(ledger: Ledger, tune: Tune) -> None:
    storage: list[Path] = []

    def loop() -> None:
        (searcher,) = {tune.given["tune"].search_alg}
        for number in range(4):
            if isinstance(searcher.suggest(f"x{number}"), dict):
                searcher.on_trial_complete(f"x{number}", result(1, DONE))
        storage.append(Path(tune.given["run"].storage_path))
        storage[0].mkdir(exist_ok=True)

    tune.loop = loop
    ledger.settings.stop_request.touch()
    run(ledger)
    assert ledger.finished
    asked = tune.given["tune"]
    assert (asked.num_samples, asked.max_concurrent_trials, asked.reuse_actors) == (-1, 2, True)
    assert (asked.time_budget_s, asked.scheduler) == (None, None)
    assert tune.given["run"].failure_config.max_failures == 0
    assert os.environ["TUNE_MAX_PENDING_TRIALS_PG"] == "2"
    assert storage == [ledger.settings.directory / ".tune"]
    assert not storage[0].exists()
    assert not ledger.settings.stop_request.exists()
    assert (ledger.halted, ledger.deadline, tuner._RUNNING) == (None, None, {})


@pytest.mark.parametrize(
    ("seconds", "reason"), [(60.0, "limits.wall_hours is used up"), (None, "Ray Tune ended early")]
)
def test_what_still_runs_when_tune_ends_is_interrupted_with_the_reason(
    ledger: Ledger, tune: Tune, seconds: float | None, reason: str
) -> None:
    tune.loop = lambda: ledger.next("x") and None  # type: ignore[assignment]
    run(ledger, wall_seconds=seconds)
    (trial,) = ledger.journal.trials()
    assert (trial.status, trial.reason, ledger.halted) == ("interrupted", reason, reason)
    assert (ledger.deadline is None) == (seconds is None)
    assert tune.given["tune"].time_budget_s == seconds


def test_an_error_of_the_driver_interrupts_the_trials_with_its_words(ledger: Ledger, tune: Tune) -> None:
    def breaks() -> None:
        ledger.next("x")
        raise ZeroDivisionError("no slots")

    tune.loop = breaks
    with pytest.raises(ZeroDivisionError):
        run(ledger)
    (trial,) = ledger.journal.trials()
    assert trial.reason == "the driver failed: no slots"


def test_a_signal_ends_the_command_as_ctrl_c(ledger: Ledger, tune: Tune) -> None:
    def told() -> None:
        ledger.next("x")
        os.kill(os.getpid(), signal.SIGTERM)

    tune.loop = told
    with pytest.raises(KeyboardInterrupt):
        run(ledger)
    (trial,) = ledger.journal.trials()
    assert trial.reason == "the command was told to stop"
    assert tuner._RUNNING == {}
