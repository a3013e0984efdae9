"""The report of a sweep: it says what the journal holds and what `compare` found, and nothing else."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from synthetic_sweeps import BUDGET, final_metrics, write_ablation

from analysis import AnalysisError, compare, load_runs, summary_table, write_report


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A five-arm sweep whose report is written; for tests that only read."""
    folder = write_ablation(tmp_path_factory.mktemp("reported") / "ablation")
    write_report(folder)
    return folder


def text_of(folder: Path) -> str:
    return (folder / "report" / "report.md").read_text(encoding="utf-8")


def read(folder: Path, name: str):
    return json.loads((folder / "report" / name).read_text(encoding="utf-8"))


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def test_the_report_holds_the_verdicts_of_compare_digit_by_digit(reported):
    text = text_of(reported)
    comparison = compare(load_runs(reported), "validation/loss", baseline="attention", margin=0.02)
    assert comparison.sentence in text
    for result in comparison.arms:
        row = next(line for line in text.splitlines() if line.startswith(f"| {result.arm} |"))
        assert result.difference_text in row
        assert result.verdict in row
        saved = read(reported, f"comparisons/comparison_{result.arm}_vs_attention.json")["comparisons"][0]
        assert saved["result"]["difference"] == result.difference
        assert saved["result"]["p_adjusted"] == result.p_adjusted
        assert saved["result"]["interval"]["low"] == result.interval.low
    assert "At equal training FLOPs, which token mixer" in text


def test_every_figure_that_the_report_links_to_is_a_png_of_some_size(reported):
    text = text_of(reported)
    for name in ("training_curves", "loss_curves", "comparison_plots"):
        assert f"(figures/{name}.png)" in text
        width, height = png_size(reported / "report" / "figures" / f"{name}.png")
        assert width >= 1200
        assert height >= 400


def test_failures_stand_with_their_reason_and_the_verdict_is_conditional(reported):
    text = text_of(reported)
    failures = text.split("## What failed and why")[1].split("##")[0]
    assert "loss is NaN at step 31 (lr 0.003, gradient norm 812)" in failures
    assert "token_local: conditional on survival" in text


def test_a_sweep_without_failures_says_so(make_ablation):
    text = write_report(make_ablation(failed=False)).read_text(encoding="utf-8")
    assert "Nothing: all 30 trials finished." in text
    assert "conditional on survival" not in text


def test_costs_and_tuning_are_those_that_were_recorded(reported):
    summary = summary_table(reported)
    attention = summary.arms[0]
    assert (attention.arm, attention.n, attention.tuning_flops) == ("attention", 3, 0.6 * BUDGET)
    assert attention.tuned == {"training.lr": 3e-3}
    assert attention.flops == pytest.approx(BUDGET)
    text = text_of(reported)
    assert "| attention | training.lr = 0.003 | 2.2500 | chosen |" in text
    saved = read(reported, "results/attention_results.json")
    assert len(saved["runs"]) == 3
    assert saved["tuning"]["flops"] == 0.6 * BUDGET
    assert len(saved["runs"][0]["curves"]["validation/loss"]["value"]) == 10
    failed = read(reported, "results/token_local_results.json")["runs"][1]
    assert (failed["status"], failed["metrics"]) == ("failed", {})


def test_cost_ratios_are_arm_over_baseline(reported):
    ratios = read(reported, "comparisons/comparison_llama_vs_attention.json")["comparisons"][0]["ratios"]
    assert ratios["throughput/tokens_per_s"] == pytest.approx(1 / 1.3)
    assert ratios["model/params"] == 1.0


def test_what_nobody_measured_reads_not_measured(journal):
    for seed in range(3):
        journal.trial("a", seed, {"validation/loss": 2.0 + 0.01 * seed})
        journal.trial("b", seed, {"validation/loss": 2.5 + 0.012 * seed})
    journal.meta(sweep={"name": "bare", "design": {"kind": "arms", "baseline": "a"}})
    text = write_report(journal.close()).read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| b |"))
    assert row.count("not measured") == 4  # tokens/s, FLOPs, memory, parameters
    assert "budgets not recorded" in text
    assert "was not declared beforehand" in text
    assert "| sweep hash | not recorded |" in text


def test_a_plan_amended_after_the_first_trial_is_shown_above_the_verdict(make_ablation):
    folder = make_ablation(failed=False)
    import sqlite3

    with sqlite3.connect(folder / "journal.sqlite") as connection:
        connection.execute("UPDATE meta SET value = '4' WHERE key = 'analysis_plan_amended_after'")
        connection.execute("UPDATE meta SET value = '\"bbbb\"' WHERE key = 'analysis_plan_hash'")
    text = write_report(folder).read_text(encoding="utf-8")
    assert text.index("amended after 4 trials") < text.index("**Verdict.**")
    assert "bbbb, amended after 4 trials (in force at the first trial: aaaaaaaaaaaaaaaa)" in text


