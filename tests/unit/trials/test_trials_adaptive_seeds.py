"""Adaptive replicates over a real journal: who gets another seed, whatever the order in which trials end."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from stackwise_ray.config.loading import load_sweep
from stackwise_ray.config.space.designs import expand
from stackwise_ray.config.space.sweep_config import SweepConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.distributed.ledger import Ledger
from stackwise_ray.distributed.messages import Assignment, Failed, Outcome, RunSettings
from stackwise_ray.planning.plan_display import plan_table
from stackwise_ray.planning.preparation import PreparedCorpora
from stackwise_ray.planning.sweep_plan import SweepPlan
from stackwise_ray.sweep import _anytime_verdicts, _status
from stackwise_ray.terminal import make_console
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.trials.proposals import plan_sweep, source_for
from tests.unit.distributed.test_distributed_ledger import finished, report
from tests.unit.trials.ended_trials import ended_trial

SWEEP = """
name: adaptive
base:
  model: decoder/gpt2_family/tiny
  data: markov
  overrides: {training.budget: {steps: 50}}
design:
  kind: arms
  arms: {far: {training.lr: 2.0e-3}, base: {}, near: {training.lr: 4.0e-3}}
  baseline: base
replicates: {seeds: {min: 3, max: 9, until: decided}}
analysis:
  - compare: {metric: validation/loss, margin: 0.02}
