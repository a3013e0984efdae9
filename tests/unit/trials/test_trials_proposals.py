"""From a file to its proposals: seeds, budgets, tuned values, roles; over a real journal, without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stackwise_ray.config.loading import load_sweep
from stackwise_ray.config.space.designs import expand
from stackwise_ray.config.space.sweep_config import SweepConfig
from stackwise_ray.core.comparison_records import read_questions
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.ownership import Owner, SweepLock
from stackwise_ray.core.records import TrialRecord
from stackwise_ray.distributed import driver
from stackwise_ray.distributed.driver import Options, SweepOutcome, _keep_models, _note, run_sweep
from stackwise_ray.distributed.ledger import Ledger
from stackwise_ray.distributed.messages import RunSettings
from stackwise_ray.distributed.session import Session
from stackwise_ray.sweep import SweepResult, print_answer
from stackwise_ray.terminal import make_console
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.trials.proposals import source_for
from stackwise_ray.trials.sources import Proposal, TrialSource
from tests.unit.trials.ended_trials import ended_trial

ARMS = """
name: arms
base:
  model: decoder/gpt2_family/tiny
  data: markov
  overrides: {training.budget: {steps: 50}}
design:
  kind: arms
  arms: {a: {}, b: {model.d_ff: 128}, own: {training.lr: 1.0e-2, model.d_ff: 64}}
  baseline: a
replicates: {seeds: [3, 5]}
"""
TUNE = "tune: {space: {training.lr: {log_uniform: [1e-4, 1e-1]}}, trials_per_arm: 3, budget_share: 0.2}\n"
SEARCH = """
name: search
base: {model: decoder/gpt2_family/tiny, data: markov, overrides: {training.budget: {steps: 50}}}
design: {kind: search}
search: {sampler: random, trials: 5, winners: 2, space: {training.lr: {log_uniform: [1e-4, 1e-1]}}}
replicates: {seeds: 2}
"""


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver without Ray: what is refused before a trial starts needs none."""

    @contextmanager
    def session(*arguments: object, **options: object) -> Iterator[Session]:
        yield Session(slots=1, gpus=0, temp_directory=None, raylet=None)

    monkeypatch.setattr("stackwise_ray.distributed.session.ray_session", session)


def source_of(asked: SweepConfig, journal: Journal) -> TrialSource:
    return source_for(asked, expand(asked), journal)


def note(asked: SweepConfig, directory: Path, journal: Journal, console: Console) -> None:
    _note(asked, expand(asked), directory, journal, console)


def sweep(tmp_path: Path, text: str) -> SweepConfig:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    return load_sweep(file)


def drive(sweep: SweepConfig, journal: Journal, loss: Any = lambda proposal: 1.0) -> list[Proposal]:
    source = source_for(sweep, expand(sweep), journal)
    proposals = []
    while (proposal := source.propose()) is not None:
        proposals.append(proposal)
        name = f"{proposal.arm}{proposal.seed}{proposal.trial.training.lr}"
        metrics = {"validation/loss": loss(proposal), "flops/total": 1.0}
        record = ended_trial(name, proposal.arm, proposal.seed, metrics, role=proposal.role)
        source.ended(proposal, record)
    assert source.exhausted
    return proposals


def test_every_arm_is_trained_on_every_seed_block_by_block(tmp_path: Path, journal: Journal) -> None:
    proposals = drive(sweep(tmp_path, ARMS), journal)
    assert [(p.seed, p.arm) for p in proposals] == [(3, "a"), (3, "b"), (3, "own"), (5, "a"), (5, "b"), (5, "own")]
    assert all(p.trial.seed == p.seed for p in proposals)


