"""Sweeps that add seeds until they have decided: what their report says, and that it is what ended each arm."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
from command_line import run
from synthetic_sweeps import JournalBuilder, final_metrics

from analysis import AnalysisError, compare_sequentially, load_runs, summary_table, write_report
from analysis.anytime.adaptive_verdicts import is_undecided
from analysis.plain_json import dump_json
from analysis.report.compose import compose
from analysis.report.page import to_markdown
from analysis.report.pictures import Pictures
from analysis.table.sweep_directory import read_sweep

EFFECTS = {"base": 0.0, "far": -0.5, "near": 0.004}


def loss(arm: str, seed: int) -> float:
    return 2.0 + 0.05 * seed + EFFECTS[arm] + random.Random(100 * len(arm) + seed).gauss(0, 0.02)


def write_adaptive(folder: Path, *, most: int = 6, failing: tuple[str, ...] = ()) -> Path:
    """A sweep in which `far` stopped at 4 seeds and `near` went on to the most; rows in the order of their ends."""
    builder = JournalBuilder(folder)
    cells = [(arm, seed) for arm in EFFECTS for seed in range(4 if arm == "far" else most)]
    random.Random(0).shuffle(cells)
    for arm, seed in cells:
        if arm in failing:
            builder.trial(arm, seed, status="failed", reason="loss is NaN at step 3")
        else:
            builder.trial(arm, seed, final_metrics(loss(arm, seed)))
    builder.meta(
        sweep={
            "name": "adaptive",
            "question": "Which is better?",
            "design": {"kind": "arms", "arms": {arm: {} for arm in EFFECTS}, "baseline": "base"},
            "replicates": {"seeds": {"min": 3, "max": most, "until": "decided"}, "block": "seed"},
            "objective": [{"metric": "validation/loss", "direction": "minimize"}],
            "analysis": [{"compare": {"metric": "validation/loss", "correction": "holm", "test": "t"}}],
        }
    )
    return builder.close()


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a sweep with its report; for tests that only read."""
    folder = write_adaptive(tmp_path_factory.mktemp("adaptive") / "s")
    write_report(folder)
    return folder


def test_the_verdict_says_that_it_holds_at_any_time_and_at_which_seed_it_was_decided(reported: Path) -> None:
    text = (reported / "report" / "report.md").read_text(encoding="utf-8")
    assert "**Answer.** far reaches 0.49 nats lower validation loss than base" in text
    assert "far: decided after 4 of 4 blocks, with seed 3" in text
    assert "Undecided: near. A higher replicates.seeds.max may decide." in text
    assert "valid at any time" in text
    assert "each arm at level 0.025" in text
    assert "t test" not in text
    assert "adjusted p" not in text
    assert "permutation" not in text


def test_the_report_prints_the_verdict_that_ended_each_arm(reported: Path) -> None:
    folder = reported
    (found,) = summary_table(folder).sequential
    sweep = read_sweep(folder)
    trials, comparison = [trial for trial in sweep.trials if trial.status == "finished"], sweep.questions.comparisons[0]

    def asked(arm: str, n: int) -> bool:
        return is_undecided([t for t in trials if t.arm in (arm, "base") and t.seed < n], arm, comparison)

    assert [asked("far", n) for n in (2, 3, 4)] == [True, True, False]
    assert all(asked("near", n) for n in range(2, 7))
    assert found["far"].decided_at == 4
    assert found["near"].decision == "undecided"
    assert found.blocks["near"] == ("0", "1", "2", "3", "4", "5")  # by seed, though the journal holds another order
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    for arm in ("far", "near"):
        (saved,) = json.loads((folder / "report/comparisons" / f"comparison_{arm}_vs_base.json").read_text())[
            "comparisons"
        ]
        assert saved["result"]["decision"] == found[arm].decision
        assert saved["result"]["decided_at"] == found[arm].decided_at
        assert found[arm].difference_text in text


def test_a_sweep_is_adaptive_as_soon_as_one_of_its_comparisons_is_and_not_without_any(tmp_path: Path) -> None:
    sweep = read_sweep(write_adaptive(tmp_path / "s"))
    (adaptive,) = sweep.questions.comparisons
    for tests, expected in (((), False), (("t",), False), (("t", "mixture_t"), True), (("mixture_t", "t"), True)):
        comparisons = [asdict(replace(adaptive, test=test)) for test in tests]
        questions = {**sweep.questions.to_plain(), "comparisons": comparisons}
        assert replace(sweep, meta={**sweep.meta, "questions": questions}).is_adaptive is expected


