"""Which way is better: one answer for a metric, whatever objective of the sweep names it and whatever reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import run
from synthetic_sweeps import JournalBuilder, final_metrics

import analysis
from analysis import summary_table, write_report
from analysis.report.compose import compose
from analysis.report.page import to_markdown
from analysis.report.pictures import Pictures
from analysis.report.verification import verify_report
from analysis.table.sweep_directory import read_sweep
from stackwise_ray.config.loading import load_sweep
from stackwise_ray.config.space.designs import expand
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.distributed.driver import _note
from stackwise_ray.distributed.ledger import Ledger
from stackwise_ray.distributed.messages import Finished, Report, RunSettings
from stackwise_ray.sweep import _anytime_verdicts
from stackwise_ray.terminal import make_console
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.trials.proposals import source_for

SPEEDS = {"slow": 50_000.0, "fast": 80_000.0}
BOTH = [
    {"metric": "validation/loss", "direction": "minimize"},
    {"metric": "throughput/tokens_per_s", "direction": "maximize"},
]


def write_speeds(folder: Path, *, seeds: Any = 6, objective: Any = BOTH) -> Path:
    """Two arms whose losses are alike and whose speeds are not; the faster one is compared with the slower."""
    builder = JournalBuilder(folder)
    for seed in range(6):
        for arm, speed in SPEEDS.items():
            builder.trial(arm, seed, final_metrics(2.0 + 0.01 * seed, speed=speed * (1 + 0.002 * (seed % 3))))
    builder.meta(
        arms=list(SPEEDS),
        sweep={
            "name": "speeds",
            "design": {"kind": "arms", "arms": {arm: {} for arm in SPEEDS}, "baseline": "slow"},
            "replicates": {"seeds": seeds, "block": "seed"},
            "objective": objective,
            "analysis": [{"compare": {"metric": "throughput/tokens_per_s", "correction": "holm", "test": "t"}}],
        },
    )
    return builder.close()


def test_the_faster_arm_is_better_where_the_second_objective_says_so(tmp_path: Path) -> None:
    folder = write_speeds(tmp_path / "s")
    summary = summary_table(folder)
    (found,) = summary.comparisons
    assert found["fast"].verdict == "better"
    assert summary.verdict.startswith("fast reaches 30.1k tokens per second higher training speed than slow")
    assert summary.verdict in to_markdown(compose(summary, Pictures()), folder)


def test_the_faster_arm_is_better_where_verdicts_decide_on_the_seeds(tmp_path: Path) -> None:
    summary = summary_table(write_speeds(tmp_path / "s", seeds={"min": 3, "max": 9, "until": "decided"}))
    (found,) = summary.sequential
    assert found["fast"].decision == "better"
    assert "(higher is better)" in summary.grid().title
    assert summary.verdict.endswith("; the difference is decided (better).")


FILE = """
name: speeds
base: {model: decoder/gpt2_family/tiny, data: markov, overrides: {training.budget: {steps: 50}}}
design: {kind: arms, arms: {slow: {}, fast: {training.lr: 2.0e-3}}, baseline: slow}
replicates: {seeds: %s}
%s
analysis: [{compare: {metric: throughput/tokens_per_s}}]
"""
SECOND = "objective: [{metric: validation/loss}, {metric: throughput/tokens_per_s, direction: maximize}]"
ADAPTIVE = "{min: 3, max: 9, until: decided}"


def driven(folder: Path, text: str) -> Path:
    """The folder of a sweep as the driver leaves it, its trials answered at once with the speeds of their arms."""
    folder.mkdir()
    file = folder / "space.yaml"
    file.write_text(text)
    sweep = load_sweep(file)
    design = expand(sweep)
    with Journal(folder / "journal.sqlite") as journal:
        _note(sweep, design, folder, journal, make_console())
        settings = RunSettings(worker="not:run", objective="validation/loss", directory=folder)
        source = source_for(sweep, design, journal, _anytime_verdicts())
        ledger = Ledger(journal, source, settings, lambda data: "fingerprint")
        number = 0
        while ledger.next(f"t{number}") is not None:
            trial = ledger.running[f"t{number}"].proposal
            speed = SPEEDS[trial.arm] * (1 + 0.002 * (trial.seed % 3))
            metrics = final_metrics(2.0 + 0.01 * trial.seed, speed=speed) | {"steps/total": 50.0}
            ledger.result(f"t{number}", 1, Report(outcome=Finished(metrics=metrics, environment={})))
            number += 1
        journal.put_meta("trial_set", list(ledger.trial_set.values()))
    return folder


@pytest.mark.parametrize("objective", [SECOND, "", "objective: [{metric: throughput/tokens_per_s}]"])
def test_the_driver_notes_which_way_is_better_whoever_wrote_it_or_nobody(tmp_path: Path, objective: str) -> None:
    folder = driven(tmp_path / "s", FILE % (6, objective))
    summary = summary_table(folder)
    (found,) = summary.comparisons
    assert found["fast"].verdict == "better"
    assert summary.verdict.endswith("than slow at equal steps; the difference is decided (better).")


def test_the_report_says_it_and_is_verified(tmp_path: Path) -> None:
    folder = driven(tmp_path / "s", FILE % (6, SECOND))
    assert "the difference is decided (better)" in write_report(folder).report.with_suffix(".md").read_text(
        encoding="utf-8"
    )
    assert verify_report(folder).differences == ()


def test_adaptive_seeds_stop_at_the_verdict_that_the_report_prints(tmp_path: Path) -> None:
    folder = driven(tmp_path / "s", FILE % (ADAPTIVE, SECOND))
    (found,) = summary_table(folder).sequential
    assert found["fast"].decision == "better"
    assert found["fast"].decided_at == found["fast"].n < 9  # the driver stopped where the report says it was decided
    (asked,) = read_sweep(folder).questions.comparisons
    assert (asked.direction, asked.test, asked.family, asked.declared) == ("maximize", "mixture_t", ("fast",), True)


def test_a_suggested_comparison_has_the_direction_of_the_first_objective(tmp_path: Path) -> None:
    text = (FILE % (6, "objective: [{metric: throughput/tokens_per_s}]")).replace("analysis:", "analysis: [] #")
    summary = summary_table(driven(tmp_path / "s", text))
    assert not summary.declared
    assert summary.comparisons[0]["fast"].verdict == "better"


def test_a_metric_that_the_file_does_not_compare_has_its_own_direction_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = driven(tmp_path / "s", (FILE % (6, "")).replace("throughput/tokens_per_s", "validation/loss"))
    for command in ("compare", "sequential"):
        words = (command, folder, "--metric", "throughput/tokens_per_s", "--equal", "none", "--json")
        code, out, _ = run(capsys, *words)
        assert code == 0
        found = json.loads(out)
        assert (found["direction"], found["assumed"]) == ("maximize", False)


def test_two_directions_of_one_metric_are_refused(tmp_path: Path) -> None:
    text = (FILE % (6, SECOND)).replace("{compare: {", "{compare: {direction: minimize, ")
    file = tmp_path / "space.yaml"
    file.write_text(text)
    with pytest.raises(
        ConfigError, match=r"direction = minimize, but objective\.1\.direction = maximize for the same metric"
    ):
        load_sweep(file)


def table(metric: str) -> pd.DataFrame:
    rows = [
        {"arm": arm, "seed": seed, metric: value + 0.001 * seed**2}
        for seed in range(6)
        for arm, value in {"a": 0.5, "b": 0.5 + 0.1 + 0.001 * seed}.items()
    ]
    return pd.DataFrame(rows)


def test_anybodys_metric_is_minimised_and_the_sentence_calls_that_assumed() -> None:
    for found in (
        analysis.compare(table("score"), "score", "a", equal=None),
        analysis.compare_sequentially(table("score"), "score", "a", equal=None),
    ):
        assert found.sentence.endswith("(worse); it is assumed that lower is better.")
        assert "lower is better (assumed)" in found.grid.title
        assert found.to_dict()["assumed"]
    said = analysis.compare(table("score"), "score", "a", equal=None, direction="maximize")
    assert said["b"].verdict == "better"
    assert "assumed" not in said.sentence


def test_anybodys_accuracy_is_better_where_it_is_higher() -> None:
    found = analysis.compare(table("accuracy"), "accuracy", "a", equal=None)
    assert found["b"].verdict == "better"
    assert "b reaches 0.10 higher accuracy than a" in found.sentence
    assert "(higher is better)" in found.grid.title