def test_tuning_is_short_on_a_seed_of_its_own_and_its_best_value_reaches_the_replicates(
    tmp_path: Path, journal: Journal
) -> None:
    proposals = drive(sweep(tmp_path, ARMS + TUNE), journal, lambda p: p.trial.training.lr)
    tuning = [p for p in proposals if p.role == "tuning"]
    assert {p.trial.training.budget.steps for p in tuning} == {10}
    assert {p.trial.seed for p in tuning}.isdisjoint({3, 5})
    assert len({p.trial.seed for p in tuning}) == 1
    rates = {arm: sorted(p.trial.training.lr for p in tuning if p.arm == arm) for arm in ("a", "b")}
    assert rates["a"] == rates["b"]
    assert len(rates["a"]) == 3
    assert not [p for p in tuning if p.arm == "own"], "an arm that sets the rate itself keeps it"
    for proposal in proposals:
        if proposal.role == "replicate":
            wanted = 1e-2 if proposal.arm == "own" else rates["a"][0]
            assert proposal.trial.training.lr == wanted
            assert proposal.trial.training.budget.steps == 50
    assert journal.decisions("tuning")["a"]["values"] == {"training.lr": rates["a"][0]}


def test_tuning_with_a_failed_trial_has_an_unknown_cost_and_not_that_of_the_others(
    tmp_path: Path, journal: Journal
) -> None:
    asked = sweep(tmp_path, ARMS + TUNE)
    drive(asked, journal)
    assert {payload["flops"] for payload in journal.decisions("tuning").values()} == {3}
    source = source_for(asked, expand(asked), journal)
    failed: set[str] = set()
    while (proposal := source.propose()) is not None:
        fails = proposal.role == "tuning" and proposal.arm == "a" and not failed
        failed |= {proposal.arm} if fails else set()
        source.ended(
            proposal,
            ended_trial(
                f"{proposal.arm}{proposal.parameters}",
                proposal.arm,
                proposal.seed,
                {} if fails else {"validation/loss": 1.0, "flops/total": 1.0},
                role=proposal.role,
                status="failed" if fails else "finished",
                reason="out of memory" if fails else None,
            ),
        )
    assert {arm: payload["flops"] for arm, payload in journal.decisions("tuning").items()} == {"a": None, "b": 3}


def test_a_maximised_metric_is_tuned_upwards(tmp_path: Path, journal: Journal) -> None:
    text = ARMS + TUNE + "objective: [{metric: validation/loss, direction: maximize}]\n"
    proposals = drive(sweep(tmp_path, text), journal, lambda p: p.trial.training.lr)
    highest = max(p.trial.training.lr for p in proposals if p.role == "tuning")
    assert {p.trial.training.lr for p in proposals if p.role == "replicate" and p.arm == "a"} == {highest}


@pytest.mark.parametrize(("winners", "score", "over"), [(2, 1.0, False), (0, 1.0, True), (2, None, True)])
def test_a_search_is_over_with_its_last_point_unless_a_point_can_win(
    winners: int, score: float | None, over: bool, tmp_path: Path, journal: Journal
) -> None:
    source = source_of(sweep(tmp_path, SEARCH.replace("winners: 2", f"winners: {winners}")), journal)
    for number in range(5):
        proposal = source.propose()
        assert proposal is not None
        assert not source.exhausted
        record = ended_trial(str(number), proposal.arm, 0, {} if score is None else {"validation/loss": score})
        source.ended(proposal, record)
    assert source.exhausted is over
    assert (source.propose() is None) is over


def test_the_best_points_of_a_search_are_its_winners(tmp_path: Path, journal: Journal) -> None:
    proposals = drive(sweep(tmp_path, SEARCH), journal, lambda p: p.trial.training.lr)
    points = sorted((p.trial.training.lr, p.arm) for p in proposals if p.role == "search")
    winners = [p for p in proposals if p.role == "replicate"]
    assert {p.arm for p in winners} == {arm for _, arm in points[:2]}
    assert sorted(p.seed for p in winners) == [0, 0, 1, 1]
    assert {p.seed for p in proposals if p.role == "search"}.isdisjoint({0, 1})


def test_a_changed_search_space_that_lost_a_known_point_is_refused_by_name(tmp_path: Path, journal: Journal) -> None:
    text = SEARCH.replace("{log_uniform: [1e-4, 1e-1]}", "[1e-3, 1e-2]")
    drive(sweep(tmp_path, text), journal)
    with pytest.raises(ConfigError, match=r"no longer contains training\.lr"):
        drive(sweep(tmp_path, text.replace("[1e-3, 1e-2]", "[5e-3, 6e-3]")), journal)


