"""One command on one folder of a sweep: what it notes, runs, keeps and reports. Trials end at once, without Ray."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stackwise_ray.config.space.designs import expand
from stackwise_ray.config.space.sweep_config import SweepConfig
from stackwise_ray.core.calibration_store import Calibration
from stackwise_ray.core.errors import ConfigError, DiskFullError
from stackwise_ray.core.ownership import LOCK_NAME, SweepLock
from stackwise_ray.distributed import driver
from stackwise_ray.distributed.driver import Options, SweepOutcome, run_sweep
from stackwise_ray.distributed.ledger import Ledger
from stackwise_ray.distributed.messages import Assignment, Failed, Finished, Outcome, Report
from stackwise_ray.distributed.session import Session
from stackwise_ray.tracking.journal import Journal
from tests.unit.trials.test_trials_proposals import ARMS, sweep

pytestmark = pytest.mark.usefixtures("module_cache")

TWO = ARMS.replace("own: {training.lr: 1.0e-2, model.d_ff: 64}", "").replace("[3, 5]", "2")
Ends = Callable[[Assignment], Outcome]


def finishes(assignment: Assignment) -> Outcome:
    loss = 1.0 + assignment.trial["seed"] + (assignment.trial["model"]["d_ff"] == 128)
    return Finished(metrics={"validation/loss": loss, "flops/total": 5.0}, environment={"torch": "2"})


class Bench:
    """A folder, and what a command on it told MLflow, Ray and the terminal."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.directory = folder, folder / "out" / "arms"
        self.sessions, self.told = 0, []
        self.ends: Ends = finishes
        self.console = Console(file=io.StringIO(), width=200)
        bench = self

        class Deliveries:
            """What is delivered to MLflow, noted."""

            def __init__(self, *about: Any) -> None:
                self.open = False

            def start(self) -> None:
                self.open = True
                bench.told.append("start")

            def notify(self) -> None:
                assert self.open

            def finish(self, report: Path | None, how: str) -> str:
                self.close(how)
                return f"see {report and report.name}"

            def close(self, how: str) -> None:
                if self.open:
                    bench.told.append(how)
                self.open = False

        @contextmanager
        def session(demand: Any, *, address: str | None, on_directory: Callable[[Path], None]) -> Iterator[Session]:
            bench.sessions += 1
            on_directory(folder / "stackwise-ray-x")
            yield Session(slots=1, gpus=0, temp_directory=None, raylet=None)

        def run_trials(ledger: Ledger, *about: Any, **options: Any) -> None:
            for number in range(99):
                assignment = ledger.next(f"t{number}")
                if assignment is None:
                    return
                ledger.result(f"t{number}", 1, Report(outcome=bench.ends(assignment)))

        # Ray and MLflow are in the slow tests; this is the driver's own order of work, on a real journal.
        monkeypatch.setattr(driver, "Delivery", Deliveries)
        monkeypatch.setattr("stackwise_ray.distributed.session.ray_session", session)
        monkeypatch.setattr("stackwise_ray.distributed.tuner.run_trials", run_trials)

    def run(self, text: str = TWO, **options: Any) -> SweepOutcome:
        asked: SweepConfig = sweep(self.folder, text)
        return run_sweep(asked, expand(asked), self.directory, self.console, Options(**options))

    @property
    def printed(self) -> str:
        return self.console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def written(directory: Path) -> Path:
    """A report."""
    (directory / "report").mkdir(exist_ok=True)
    (directory / "report" / "index.html").write_text("<p>")
    return directory / "report" / "index.html"


def test_a_whole_sweep_is_noted_run_reported_and_then_kept(bench: Bench) -> None:
    outcome = bench.run(report=written)
    assert (outcome.exit_code, outcome.failed, outcome.problems, outcome.kept) == (0, (), (), 0)
    assert outcome.directory == bench.directory
    assert outcome.report == bench.directory / "report" / "index.html"
    assert outcome.ui == "see index.html"
    assert [(record.arm, record.seed, record.status) for record in outcome.trials] == [
        (arm, seed, "finished") for seed in (0, 1) for arm in ("a", "b")
    ]
    assert bench.told == ["start", "finished"]
    plan = json.loads((bench.directory / "plan.json").read_text())
    assert plan["totals"]["trials"] == 4
    assert "steps: 50" in (bench.directory / "sweep.yaml").read_text()
    assert not (bench.directory / LOCK_NAME).exists()
    with Journal(bench.directory / "journal.sqlite") as journal:
        assert [entry["trial_id"] for entry in journal.get_meta("trial_set")] == [r.trial_id for r in outcome.trials]
        assert journal.get_meta("ray_directory") == str(bench.folder / "stackwise-ray-x")
        started = journal.get_meta("started_at")
        assert journal.get_meta("sweep")["name"] == "arms"
        assert set(journal.get_meta("claims")) == set(journal.get_meta("claims_measured_by"))

    (bench.directory / "plan.json").unlink()
    again = bench.run()
    assert (again.kept, again.report, again.exit_code, bench.sessions) == (4, None, 0, 1), "Ray was not needed again"
    assert again.trials == outcome.trials
    assert bench.told == ["start", "finished"] * 2
    assert not (bench.directory / "plan.json").exists()
    assert len(bench.printed.splitlines()) == 1, "how far it was at its end"
    assert bench.printed.startswith("4/4 trials done · ")
    with Journal(bench.directory / "journal.sqlite") as journal:
        assert journal.get_meta("started_at") == started

    more = bench.run(TWO.replace("seeds: 2", "seeds: 3"))
    assert (more.kept, len(more.trials), bench.sessions) == (4, 6, 2)
    lines = bench.printed.splitlines()[1:]
    assert lines[0] == f"{bench.directory / 'sweep.yaml'} changed since the last run:"
    assert [line.strip() for line in lines if line.strip().startswith(("-", "+"))][2:] == ["-  seeds: 2", "+  seeds: 3"]