"""
TUNE = "tune: {space: {optimizer.weight_decay: [0.0, 0.1]}, trials_per_arm: 2}\n"
Loss = Callable[[str, int], float | None]


def sweep(folder: Path, *words: str, text: str = SWEEP) -> SweepConfig:
    file = folder / "sweep.yaml"
    file.write_text(text)
    return load_sweep(file, words)


def noise(arm: str, seed: int, scale: float) -> float:
    return random.Random(f"{arm} {seed}").gauss(0, scale)


def losses(arm: str, seed: int) -> float:
    """`far` is far better; `near` lies where nine noisy seeds do not tell it from the baseline, nor make it equal."""
    effect = {"base": 0.0, "far": -1.0, "near": 0.01}[arm]
    return 3.0 + 0.1 * seed + effect + noise(arm, seed, 0.03)


def ledger_over(journal: Journal, asked: SweepConfig) -> Ledger:
    settings = RunSettings(worker="not:run", objective="validation/loss", directory=journal.path.parent)
    return Ledger(
        journal, source_for(asked, expand(asked), journal, _anytime_verdicts()), settings, lambda data: "fingerprint"
    )


def planned(asked: SweepConfig) -> SweepPlan:
    return plan_sweep(asked, expand(asked), PreparedCorpora(), verdicts=_anytime_verdicts())


def drive(
    journal: Journal, asked: SweepConfig, loss: Loss = losses, *, order: int = 0, slots: int = 4, most: int = 10**6
) -> Ledger:
    """Run the ledger on `slots` slots, trials ending in a random order; stop (as if killed) after `most` ends."""
    ledger, choose = ledger_over(journal, asked), random.Random(order)
    running: dict[str, Assignment] = {}
    number = ended = 0
    while ended < most:
        while len(running) < slots and (config := ledger.next(f"t{number}")) is not None:
            running[f"t{number}"] = config
            number += 1
        if not running:
            assert ledger.finished
            return ledger
        name = choose.choice(sorted(running))
        trial, config = ledger.running[name].proposal, running.pop(name)
        value = loss(trial.arm, trial.seed)
        outcome: Outcome = Failed(reason="diverged")
        if value is not None:
            outcome = finished(**{"validation/loss": value, "flops/total": 1.0})
        ledger.result(name, 1, report(config, outcome=outcome))
        ended += 1
    journal.interrupt_dangling("killed")
    return ledger


def seeds(journal: Journal, role: str = "replicate") -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for trial in journal.trials():
        if trial.role == role:
            found.setdefault(trial.arm, []).append(trial.seed)
    return {arm: sorted(numbers) for arm, numbers in found.items()}


def test_only_an_open_verdict_gets_more_seeds_and_the_baseline_gets_them_with_it(
    tmp_path: Path, journal: Journal
) -> None:
    ledger = drive(journal, sweep(tmp_path))
    assert seeds(journal) == {"far": [0, 1, 2, 3], "near": list(range(9)), "base": list(range(9))}
    assert ledger.source.exhausted
    assert ledger.source.expected() == len(journal.trials()) == 22


def test_nobody_gets_more_than_the_least_where_all_is_decided(tmp_path: Path, journal: Journal) -> None:
    asked = sweep(tmp_path, "replicates.seeds.min=5")
    effects = {"base": 0.0, "far": -1.0, "near": 0.5}
    drive(journal, asked, lambda arm, seed: 3.0 + effects[arm] + noise(arm, seed, 1e-3), slots=1)
    assert seeds(journal) == {arm: list(range(5)) for arm in effects}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """The seeds of a sweep whose trials run one after another and that nobody kills."""
    folder = tmp_path_factory.mktemp("whole")
    with Journal(folder / "whole.sqlite") as whole:
        drive(whole, sweep(folder), slots=1)
        return seeds(whole)


@pytest.mark.parametrize("order", [0, 3, 5])
def test_what_is_trained_does_not_depend_on_what_ends_first_nor_on_where_it_was_killed(
    tmp_path: Path, wanted: dict[str, list[int]], order: int
) -> None:
    with Journal(tmp_path / "killed.sqlite") as killed:
        drive(killed, sweep(tmp_path), order=order, slots=3, most=3 * order + 2)
        assert len([t for t in killed.trials() if t.status == "finished"]) == 3 * order + 2
        drive(killed, sweep(tmp_path), order=order + 100, slots=2)
        assert seeds(killed) == wanted
        again = ledger_over(killed, sweep(tmp_path))
        assert not again.anything_to_run()
        assert again.finished
        assert len(again.trial_set) == len(killed.trials())


def test_a_higher_most_goes_on_where_the_last_command_stopped(tmp_path: Path, journal: Journal) -> None:
    drive(journal, sweep(tmp_path, "replicates.seeds.max=6"))
    assert seeds(journal)["near"] == list(range(6))
    drive(journal, sweep(tmp_path))
    assert seeds(journal)["near"] == list(range(9))
    assert all(trial.attempts == 1 for trial in journal.trials())


def test_an_arm_that_always_fails_gets_no_more_seeds_and_one_that_fails_once_does(
    tmp_path: Path, journal: Journal
) -> None:
    def loss(arm: str, seed: int) -> float | None:
        return None if arm == "far" or (arm, seed) == ("near", 1) else losses(arm, seed)

    drive(journal, sweep(tmp_path), loss)
    assert seeds(journal) == {"far": [0, 1, 2], "near": list(range(9)), "base": list(range(9))}


def test_budgets_that_differ_are_no_reason_for_more_seeds(tmp_path: Path, journal: Journal) -> None:
    asked = sweep(tmp_path, "analysis.0.compare.equal=flops")
    source = source_for(asked, expand(asked), journal, _anytime_verdicts())
    given = []
    while (proposal := source.propose()) is not None:
        given.append((proposal.arm, proposal.seed))
        metrics = {"validation/loss": losses(proposal.arm, proposal.seed), "flops/total": 1.0 + len(proposal.arm)}
        source.ended(
            proposal,
            ended_trial(f"{proposal.arm}{proposal.seed}", proposal.arm, proposal.seed, metrics),
        )
    assert source.exhausted
    assert {seed for arm, seed in given if arm == "far"} == {0, 1, 2}
    assert {seed for arm, seed in given if arm == "near"} == {0, 1, 2, 3, 4, 5, 6, 7, 8}  # it has the baseline's FLOPs


def test_a_source_is_not_exhausted_while_a_trial_is_out_whose_end_may_ask_for_more(
    tmp_path: Path, journal: Journal
) -> None:
    asked = sweep(tmp_path)
    source = source_for(asked, expand(asked), journal, _anytime_verdicts())
    given = []
    while (proposal := source.propose()) is not None:
        given.append(proposal)
    assert [(p.seed, p.arm) for p in given[:4]] == [(0, "far"), (0, "base"), (0, "near"), (1, "far")]
    assert len(given) == source.expected() == 9
    assert not source.exhausted


def test_further_seeds_are_trained_with_the_tuned_values(tmp_path: Path, journal: Journal) -> None:
    drive(journal, sweep(tmp_path, text=SWEEP + TUNE), lambda arm, seed: losses(arm, seed % 1000))
    replicates = [trial for trial in journal.trials() if trial.role == "replicate"]
    assert max(trial.seed for trial in replicates) == 8
    for arm in ("far", "base", "near"):
        configs = [{**trial.config, "seed": 0} for trial in replicates if trial.arm == arm]
        assert all(config == configs[0] for config in configs)
        assert len({trial.trial_id for trial in replicates if trial.arm == arm}) == len(configs)
    assert set(seeds(journal, "tuning")) == {"far", "base", "near"}


def test_the_plan_prints_the_least_and_the_most_and_when_a_decision_is_possible(tmp_path: Path) -> None:
    plan = planned(sweep(tmp_path))
    assert plan.least is not None
    (flops,) = {row.flops for row in plan.rows}
    assert (plan.least.trials, plan.trials) == (12, 27)  # 4 seeds: at level 0.05 / 2 three decide nothing
    assert (plan.least.flops, plan.flops) == (12 * flops, 27 * flops)
    facts = plan.to_dict()
    assert facts["seeds_possible"] == 4
    assert facts["totals"]["trials"] == 27
    assert facts["totals_least"]["trials"] == 12
    console = make_console()
    with console.capture() as printed:
        console.print(plan_table(plan))
    text = " ".join(printed.get().split())
    assert "12 to 27 trials" in text
    assert "seeds_possible = 4" in text
    assert "4–9" in text


def test_limits_are_held_against_the_most(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"limits.trials = 26 is below the 27 trials planned"):
        sweep(tmp_path, "limits.trials=26")
    flops = planned(sweep(tmp_path)).flops
    with pytest.raises(ConfigError, match=r"limits.flops"):
        planned(sweep(tmp_path, f"limits.flops={flops - 1}"))
    planned(sweep(tmp_path, f"limits.flops={flops}"))


def test_a_most_at_which_nothing_can_be_decided_is_refused(tmp_path: Path) -> None:
    asked = sweep(tmp_path, "replicates.seeds={min: 2, max: 3}")
    with pytest.raises(ConfigError, match=r"seeds.max = 3: no verdict is possible before 4 seeds"):
        planned(asked)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("analysis=[]", "no comparison is declared"),
        ("analysis.0.compare.test=wilcoxon", "adaptive replicates have a test of their own"),
        ("analysis.0.compare.correction=none", "decide each of m arms at alpha / m"),
        ("analysis.0.compare.alpha=0.7", "analysis.0.compare.alpha = 0.7"),
        ("replicates.seeds.max=2", "is not above min = 3"),
    ],
)
def test_what_has_no_effect_beside_adaptive_replicates_is_refused(tmp_path: Path, word: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sweep(tmp_path, word)
    assert words in str(caught.value)


def test_the_status_of_a_decided_sweep_owes_no_trial(
    tmp_path: Path, journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = sweep(tmp_path)
    drive(journal, asked)
    plan = planned(asked)
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_dict()))
    _status(asked, tmp_path, make_console(), as_json=False)
    assert capsys.readouterr().out.strip() == "adaptive: 22 finished, of 12 to 27 in its plan"


def test_the_status_says_how_many_trials_are_of_an_earlier_version(
    tmp_path: Path, journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = sweep(tmp_path)
    drive(journal, asked)
    plan = planned(asked).to_dict()
    for totals in ("totals", "totals_least"):
        plan[totals]["trials"] = 20
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    _status(asked, tmp_path, make_console(), as_json=False)
    assert capsys.readouterr().out.split("\n")[1].strip() == (
        "2 of them belong to an earlier version of the sweep or of a plugin"
    )


def test_seeds_are_added_until_non_inferiority_is_decided(tmp_path: Path, journal: Journal) -> None:
    words = ("analysis.0.compare.hypothesis=non_inferior", "analysis.0.compare.margin=0.2")
    drive(journal, sweep(tmp_path, *words))
    found = seeds(journal)
    assert found["far"] == [0, 1, 2]  # better, at the first look at which one side can decide
    assert len(found["near"]) < 9  # .01 worse, by a margin of .2: non-inferior soon, and never found to differ
    plan = planned(sweep(tmp_path, *words))
    assert plan.seeds_possible == 3  # one-sided at level .05 / 2
    assert any("(non-inferiority) at any time" in note for note in plan.notes)


def test_with_a_target_an_arm_gets_seeds_by_itself(tmp_path: Path, journal: Journal) -> None:
    asked = sweep(tmp_path, "analysis.0.compare.target=3.1", "analysis.0.compare.margin=null")
    drive(journal, asked, lambda arm, seed: losses(arm, 0) + noise(arm, seed, 0.03) + (0.1 if arm == "near" else 0.0))
    found = seeds(journal)
    assert found["far"] == [0, 1, 2, 3]
    assert found["near"] == list(range(9))
    assert len(found["base"]) < 9
    assert planned(asked).least is not None


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("hypothesis=non_inferior", "analysis.0.compare.hypothesis: hypothesis = non_inferior needs a margin"),
        ("side=better", None),
        ("side=upper", "analysis.0.compare.side"),
        ("target=3.0", None),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_with_its_place(tmp_path: Path, word: str, said: str | None) -> None:
    words = (f"analysis.0.compare.{word}", "analysis.0.compare.margin=null")
    if said is None:
        expand(sweep(tmp_path, *words))
        return
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        expand(sweep(tmp_path, *words))


def test_a_target_excludes_a_baseline_and_a_budget_of_its_own(tmp_path: Path) -> None:
    for word, said in (("baseline=base", "target = 3 and baseline = base"), ("equal=flops", "equal = flops, and a")):
        with pytest.raises(ConfigError, match=said):
            expand(sweep(tmp_path, "analysis.0.compare.target=3.0", f"analysis.0.compare.{word}"))