def test_a_refused_comparison_leaves_a_report_with_the_reason_and_no_verdict(journal):
    for seed in range(2):
        journal.trial("a", seed, final_metrics(2.0 + 0.1 * seed))
        journal.trial("b", seed, final_metrics(1.5 + 0.11 * seed, flops=2 * BUDGET))
    journal.meta(sweep={"name": "unequal", "design": {"baseline": "a"}, "analysis": [{"compare": {"baseline": "a"}}]})
    folder = journal.close()
    text = write_report(folder).read_text(encoding="utf-8")
    assert "**Verdict.** No verdict: flops differ by more than 1.00%" in text
    assert "better" not in text
    assert not list((folder / "report" / "comparisons").glob("*"))


@pytest.mark.parametrize(("equal", "refused"), [("budget", False), ("flops", True), (None, False)])
def test_equal_budget_means_the_unit_in_which_the_budget_was_set(journal, equal, refused):
    for seed in range(3):
        journal.trial("a", seed, final_metrics(2.0 + 0.1 * seed), budget={"tokens": 2e6})
        journal.trial("b", seed, final_metrics(1.5 + 0.11 * seed, flops=2 * BUDGET), budget={"tokens": 2e6})
    compare_entry = {"baseline": None, "margin": None, "direction": None, "equal": equal}
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}, "analysis": [{"compare": compare_entry}]})
    summary = summary_table(journal.close())
    assert bool(summary.refused) == refused
    if equal == "budget":
        assert summary.comparisons[0].budgets == "tokens"


def test_a_search_lists_its_best_trials_and_no_verdict(journal):
    for k, rate in enumerate((1e-4, 1e-3, 1e-2)):
        journal.trial("lr", 0, {"validation/loss": 2.5 - 0.1 * k}, role="search", parameters={"training.lr": rate})
    journal.meta(sweep={"name": "lr", "objective": [{"metric": "validation/loss", "direction": "minimize"}]})
    text = write_report(journal.close()).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| 0000")]
    assert rows[0] == "| 0000000000000002 | 2.3000 | 0.01 |"
    assert "No comparison was declared; the best validation/loss is 2.3000, by trial 0000000000000002." in text


def test_losses_are_set_against_the_oracle_and_one_below_it_is_called_a_leak(journal):
    for seed in range(2):
        journal.trial("a", seed, {**final_metrics(1.52), "validation/oracle_loss": 1.5})
        journal.trial("b", seed, {**final_metrics(1.48 + 0.05 * seed), "validation/oracle_loss": 1.5})
    journal.meta(sweep={"name": "smoke", "design": {"baseline": "a"}})
    text = write_report(journal.close()).read_text(encoding="utf-8")
    assert "| a | 1.520 | 1.500 | +0.0200 (least +0.0200) |" in text
    assert "Below the floor: b, seed 0 (-0.02000)" in text


def test_trials_that_have_not_ended_make_the_report_provisional(journal):
    journal.trial("a", 0, final_metrics(2.0))
    journal.trial("b", 0, status="running")
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}})
    text = write_report(journal.close()).read_text(encoding="utf-8")
    assert "Provisional: 1 of 2 trials have not ended" in text
    assert "b is undecided (no complete block)" in text


def test_a_sweep_in_which_everything_failed_still_has_a_report(journal):
    for arm in ("a", "b"):
        journal.trial(arm, 0, status="failed", reason="out of memory")
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}, "analysis": [{"compare": {"baseline": "a"}}]})
    text = write_report(journal.close()).read_text(encoding="utf-8")
    assert "No verdict" in text
    assert text.count("out of memory") >= 2


def test_an_untuned_sweep_and_an_analysis_that_is_not_there_yet_are_said(journal):
    for arm in ("a", "b"):
        for seed in range(2):
            journal.trial(arm, seed, final_metrics(2.0 + 0.1 * seed + (arm == "b") * 0.3 * (1 + seed)))
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}, "analysis": [{"scaling_law": {"law": "chinchilla"}}]})
    warnings = summary_table(journal.close()).warnings
    assert "One learning rate for all arms, not tuned." in warnings
    assert "Declared, but not computed by this version: scaling_law." in warnings


def test_writing_twice_gives_the_same_bytes_and_leaves_nothing_else_behind(ablation):
    write_report(ablation)
    stale = ablation / "report" / "results" / "gone_results.json"
    stale.write_text("{}")
    first = {path: path.read_bytes() for path in (ablation / "report").rglob("*") if path.is_file()}
    write_report(ablation)
    second = {path: path.read_bytes() for path in (ablation / "report").rglob("*") if path.is_file()}
    del first[stale]
    assert first == second
    assert not [path for path in second if path.name.startswith(".")]


def test_a_folder_without_a_sweep_or_with_an_empty_one_is_refused(tmp_path, journal):
    with pytest.raises(AnalysisError, match="no journal"):
        write_report(tmp_path)
    with pytest.raises(AnalysisError, match="holds no trial yet"):
        write_report(journal.close())