def test_an_arm_that_never_finished_counts_in_the_level_of_the_others(tmp_path: Path) -> None:
    folder = write_adaptive(tmp_path / "s", failing=("near",))
    summary = summary_table(folder)
    (found,) = summary.sequential
    assert found["far"].alpha == 0.025
    assert found["near"].n == 0
    (comparison,) = read_sweep(folder).questions.comparisons
    trials = [trial for trial in read_sweep(folder).trials if trial.arm == "base"]
    assert not is_undecided(trials, "near", comparison)  # no seed mends an arm that has never finished
    assert not is_undecided([], "near", comparison)
    assert "loss is NaN at step 3" in to_markdown(compose(summary, Pictures()), folder)


def test_a_family_smaller_than_the_table_is_refused(tmp_path: Path) -> None:
    runs = load_runs(write_adaptive(tmp_path / "s"))
    with pytest.raises(AnalysisError, match="family = 1 is below the 2 arms"):
        compare_sequentially(runs, "validation/loss", "base", family=1)
    assert compare_sequentially(runs, "validation/loss", "base", family=5)["far"].alpha == 0.01


def write_begun(folder: Path, *, adaptive: bool) -> Path:
    """Five arms are declared and two have begun; the baseline comes last in the file."""
    builder = JournalBuilder(folder)
    for arm, effect in {"base": 0.0, "far": 0.075}.items():
        for seed in range(6):
            own = random.Random(f"{arm} {seed}").gauss(0, 0.02)
            builder.trial(arm, seed, final_metrics(2.0 + 0.05 * seed + effect + own))
    seeds = {"min": 3, "max": 9, "until": "decided"} if adaptive else 6
    arms = ["far", "near", "third", "fourth", "base"]
    builder.meta(
        arms=arms,
        sweep={
            "name": "begun",
            "design": {"kind": "arms", "arms": {arm: {} for arm in arms}, "baseline": "base"},
            "replicates": {"seeds": seeds, "block": "seed"},
            "analysis": [{"compare": {"metric": "validation/loss"}}],
        },
    )
    return builder.close()


def test_arms_that_have_not_begun_count_in_the_level_and_the_report_decides_what_the_driver_does(
    tmp_path: Path,
) -> None:
    folder = write_begun(tmp_path / "s", adaptive=True)
    summary = summary_table(folder)
    (found,) = summary.sequential
    trials = read_sweep(folder).trials
    assert found["far"].alpha == 0.05 / 4
    assert found["far"].decision == "undecided"
    (comparison,) = read_sweep(folder).questions.comparisons
    assert is_undecided(trials, "far", comparison)
    assert not is_undecided(trials, "far", replace(comparison, family=("far",)))  # what the arms that began decide
    text = summary.grid().to_text() + found.grid.to_text()
    assert "level 0.05 over 4 arms" in text
    assert "3 of the 4 arms have no run yet" in text
    assert text.count("undecided (no run)") == 3


def test_holm_counts_the_arms_that_have_not_begun(tmp_path: Path) -> None:
    (found,) = summary_table(write_begun(tmp_path / "s", adaptive=False)).comparisons
    assert found["far"].p_adjusted == pytest.approx(4 * found["far"].p)
    assert "3 of the 4 arms have no run yet" in " ".join(found.remarks())


@pytest.mark.parametrize("write", [write_adaptive, partial(write_begun, adaptive=True)])
def test_the_command_line_decides_a_sweep_as_its_report_does(write, tmp_path: Path, capsys) -> None:
    folder = write(tmp_path / "s")
    _, out, _ = run(capsys, "sequential", folder, "--json")
    (found,) = summary_table(folder).sequential
    assert json.loads(out) == json.loads(dump_json(found.to_dict()))


@pytest.mark.parametrize(
    ("wrong", "words"), [({"alpha": 0.7}, "alpha"), ({"margin": -1.0}, "margin"), ({"tolerance": 2.0}, "tolerance")]
)
def test_an_argument_outside_its_range_is_not_taken_for_a_decision(tmp_path: Path, wrong: dict, words: str) -> None:
    sweep = read_sweep(write_adaptive(tmp_path / "s"))
    (comparison,) = sweep.questions.comparisons
    with pytest.raises(AnalysisError, match=words):
        is_undecided(sweep.trials, "near", replace(comparison, **wrong))


def test_whether_seeds_were_added_is_what_the_journaled_questions_say(tmp_path: Path) -> None:
    sweep = read_sweep(write_adaptive(tmp_path / "s"))
    fixed = {**sweep.file, "replicates": {"seeds": 3}}
    assert sweep.is_adaptive
    assert replace(sweep, meta={**sweep.meta, "sweep": fixed}).is_adaptive
    comparisons = [{**asked, "test": "t"} for asked in sweep.meta["questions"]["comparisons"]]
    questions = {**sweep.meta["questions"], "comparisons": comparisons}
    assert not replace(sweep, meta={**sweep.meta, "questions": questions}).is_adaptive