def test_a_reordered_list_means_the_same_points(tmp_path: Path, journal: Journal) -> None:
    text = SEARCH.replace("{log_uniform: [1e-4, 1e-1]}", "[1e-3, 1e-2, 1e-1]")
    before = [p.parameters for p in drive(sweep(tmp_path, text), journal) if p.role == "search"]
    text = text.replace("[1e-3, 1e-2, 1e-1]", "[1e-1, 1e-3, 1e-2]")
    assert [p.parameters for p in drive(sweep(tmp_path, text), journal) if p.role == "search"] == before


def test_points_that_contradict_themselves_are_not_drawn_and_do_not_stop_the_search(
    tmp_path: Path, journal: Journal
) -> None:
    space = "{model.n_heads: {int: [1, 8]}}"
    text = SEARCH.replace("{training.lr: {log_uniform: [1e-4, 1e-1]}}", space)
    heads = {p.trial.model.n_heads for p in drive(sweep(tmp_path, text), journal)}
    assert heads <= {1, 2, 4, 8}


def test_a_grid_larger_than_its_trials_is_refused(tmp_path: Path, journal: Journal) -> None:
    text = SEARCH.replace("sampler: random", "sampler: grid").replace(
        "{log_uniform: [1e-4, 1e-1]}", "[1e-4, 1e-3, 1e-2, 2e-2, 3e-2, 4e-2]"
    )
    with pytest.raises(ConfigError, match="less than the grid's 6 points"):
        source_of(sweep(tmp_path, text), journal)


def test_only_replicates_are_scored_on_whole_splits_and_only_search_trials_may_be_stopped(
    tmp_path: Path, journal: Journal
) -> None:
    settings = RunSettings(worker="no:no", objective="validation/loss", directory=tmp_path)
    point = Ledger(journal, source_of(sweep(tmp_path, SEARCH), journal), settings, lambda data: "f").next("t")
    assert point is not None
    assert (point.may_be_stopped, point.final_evaluation) == (True, False)
    replicate = Ledger(journal, source_of(sweep(tmp_path, ARMS), journal), settings, lambda data: "f").next("t")
    assert replicate is not None
    assert (replicate.may_be_stopped, replicate.final_evaluation) == (False, True)


def test_a_whole_split_metric_cannot_choose_among_short_trials(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only replicates score those"):
        sweep(tmp_path, SEARCH + "objective: [{metric: test/loss}]\n")


def finished(arm: str, loss: float) -> TrialRecord:
    return ended_trial(f"{arm}-{loss}", arm, 0, {"validation/loss": loss})


def test_the_models_of_each_arms_best_replicate_stay(tmp_path: Path) -> None:
    trials = (finished("a", 1.0), finished("a", 2.0), finished("b", 3.0))
    for record in trials:
        (tmp_path / "trials" / record.trial_id / "model").mkdir(parents=True)
    _keep_models(sweep(tmp_path, ARMS), expand(sweep(tmp_path, ARMS)), tmp_path, trials)
    kept = {path.parent.name for path in tmp_path.glob("trials/*/model")}
    assert kept == {"a-1.0", "b-3.0"}


def test_the_declared_arms_are_noted_before_any_of_them_begins(tmp_path: Path, journal: Journal) -> None:
    note(sweep(tmp_path, ARMS), tmp_path, journal, make_console())
    assert read_questions({"questions": journal.get_meta("questions")}).arms == ("a", "b", "own")


def test_an_outcome_with_failures_or_problems_ends_with_exit_code_1(tmp_path: Path) -> None:
    record = finished("a", 1.0)
    assert SweepOutcome(directory=tmp_path, trials=(record,), failed=()).exit_code == 0
    assert SweepOutcome(directory=tmp_path, trials=(record,), failed=(record,)).exit_code == 1
    assert SweepOutcome(directory=tmp_path, trials=(record,), failed=(), problems=("x",)).exit_code == 1


def test_a_changed_analysis_is_an_amendment_only_after_the_first_trial(tmp_path: Path, journal: Journal) -> None:
    console = make_console()
    compare = "analysis: [{compare: {metric: validation/loss, margin: %s}}]\n"
    note(sweep(tmp_path, ARMS + compare % 0.1), tmp_path, journal, console)
    note(sweep(tmp_path, ARMS + compare % 0.2), tmp_path, journal, console)
    assert journal.get_meta("analysis_plan_amended_after") is None
    journal.add_trial(finished("a", 1.0))
    note(sweep(tmp_path, ARMS + compare % 0.3), tmp_path, journal, console)
    assert journal.get_meta("analysis_plan_amended_after") == 1
    note(sweep(tmp_path, ARMS + compare % 0.2), tmp_path, journal, console)
    assert journal.get_meta("analysis_plan_amended_after") is None


# ------------------------------------------------------------------------------------------------ planning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ARMS.replace("[3, 5]", "100000000"), "replicates.seeds = 100,000,000 is more than 10,000"),
        (SEARCH.replace("winners: 2", "winners: 6"), "search.winners = 6 is more than the 5 trials"),
    ],
)
def test_numbers_that_nobody_means_are_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(tmp_path, text)


