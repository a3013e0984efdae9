"""The line that says how far a sweep is."""

from __future__ import annotations

import dataclasses
import io
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stackwise_ray.config.space.designs import expand
from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.distributed.display import ProgressDisplay
from stackwise_ray.distributed.ledger import Ledger
from stackwise_ray.distributed.messages import Failed, Finished, Report, RunSettings
from stackwise_ray.planning.preparation import PreparedCorpora
from stackwise_ray.planning.sweep_plan import SweepPlan
from stackwise_ray.terminal import make_console
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.trials.proposals import plan_sweep, source_for
from tests.unit.trials.test_trials_proposals import SEARCH, sweep


def begun(directory: Path, journal: Journal) -> tuple[SweepPlan, Ledger]:
    """A search before its first trial."""
    asked = sweep(directory, SEARCH)
    plan = plan_sweep(asked, expand(asked), PreparedCorpora())
    settings = RunSettings(worker="not:run", directory=directory, objective="validation/loss")
    return plan, Ledger(journal, source_for(asked, expand(asked), journal), settings, lambda data: "fingerprint")


def reported(ledger: Ledger, trial: str = "t") -> Callable[..., None]:
    """Gives out a trial under this name of Tune's; what is returned reports a step of it, as its worker does."""
    given = ledger.next(trial)
    assert given is not None
    iterations = itertools.count(1)

    def report(outcome: Finished | None = None, **told: Any) -> None:
        values = {"step": 0, "tokens": 1, "flops": 1, "time": 1.0, "metrics": {}, **told}
        record = MetricRecord(trial_id=given.trial_id, attempt=1, **values)
        ledger.result(trial, next(iterations), Report(records=(record,), outcome=outcome))

    return report


def test_a_searchs_time_left_falls_with_every_trial(tmp_path: Path, journal: Journal) -> None:
    plan, ledger = begun(tmp_path, journal)
    progress = ProgressDisplay(make_console(), slots=1, goal=Goal.of("validation/loss"))
    progress.watch(ledger, plan)
    left = []
    for number in range(3):
        assert ledger.next(f"t{number}") is not None
        metrics = {"validation/loss": 1.0, "flops/total": plan.rows[0].flops, "time/total_s": 10.0}
        outcome = Finished(metrics=metrics, environment={})
        ledger.result(f"t{number}", 1, Report(outcome=outcome))
        left.append(progress.seconds_left())
    assert left == pytest.approx([80.0, 70.0, 60.0])  # 5 points and 2 x 2 replicates of 10 s, less what has ended
    twice = ProgressDisplay(make_console(), slots=2, goal=Goal.of("validation/loss"))
    twice.watch(ledger, plan)
    assert twice.seconds_left() == pytest.approx(30.0)


def test_the_table_shows_the_goals_metric_of_every_running_trial_and_nothing_that_was_not_measured(
    tmp_path: Path, journal: Journal
) -> None:
    plan, ledger = begun(tmp_path, journal)
    metrics = {"train/loss": 2.5, "validation/loss": 2.0, "validation/answer_accuracy": 0.25}
    reported(ledger, "t0")(step=7, metrics=metrics)
    reported(ledger, "t1")  # gives no sign yet
    progress = ProgressDisplay(make_console(), slots=2, goal=Goal.of("validation/answer_accuracy"))
    progress.watch(ledger, plan)
    table = progress.table(list(ledger.running.values()))
    shown = [[column.header, *column.cells] for column in table.columns]
    assert shown[1:] == [
        ["step", "7/50", "starting"],
        ["tokens/s", "", ""],
        ["train/\nloss", "2.5000", ""],
        ["validation/\nanswer_accuracy", "0.2500", ""],
    ]
    on_loss = ProgressDisplay(make_console(), slots=2, goal=Goal.of("train/loss")).table([])
    assert [column.header for column in on_loss.columns] == ["trial", "step", "tokens/s", "train/\nloss"]


def test_what_a_trial_has_begun_and_measures_nothing_in_is_shown_until_it_reports(
    tmp_path: Path, journal: Journal
) -> None:
    plan, ledger = begun(tmp_path, journal)
    progress = ProgressDisplay(make_console(), slots=1, goal=Goal.of("validation/loss"))
    progress.watch(ledger, plan)
    report = reported(ledger)
    report(doing="waiting")
    assert "0/9 trials done · 1 waiting · " in progress.lines()[0]
    assert [*progress.table(list(ledger.running.values())).columns[1].cells] == ["waiting"]
    report()
    assert "1 starting" in progress.lines()[0]
    report(step=1)
    assert "1 running" in progress.lines()[0]


def test_what_is_waited_for_is_said_where_no_trial_runs(tmp_path: Path, journal: Journal) -> None:
    plan, ledger = begun(tmp_path, journal)
    progress = ProgressDisplay(make_console(), slots=1, goal=Goal.of("validation/loss"))
    assert progress.lines()[0].startswith("starting · ")
    progress.watch(ledger, plan)
    assert "waiting for Ray to start the first trial" in progress.lines()[0]
    report = reported(ledger)
    assert "1 starting" in progress.lines()[0]
    report(step=3, outcome=Finished(metrics={"validation/loss": 1.0}, environment={}))
    assert "waiting for Ray to start the next trial" in progress.lines()[0]
    ledger.interrupt_all("the disk is full")
    assert "stopping" in progress.lines()[0]