def test_failed_trials_are_reported_kept_and_tried_again_where_that_is_asked_for(bench: Bench) -> None:
    bench.ends = lambda given: Failed(reason="NaN") if given.trial["model"]["d_ff"] == 128 else finishes(given)
    outcome = bench.run()
    assert [(record.arm, record.reason) for record in outcome.failed] == [("b", "NaN")] * 2
    assert (outcome.exit_code, bench.told) == (1, ["start", "failed"])
    bench.ends = finishes
    assert len(bench.run().failed) == 2
    retried = bench.run(retry_failed=True)
    assert (retried.failed, retried.exit_code) == ((), 0)
    assert {record.attempts for record in retried.trials if record.arm == "b"} == {2}
    assert {record.attempts for record in retried.trials if record.arm == "a"} == {1}


def test_a_report_that_cannot_be_written_is_a_problem_and_the_trials_are_kept(bench: Bench) -> None:
    def breaks(directory: Path) -> Path:
        raise ZeroDivisionError("no runs")

    outcome = bench.run(report=breaks)
    (problem,) = outcome.problems
    assert problem.startswith("the report could not be written: no runs; python -m analysis report ")
    assert problem.endswith(str(bench.directory))
    assert (outcome.report, outcome.exit_code, len(outcome.trials)) == (None, 1, 4)
    assert bench.told == ["start", "failed"]

    def full(directory: Path) -> Path:
        raise DiskFullError("the report could not be written: the disk is full")

    with pytest.raises(DiskFullError):
        bench.run(report=full)
    assert bench.told[2:] == ["start", "interrupted"]


def test_a_command_that_is_interrupted_closes_its_delivery_and_its_folder(bench: Bench) -> None:
    def interrupted(assignment: Assignment) -> Outcome:
        raise KeyboardInterrupt

    bench.ends = interrupted
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    assert bench.told == ["start", "interrupted"]
    assert SweepLock(bench.directory).owner() is None
    bench.ends = finishes
    assert bench.run().exit_code == 0
    with Journal(bench.directory / "journal.sqlite") as journal:
        assert sorted(trial.attempts for trial in journal.trials()) == [1, 1, 1, 2]


def test_a_limit_that_was_hit_is_a_problem_and_the_same_command_continues(bench: Bench) -> None:
    limit = "limits: {flops: 1.0e+13}\n"
    bench.ends = lambda given: Finished(metrics={"validation/loss": 1.0, "flops/total": 6e12}, environment={})
    outcome = bench.run(TWO + limit)
    (problem,) = outcome.problems
    assert "limits.flops" in problem
    assert problem.endswith("; the same command continues")
    assert len(outcome.trials) == 2
    bench.ends = finishes
    more = bench.run(TWO)
    assert (more.problems, more.kept, len(more.trials)) == ((), 2, 4)


def test_a_dead_owner_is_named_and_what_its_session_left_is_removed(bench: Bench) -> None:
    bench.run()
    stale = bench.folder / "stackwise-ray-x"
    (stale / "session").mkdir(parents=True)
    lock = SweepLock(bench.directory).acquire()
    dead = json.loads(lock.path.read_text()) | {"pid": 2**22 + 1}
    lock.path.write_text(json.dumps(dead).ljust(1024))
    bench.run()
    _, line = bench.printed.splitlines()
    assert line.startswith(f"taking over from process {2**22 + 1} on host ")
    assert line.endswith(", which is gone")
    assert not stale.exists()


def test_only_the_best_models_are_kept_where_that_is_asked_for(bench: Bench) -> None:
    def keeps(assignment: Assignment) -> Outcome:
        (assignment.directory / "model").mkdir(parents=True)
        return finishes(assignment)

    bench.ends = keeps
    outcome = bench.run(TWO + "tracking: {keep_models: best}\n")
    kept = {path.parent.name for path in bench.directory.glob("trials/*/model")}
    assert kept == {record.trial_id for record in outcome.trials if record.seed == 0}


def test_a_folder_that_cannot_be_made_is_refused_with_the_reason(bench: Bench) -> None:
    (bench.folder / "out").write_text("mine")
    with pytest.raises(ConfigError) as refused:
        bench.run()
    assert refused.value.path == "--output"
    assert (
        refused.value.problem == f"{bench.folder / 'out'} is a file where a folder should be; choose another --output"
    )
    bench.directory = Path("/proc/none/arms")
    with pytest.raises(ConfigError, match=r"/proc/none/arms cannot be made \(.*\); choose a folder that you can write"):
        bench.run()
    assert (bench.folder / "out").read_text() == "mine"


def test_the_seconds_of_a_start_are_stored_and_a_cache_that_cannot_be_written_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO(), width=200)
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "cache"))
    for seconds in (7.0, 9.0, 8.0):
        driver._remember_start(seconds, console)
    assert Calibration().start_seconds() == 8.0
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "file" / "cache"))
    driver._remember_start(1.0, console)
    assert "the calibration at " in console.file.getvalue()  # type: ignore[attr-defined]
    assert os.fspath(tmp_path / "file" / "cache") in console.file.getvalue()  # type: ignore[attr-defined]
