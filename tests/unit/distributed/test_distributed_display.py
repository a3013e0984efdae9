"""The line that says how far a sweep is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from stackwise_ray.config.space.designs import expand
from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.distributed.display import ProgressDisplay
from stackwise_ray.distributed.ledger import Ledger
from stackwise_ray.distributed.messages import Finished, Report, RunSettings
from stackwise_ray.planning.preparation import PreparedCorpora
from stackwise_ray.planning.sweep_plan import SweepPlan
from stackwise_ray.terminal import make_console
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.trials.proposals import plan_sweep, source_for
from tests.unit.trials.test_trials_proposals import SEARCH, sweep


def begun(directory: Path, journal: Journal) -> tuple[SweepPlan, Ledger]:
    """A search before its first trial."""
    asked = sweep(directory, SEARCH)
    plan = plan_sweep(asked, expand(asked), PreparedCorpora(make_console()))
    settings = RunSettings(worker="not:run", directory=directory, objective="validation/loss")
    return plan, Ledger(journal, source_for(asked, expand(asked), journal), settings, lambda data: "fingerprint")


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
    for number in range(2):
        given = ledger.next(f"t{number}")
        assert given is not None
        record = MetricRecord(trial_id=given.trial_id, attempt=1, step=7, tokens=1, flops=1, time=1.0, metrics=metrics)
        ledger.result(f"t{number}", 1, Report(records=() if number else (record,)))
    progress = ProgressDisplay(make_console(), slots=2, goal=Goal.of("validation/answer_accuracy"))
    progress.watch(ledger, plan)
    table = progress.__rich__()
    shown = [[column.header, *column.cells] for column in table.columns]
    assert shown[1:] == [
        ["step", "7", "0"],
        ["tokens/s", "", ""],
        ["train/loss", "2.5000", ""],
        ["validation/answer_accuracy", "0.2500", ""],
    ]
    on_loss = ProgressDisplay(make_console(), slots=2, goal=Goal.of("train/loss")).__rich__()
    assert [column.header for column in on_loss.columns] == ["running", "step", "tokens/s", "train/loss"]


def test_what_a_trial_has_begun_and_measures_nothing_in_is_shown_until_it_reports(
    tmp_path: Path, journal: Journal
) -> None:
    plan, ledger = begun(tmp_path, journal)
    progress = ProgressDisplay(make_console(), slots=1, goal=Goal.of("validation/loss"))
    progress.watch(ledger, plan)
    given = ledger.next("t")
    assert given is not None
    record = MetricRecord(
        trial_id=given.trial_id, attempt=1, step=0, tokens=0, flops=0, time=1.0, metrics={}, doing="waiting"
    )
    ledger.result("t", 1, Report(records=(record,)))
    assert "1 running · 1 waiting · 0 failed" in progress.line()
    assert str(next(progress.__rich__().columns[0].cells)).endswith("· waiting")
    ledger.result("t", 2, Report(records=(dataclasses.replace(record, doing=None),)))
    assert "waiting" not in progress.line()
