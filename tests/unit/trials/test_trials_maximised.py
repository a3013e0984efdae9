"""What is maximised and what is minimised, what finished and what was stopped: each beside its partner, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from stackwise_ray.config.loading import load_sweep
from stackwise_ray.config.space.designs import expand
from stackwise_ray.config.space.sweep_config import SweepConfig
from stackwise_ray.core.records import Role, Status, TrialRecord
from stackwise_ray.distributed.driver import _keep_models
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.trials.proposals import source_for
from stackwise_ray.trials.sources import Proposal, SearchedSource, TrialSource
from tests.unit.trials.ended_trials import ended_trial

BASE = "base: {model: decoder/gpt2_family/tiny, data: markov, overrides: {training.budget: {%s}}}\n"
SEARCH = """
name: search
design: {kind: search}
search: {sampler: random, trials: 6, winners: 2, space: {training.lr: {log_uniform: [1e-4, 1e-1]}}}
replicates: {seeds: 1}
"""
TUNED = """
name: tuned
design: {kind: arms, arms: {a: {}}}
tune: {space: {training.lr: {log_uniform: [1e-4, 1e-1]}}, trials_per_arm: 3, budget_share: 0.2}
replicates: {seeds: 1}
"""
DIRECTIONS = pytest.mark.parametrize("direction", ["minimize", "maximize"])


def sweep(folder: Path, text: str, direction: str = "minimize", budget: str = "steps: 50") -> SweepConfig:
    file = folder / "sweep.yaml"
    file.write_text(BASE % budget + text + f"objective: [{{metric: validation/loss, direction: {direction}}}]\n")
    return load_sweep(file)


def record(name: str, role: Role, status: Status, metrics: dict[str, float], arm: str = "a") -> TrialRecord:
    return ended_trial(name, arm, 0, metrics, role=role, status=status, reason="because")


def drive(source: TrialSource, statuses: dict[int, Status] | None = None) -> list[Proposal]:
    """Every proposal; a trial's score is its learning rate, and the n-th ends as `statuses` says."""
    given: list[Proposal] = []
    while (proposal := source.propose()) is not None:
        status: Status = (statuses or {}).get(len(given), "finished")
        rate = proposal.trial.training.lr
        metrics = {} if status == "failed" else {"validation/loss": rate, "tokens/total": 640.0}
        source.ended(proposal, record(f"{proposal.role}-{rate}", proposal.role, status, metrics, proposal.arm))
        given.append(proposal)
    assert source.exhausted
    return given


def rates(proposals: list[Proposal], role: Role) -> list[float]:
    return [proposal.trial.training.lr for proposal in proposals if proposal.role == role]


@DIRECTIONS
def test_the_winners_of_a_search_are_its_best_points_the_best_one_first(
    direction: str, tmp_path: Path, journal: Journal
) -> None:
    asked = sweep(tmp_path, SEARCH, direction)
    given = drive(source_for(asked, expand(asked), journal))
    ranked = sorted(rates(given, "search"), reverse=direction == "maximize")
    assert rates(given, "replicate") == ranked[:2]


@DIRECTIONS
def test_tuning_freezes_the_best_rate(direction: str, tmp_path: Path, journal: Journal) -> None:
    asked = sweep(tmp_path, TUNED, direction)
    given = drive(source_for(asked, expand(asked), journal))
    best = max if direction == "maximize" else min
    assert rates(given, "replicate") == [best(rates(given, "tuning"))]


@DIRECTIONS
def test_a_search_learns_towards_what_is_better(direction: str, tmp_path: Path, journal: Journal) -> None:
    text = SEARCH.replace("random, trials: 6", "tpe, trials: 30")
    asked = sweep(tmp_path, text, direction)
    searched = rates(drive(source_for(asked, expand(asked), journal)), "search")
    better = [rate > 3.2e-3 for rate in searched[15:]]  # the middle of the space on its logarithmic scale
    assert (sum(better) > 10) is (direction == "maximize")
    assert (sum(better) < 5) is (direction == "minimize")


def test_a_stopped_point_tells_the_search_how_far_it_came_and_wins_nothing(tmp_path: Path, journal: Journal) -> None:
    asked = sweep(tmp_path, SEARCH)
    source = source_for(asked, expand(asked), journal)
    assert isinstance(source, SearchedSource)
    given = drive(source, {0: "stopped", 1: "failed"})
    study: Any = source._search._study  # type: ignore[attr-defined]
    assert [trial.state for trial in study.trials[:3]] == [TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE]
    searched = rates(given, "search")
    assert study.trials[0].intermediate_values == {640: searched[0]}
    assert study.trials[2].value == searched[2]
    assert rates(given, "replicate") == sorted(searched[2:])[:2]


@DIRECTIONS
@pytest.mark.parametrize("role", ["replicate", "search"])
def test_the_model_of_the_best_finished_trial_stays(role: Role, direction: str, tmp_path: Path) -> None:
    asked = sweep(tmp_path, SEARCH, direction)
    scores: dict[str, tuple[Status, float]] = {
        "low": ("finished", 1.0),
        "high": ("finished", 2.0),
        "stopped low": ("stopped", 0.5),
        "stopped high": ("stopped", 2.5),
    }
    trials = tuple(record(name, role, status, {"validation/loss": value}) for name, (status, value) in scores.items())
    for trial in trials:
        (tmp_path / "trials" / trial.trial_id / "model").mkdir(parents=True)
    _keep_models(asked, expand(asked), tmp_path, trials)
    assert {path.parent.name for path in tmp_path.glob("trials/*/model")} == {
        "high" if direction == "maximize" else "low"
    }


@pytest.mark.parametrize(
    ("budget", "unit", "value"),
    [
        ("steps: 50", "steps", 10),
        ("steps: 2", "steps", 1),
        ("tokens: 1.0e+6", "tokens", 2e5),
        ("flops: 1.0e+9", "flops", 2e8),
    ],
)
def test_a_tuning_trial_has_its_share_of_any_budget_and_one_step_at_least(
    budget: str, unit: str, value: float, tmp_path: Path, journal: Journal
) -> None:
    asked = sweep(tmp_path, TUNED, budget=budget)
    first = source_for(asked, expand(asked), journal).propose()
    assert first is not None
    assert getattr(first.trial.training.budget, unit) == pytest.approx(value)