def test_tuning_trials_are_evaluated_once_and_replicates_as_asked(tmp_path: Path, journal: Journal) -> None:
    text = ARMS.replace("{training.budget: {steps: 50}}", "{training.budget: {steps: 50}, training.evaluations: 4}")
    proposals = drive(sweep(tmp_path, text + TUNE), journal)
    evaluations = {(p.role, p.trial.training.evaluations) for p in proposals}
    assert evaluations == {("tuning", 1), ("replicate", 4)}


# ------------------------------------------------------------------------------------------------ refusals


def refused(tmp_path: Path, directory: Path) -> None:
    """A run that the plan refuses, after the lock is taken."""
    asked = sweep(tmp_path, ARMS + "limits: {flops: 1}\n")
    with pytest.raises(ConfigError, match=r"limits\.flops"):
        run_sweep(asked, expand(asked), directory, make_console(), Options())


def test_a_refused_command_leaves_no_folder_of_its_own(tmp_path: Path, no_ray: None) -> None:
    refused(tmp_path, tmp_path / "out" / "arms")
    assert not (tmp_path / "out" / "arms").exists()


def test_a_refused_command_deletes_nothing_that_was_there_before(tmp_path: Path, no_ray: None) -> None:
    directory = tmp_path / "out" / "arms"
    directory.mkdir(parents=True)
    (directory / "notes.txt").write_text("mine")
    refused(tmp_path, directory)
    assert (directory / "notes.txt").read_text() == "mine"


def test_a_command_that_is_refused_by_the_lock_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one may have made the folder a moment after this one looked."""
    directory = tmp_path / "out" / "arms"
    asked = sweep(tmp_path, ARMS)
    # The other command wins the race in the moment between two of our lines, which no timing brings about reliably.
    monkeypatch.setattr(driver, "_make_directory", lambda path: bool(directory.mkdir(parents=True)) or True)
    monkeypatch.setattr(Owner, "is_alive", lambda self: True)

    def taken_meanwhile(path: Path) -> SweepLock:
        SweepLock(path).acquire()
        return SweepLock(path)

    monkeypatch.setattr(driver, "SweepLock", taken_meanwhile)
    with pytest.raises(ConfigError, match="this sweep is running in"):
        run_sweep(asked, expand(asked), directory, make_console(), Options())
    assert directory.is_dir()


def test_a_sweep_that_ends_before_its_first_trial_is_answered_without_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = SweepOutcome(directory=tmp_path, trials=(), failed=(), problems=("limits.wall_hours is used up",))
    print_answer(SweepResult(directory=tmp_path, failed=(), outcome=outcome), make_console(), as_json=False)
    assert "problem: limits.wall_hours is used up" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ planning