def test_a_pace_is_shown_once_it_was_measured_and_the_start_of_a_trial_is_no_part_of_it(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, ledger = begun(tmp_path, journal)
    progress = ProgressDisplay(make_console(), slots=1, goal=Goal.of("validation/loss"))
    progress.watch(ledger, plan)
    report = reported(ledger)
    clock = [time.monotonic() + 1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])  # a start of a quarter of an hour, and steps of just 2 s
    flops = plan.rows[0].flops
    assert flops is not None
    for step, rate in [(0, 0.0), (10, 0.0), (20, 6280.0)]:
        clock[0] += 2.0
        report(step=step, flops=flops * step // 50, metrics={"throughput/tokens_per_s": rate})
        if not rate:
            assert progress.seconds_left() is None
            assert "tokens/s" not in "".join(progress.lines())
            assert [*progress.table(list(ledger.running.values())).columns[2].cells] == [""]
    assert progress.seconds_left() == pytest.approx(2.0 / 10 * (9 * 50 - 20))  # 2 s for ten steps
    assert "6.28k tokens/s" in "".join(progress.lines())


def test_no_line_is_longer_than_80_characters_on_a_terminal_and_in_a_pipe(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, ledger = begun(tmp_path, journal)
    metrics = {"train/loss": 2.5, "validation/answer_accuracy": 0.25, "throughput/tokens_per_s": 1e5}
    for number in range(3):
        doing = (None, "starting 2 workers", "waiting for resources")[number]
        reported(ledger, f"t{number}")(step=7 * (not number), metrics=metrics, doing=doing)
        attempt, long = ledger.running[f"t{number}"], "training.lr=0.001,model.n_layers=4,model.d_model=64"
        attempt.proposal = dataclasses.replace(attempt.proposal, arm=long, role="replicate")
    # The names that the trials were given above are in no plan.
    monkeypatch.setattr(plan.__class__, "row", lambda self, arm, role: self.rows[0])
    for width in (80, 60):
        terminal = Console(width=width, record=True, file=io.StringIO(), force_terminal=True)
        progress = ProgressDisplay(terminal, slots=3, goal=Goal.of("validation/answer_accuracy"))
        progress.watch(ledger, plan)
        terminal.print(progress)
        lines = terminal.export_text().splitlines()
        assert max(map(len, lines)) <= width
        assert len(lines) == len(progress.lines()) + 2 + 3, "no row is wrapped"
        if width == 80:
            assert lines[-4].split() == ["trial", "step", "tokens/s", "loss", "answer_accuracy"], "no heading is cut"
            assert all(line[: line.index("…")].startswith("training.lr") for line in lines[-3:]), "long names are"
    assert all(len(line) <= 80 for line in progress.lines())


def test_a_pipe_gets_its_first_lines_soon_and_the_last_ones_at_the_end(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, ledger = begun(tmp_path, journal)
    # The first lines come after seconds.
    monkeypatch.setattr("stackwise_ray.distributed.display.FIRST_LINES_S", (0.02,))
    console = Console(file=io.StringIO(), width=200)
    with ProgressDisplay(console, slots=1, goal=Goal.of("validation/loss")) as progress:
        progress.watch(ledger, plan)
        while not console.file.getvalue():  # type: ignore[attr-defined]
            time.sleep(0.01)
        assert "0/9 trials done" in console.file.getvalue()  # type: ignore[attr-defined]
        outcome = Finished(metrics={"validation/loss": 1.25}, environment={})
        reported(ledger)(step=3, outcome=outcome)
    last = console.file.getvalue().splitlines()[-1]  # type: ignore[attr-defined]
    assert last.startswith("1/9 trials done · ")
    assert "best validation/loss 1.2500 (" in last
    assert "waiting for Ray" not in last, "it has ended"


def test_a_terminal_shows_a_live_table_until_the_end(tmp_path: Path, journal: Journal) -> None:
    plan, ledger = begun(tmp_path, journal)
    terminal = Console(width=80, file=io.StringIO(), force_terminal=True)
    with ProgressDisplay(terminal, slots=1, goal=Goal.of("validation/loss")) as progress:
        progress.watch(ledger, plan)
        reported(ledger)(step=7, metrics={"train/loss": 2.5})
        assert progress._live is not None
        progress._live.refresh()
        shown = terminal.file.getvalue()  # type: ignore[attr-defined]
        assert "7/50" in shown
        assert "1 running" in shown
    assert not progress._live.is_started
    last = terminal.file.getvalue().splitlines()[-1]  # type: ignore[attr-defined]
    assert "0/9 trials done · 1 running · " in last
    assert "7/50" not in last


def test_failed_kept_and_best_trials_are_counted(tmp_path: Path, journal: Journal) -> None:
    _, first = begun(tmp_path, journal)
    for name, loss in (("t0", 3.0), ("t1", 2.0)):
        reported(first, name)(step=1, outcome=Finished(metrics={"validation/loss": loss}, environment={}))
    reported(first, "t2")(step=1, outcome=Failed(reason="NaN"))
    plan, ledger = begun(tmp_path, journal)
    progress = ProgressDisplay(make_console(), slots=1, goal=Goal.of("validation/loss"))
    progress.watch(ledger, plan)
    for _ in range(2):
        ledger.next("next")
    shown = " ".join(progress.lines())
    assert "2/9 trials done · 1 failed" in shown
    assert "3 kept from before" in shown
    assert "best validation/loss 2.0000" in shown
