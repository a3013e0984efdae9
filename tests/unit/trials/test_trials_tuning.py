"""Tuning in the ledger: the rate of each arm is frozen before its replicates, and stays what it was."""

from __future__ import annotations

from typing import Any

from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.distributed.ledger import Ledger
from stackwise_ray.distributed.messages import Failed
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.trials.sources import Proposal, TunedSource
from tests.unit.distributed.test_distributed_ledger import finished, ledger_over, report, trial


def tuned_source(chosen: dict[str, Any], n_replicates: int = 2) -> TunedSource:
    rates = (1e-3, 3e-3, 1e-2)
    tuning = {
        arm: [
            Proposal(arm=arm, seed=9, role="tuning", trial=trial(90 + offset, rate), parameters={"training.lr": rate})
            for rate in rates
        ]
        for offset, arm in enumerate(("x", "y"))
    }

    def make(arm: str, values: Any) -> list[Proposal]:
        base = 0 if arm == "x" else 10
        return [
            Proposal(arm=arm, seed=s, role="replicate", trial=trial(base + s, values["training.lr"]), key=(s, arm))
            for s in range(n_replicates)
        ]

    return TunedSource(
        tuning, make, lambda arm, t: chosen.update({arm: t}), goal=Goal.of("validation/loss"), n_replicates=n_replicates
    )


def drive(ledger: Ledger, loss: Any) -> list[str]:
    roles = []
    while (config := ledger.next(f"t{len(roles)}")) is not None:
        tune_id = f"t{len(roles)}"
        proposal = ledger.running[tune_id].proposal
        outcome = loss(proposal)
        roles.append(f"{proposal.role}:{proposal.arm}")
        ledger.result(tune_id, 1, report(config, outcome=outcome))
    return roles


def test_tuning_freezes_the_best_rate_of_each_arm_before_its_replicates(journal: Journal) -> None:
    chosen: dict[str, Any] = {}
    best = {"x": 3e-3, "y": 1e-2}

    def loss(proposal: Proposal) -> dict[str, Any]:
        distance = abs(proposal.trial.training.lr - best[proposal.arm])
        return finished(**{"validation/loss": 1 + distance, "flops/total": 7.0})

    ledger = ledger_over(journal, tuned_source(chosen))
    roles = drive(ledger, loss)
    assert roles[:6] == ["tuning:x", "tuning:y"] * 3
    assert sorted(roles[6:]) == ["replicate:x"] * 2 + ["replicate:y"] * 2
    assert {arm: t.values["training.lr"] for arm, t in chosen.items()} == best
    assert chosen["x"].flops == 21
    assert ledger.finished
    assert ledger.source.expected() == 10


def test_a_resumed_tuning_makes_the_same_choice_and_runs_nothing(journal: Journal) -> None:
    def loss(proposal: Proposal) -> dict[str, Any]:
        return finished(**{"validation/loss": proposal.trial.training.lr})

    first: dict[str, Any] = {}
    drive(ledger_over(journal, tuned_source(first)), loss)
    second: dict[str, Any] = {}
    again = ledger_over(journal, tuned_source(second))
    assert not again.anything_to_run()
    assert first == second
    assert again.finished


def test_an_arm_whose_tuning_all_failed_gets_no_replicates_and_says_why(journal: Journal) -> None:
    chosen: dict[str, Any] = {}

    def loss(proposal: Proposal) -> dict[str, Any]:
        return Failed(reason="loss is nan") if proposal.arm == "x" else finished()

    source = tuned_source(chosen)
    roles = drive(ledger_over(journal, source), loss)
    assert "replicate:x" not in roles
    assert "loss is nan" in source.not_tuned["x"]
    assert source.exhausted


def test_a_failed_tuning_trial_is_not_chosen_and_stands_in_the_record_with_its_reason(journal: Journal) -> None:
    chosen: dict[str, Any] = {}

    def loss(proposal: Proposal) -> dict[str, Any]:
        if proposal.role == "tuning" and proposal.trial.training.lr == 1e-3:
            return Failed(reason="diverged")
        return finished(**{"validation/loss": proposal.trial.training.lr})

    drive(ledger_over(journal, tuned_source(chosen)), loss)
    assert chosen["x"].values == {"training.lr": 3e-3}
    assert chosen["x"].trials[0]["reason"] == "diverged"
    assert chosen["x"].trials[0]["loss"] is None
