"""The ledger over a real journal: what is given out, what is answered from the journal, what is tried again."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from stackwise_ray.config.trial import Budget, ModelConfig, TrialConfig, data_config, training_config
from stackwise_ray.core.errors import DiskFullError
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.data.corpora.markov import MarkovSource
from stackwise_ray.distributed.ledger import MOST_DEATHS, Ledger
from stackwise_ray.distributed.messages import (
    Assignment,
    DeviceLost,
    DiskFull,
    Failed,
    Finished,
    Outcome,
    Report,
    RunSettings,
)
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.trials.sources import FixedSource, Proposal


def trial(seed: int, lr: float = 1e-3) -> TrialConfig:
    return TrialConfig(
        model=ModelConfig(family="gpt2", role="decoder", n_layers=1, d_model=8, n_heads=2, d_ff=16),
        data=data_config(corpus="markov", markov=MarkovSource()),
        training=training_config(budget=Budget(steps=3), lr=lr),
        seed=seed,
    )


def replicates(n: int) -> list[Proposal]:
    return [Proposal(arm="a", seed=seed, role="replicate", trial=trial(seed)) for seed in range(n)]


def ledger_over(journal: Journal, source: Any, **changes: Any) -> Ledger:
    settings = RunSettings(worker="not:run", objective="validation/loss", directory=journal.path.parent, **changes)
    return Ledger(journal, source, settings, lambda data: "fingerprint")


def report(assignment: Assignment, *, step: int = 1, outcome: Outcome | None = None, **metrics: float) -> Report:
    record = MetricRecord(
        trial_id=assignment.trial_id,
        attempt=assignment.attempt,
        step=step,
        tokens=10 * step,
        flops=100 * step,
        time=1.0,
        metrics=metrics or {"train/loss": 2.0},
    )
    return Report(records=(record,), outcome=outcome)


def finished(**metrics: float) -> Finished:
    return Finished(metrics=metrics or {"validation/loss": 1.0}, environment={"torch": "2"})


def run_to_end(ledger: Ledger, outcome: Any = finished) -> list[str]:
    """Everything that the ledger gives out, ended at once; the trial ids in order."""
    given = []
    while (assignment := ledger.next(f"tune{len(given)}")) is not None:
        ledger.result(f"tune{len(given)}", 1, report(assignment, outcome=outcome()))
        given.append(assignment.trial_id)
    return given


def test_every_trial_is_given_out_once_and_a_second_ledger_gives_out_none(journal: Journal) -> None:
    first = ledger_over(journal, FixedSource(replicates(4)))
    given = run_to_end(first)
    assert len(set(given)) == 4
    assert first.finished
    second = ledger_over(journal, FixedSource(replicates(4)))
    assert not second.anything_to_run()
    assert second.finished
    assert second.known == 4
    assert {trial.attempts for trial in journal.trials()} == {1}


def test_only_an_added_seed_is_given_out_by_the_next_command(journal: Journal) -> None:
    before = run_to_end(ledger_over(journal, FixedSource(replicates(2))))
    after = run_to_end(ledger_over(journal, FixedSource(replicates(3))))
    assert len(after) == 1
    assert after[0] not in before


def test_a_dead_worker_gives_the_trial_a_new_attempt_whose_number_stands_in_its_folder(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource(replicates(1)))
    first = ledger.next("t1")
    assert first is not None
    ledger.died("t1", "killed")
    assert not ledger.finished
    second = ledger.next("t2")
    assert second is not None
    assert second.trial_id == first.trial_id
    assert second.attempt == 2
    assert (second.directory / "attempt").read_text() == "2"


def test_a_trial_whose_device_was_lost_is_tried_once_more_with_the_reason_kept(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource(replicates(1)))
    first = ledger.next("t1")
    assert first is not None
    ledger.result("t1", 1, report(first, outcome=DeviceLost(reason="CUDA error: an illegal memory access")))
    ledger.died("t1", "its process was killed or crashed")  # as Tune says of the process that then ended itself
    (record,) = journal.trials()
    assert (record.status, record.reason) == ("interrupted", "worker died: CUDA error: an illegal memory access")
    second = ledger.next("t2")
    assert second is not None
    assert (second.trial_id, second.attempt) == (first.trial_id, 2)


def test_what_a_superseded_attempt_still_reports_is_not_booked(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource(replicates(1)))
    first = ledger.next("t1")
    assert first is not None
    ledger.died("t1", "killed")
    ledger.next("t2")
    ledger.result("t1", 1, report(first, outcome=finished()))
    assert journal.trials()[0].status == "running"


def test_a_trial_that_kills_its_worker_without_progress_fails_in_the_end(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource(replicates(1)))
    for death in range(MOST_DEATHS):
        assert ledger.next(f"t{death}") is not None
        ledger.died(f"t{death}", "killed")
    assert ledger.next("t9") is None
    assert ledger.finished
    record = journal.trials()[0]
    assert record.status == "failed"
    assert "died 3 times at step 0" in str(record.reason)


def test_deaths_with_progress_in_between_are_not_held_against_a_trial(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource(replicates(1)))
    for death in range(MOST_DEATHS + 3):
        assignment = ledger.next(f"t{death}")
        assert assignment is not None
        ledger.result(f"t{death}", 1, report(assignment, step=death + 1))
        ledger.died(f"t{death}", "killed")
    assert journal.trials()[0].status == "interrupted"


def test_a_silent_trial_is_tried_once_more_and_then_fails(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource(replicates(1)), heartbeat_timeout_s=-1.0)  # everything counts as silence
    for attempt in range(2):
        assert ledger.next(f"t{attempt}") is not None
        ledger.died(f"t{attempt}", "gone")
    assert ledger.finished
    assert "silent" in str(journal.trials()[0].reason)


def test_the_same_result_told_twice_is_booked_once(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource(replicates(1)))
    assignment = ledger.next("t")
    assert assignment is not None
    for _ in range(2):
        ledger.result("t", 1, report(assignment))
    ledger.result("t", 2, report(assignment, step=2, outcome=finished()))
    rows = journal._connection.execute("SELECT COUNT(*) FROM reports").fetchone()[0]
    assert rows == 2


def test_a_point_drawn_twice_is_one_trial_and_both_proposals_hear_of_its_end(journal: Journal) -> None:
    heard: list[str] = []

    class Listening(FixedSource):
        def ended(self, proposal: Proposal, record: Any) -> None:
            heard.append(record.status)

    ledger = ledger_over(journal, Listening([*replicates(1), *replicates(1)]))
    assignment = ledger.next("t")
    assert assignment is not None
    assert ledger.next("u") is None
    assert not ledger.finished
    ledger.result("t", 1, report(assignment, outcome=finished()))
    assert heard == ["finished", "finished"]
    assert ledger.finished
    assert len(journal.trials()) == 1


def test_a_full_disk_halts_the_sweep_and_leaves_the_trial_to_be_continued(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource(replicates(3)))
    assignment = ledger.next("t")
    assert assignment is not None
    ledger.result("t", 1, report(assignment, outcome=DiskFull(reason="disk full at x")))
    assert ledger.next("u") is None
    assert ledger.finished
    assert ledger.halted == "disk full at x"
    assert journal.trials()[0].status == "interrupted"


def test_interruption_marks_what_runs_and_the_next_ledger_continues_it(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource(replicates(2)))
    assert ledger.next("t") is not None
    ledger.interrupt_all("interrupted")
    assert journal.trials()[0].status == "interrupted"
    again = ledger_over(journal, FixedSource(replicates(2)))
    assert len(run_to_end(again)) == 2
    assert [trial.attempts for trial in journal.trials()] == [2, 1]


def test_a_stopped_trial_keeps_its_last_values_and_is_final(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource([Proposal(arm="a", seed=0, role="search", trial=trial(0))]))
    assignment = ledger.next("t")
    assert assignment is not None
    ledger.result("t", 1, report(assignment, **{"validation/loss": 3.0}))
    ledger.stopped("t")
    record = journal.trials()[0]
    assert record.status == "stopped"
    assert record.metrics["validation/loss"] == 3.0
    assert ledger.finished


def test_a_replicate_is_never_booked_as_stopped(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource(replicates(1)))
    assignment = ledger.next("t")
    assert assignment is not None
    assert not assignment.may_be_stopped, "a scheduler must not see a replicate's values"
    ledger.stopped("t")
    assert journal.trials()[0].status == "interrupted"


def test_a_disk_that_is_full_when_the_end_is_booked_leaves_the_trial_to_be_continued(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource([Proposal(arm="a", seed=0, role="search", trial=trial(0))]))
    assignment = ledger.next("t")
    assert assignment is not None
    pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")  # sqlite's own "database or disk is full"
    long = {f"validation/metric_{number}": 1.0 for number in range(5000)}
    ledger.result("t", 1, report(assignment, outcome=finished(), **long))
    ledger.stopped("t")
    assert ledger.halted is not None
    assert journal.trials()[0].status == "running", "the next command closes it as interrupted"


def test_a_trial_under_two_arms_is_in_the_sweep_under_both_names(journal: Journal) -> None:
    twins = [Proposal(arm=arm, seed=0, role="replicate", trial=trial(0)) for arm in ("a", "b")]
    ledger = ledger_over(journal, FixedSource(twins))
    run_to_end(ledger)
    assert len(journal.trials()) == 1
    assert [(entry["arm"], entry["seed"]) for entry in ledger.trial_set.values()] == [("a", 0), ("b", 0)]


def test_a_process_that_stands_still_is_named_to_be_killed(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource(replicates(1)), heartbeat_timeout_s=-10.0)
    assignment = ledger.next("t")
    assert assignment is not None
    ledger.result("t", 1, dataclasses.replace(report(assignment), pid=4242))
    assert ledger.hung_processes(margin_s=60.0) == []
    assert ledger.hung_processes(margin_s=0.0) == [4242]


def test_no_trial_starts_once_the_flops_are_spent(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource(replicates(3)), max_flops=50.0)
    assignment = ledger.next("t")
    assert assignment is not None
    ledger.result("t", 1, report(assignment, outcome=finished(**{"flops/total": 100.0})))
    assert ledger.next("u") is None
    assert "limits.flops" in str(ledger.halted)


def test_trials_that_run_hold_their_planned_flops_against_the_limit(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource(replicates(4)), max_flops=250.0)
    ledger.planned = lambda proposal: {"flops": 100.0}
    assert ledger.next("t") is not None
    assert ledger.next("u") is not None  # 200 of 250 are promised
    assert ledger.next("v") is None
    assert "limits.flops" in str(ledger.halted)


def test_the_prediction_of_a_trial_is_the_one_from_before_it_first_ran(journal: Journal) -> None:
    def ledger(seconds: float, n: int) -> Ledger:
        made = ledger_over(journal, FixedSource(replicates(n)))
        made.planned = lambda proposal: {"flops": 1.0, "seconds": seconds, "peak_bytes": None}
        return made

    assert ledger(5.0, 1).next("killed") is not None
    run_to_end(ledger(7.0, 2))
    predicted = journal.decisions("prediction")
    assert [(facts["seconds"], facts["peak_bytes"]) for facts in predicted.values()] == [(5.0, None), (7.0, None)]
    assert set(predicted) == {trial.trial_id for trial in journal.trials()}


def test_a_failed_trial_keeps_the_flops_that_it_spent(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource(replicates(1)))
    assignment = ledger.next("t")
    assert assignment is not None
    ledger.result("t", 1, report(assignment, step=3))
    ledger.result("t", 2, report(assignment, step=4, outcome=Failed(reason="the loss is not finite")))
    (record,) = ledger.records()
    assert record.status == "failed"
    assert record.metrics == {"flops/total": 400}


# ------------------------------------------------------------------------------------------------- cut from outside


def test_a_search_trial_that_the_sweeps_time_cuts_short_continues_later(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource([Proposal(arm="p", seed=0, role="search", trial=trial(0))]))
    assert ledger.next("t") is not None
    ledger.deadline = time.monotonic() - 1.0
    ledger.stopped("t")
    assert [record.status for record in journal.trials()] == ["interrupted"]


def test_a_search_trial_that_the_scheduler_ends_is_final(journal: Journal) -> None:
    ledger = ledger_over(journal, FixedSource([Proposal(arm="p", seed=0, role="search", trial=trial(0))]))
    assert ledger.next("t") is not None
    ledger.stopped("t")
    assert [record.status for record in journal.trials()] == ["stopped"]


def test_a_trial_whose_report_meets_a_full_disk_is_running_no_more_and_the_sweep_halts(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ledger_over(journal, FixedSource(replicates(2)))
    assignment = ledger.next("t")
    assert assignment is not None

    def full(records: object) -> int:
        raise DiskFullError("journal.sqlite: database or disk is full")

    # Filling a real disk takes root and a file system; that SQLite's error becomes this one is test_tracking_journal's.
    monkeypatch.setattr(journal, "add_reports", full)
    ledger.result("t", 1, report(assignment, outcome=finished()))
    assert ledger.running == {}
    assert "disk is full" in str(ledger.halted)
    assert ledger.next("u") is None
