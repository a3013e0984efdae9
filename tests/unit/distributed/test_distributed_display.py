"""The line that says how far a sweep is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.distributed.display import Progress
from stackwise_ray.distributed.ledger import Ledger, Work
from stackwise_ray.planning.preparation import Corpora
from stackwise_ray.sweep import make_console
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.trials.proposals import plan_sweep, source_for
from tests.unit.trials.test_trials_proposals import SEARCH, sweep


def test_a_searchs_time_left_falls_with_every_trial(tmp_path: Path, journal: Journal) -> None:
    asked = sweep(tmp_path, SEARCH)
    plan = plan_sweep(asked, Corpora(make_console()))
    work = Work(worker="not:run", directory=tmp_path)
    ledger = Ledger(journal, source_for(asked, journal), work, lambda data: "fingerprint")
    progress = Progress(make_console(), slots=1, goal=Goal.of("validation/loss"))
    progress.watch(ledger, plan)
    left = []
    for number in range(3):
        assert ledger.next(f"t{number}") is not None
        metrics = {"validation/loss": 1.0, "flops/total": plan.rows[0].flops, "time/total_s": 10.0}
        outcome = {"kind": "finished", "metrics": metrics, "environment": {}}
        ledger.result(f"t{number}", 1, json.dumps({"records": [], "outcome": outcome}))
        left.append(progress.seconds_left())
    assert left == pytest.approx([80.0, 70.0, 60.0])  # 5 points and 2 x 2 replicates of 10 s, less what has ended
    twice = Progress(make_console(), slots=2, goal=Goal.of("validation/loss"))
    twice.watch(ledger, plan)
    assert twice.seconds_left() == pytest.approx(30.0)
