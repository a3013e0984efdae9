"""The report of a sweep: it says what the journal holds and what `compare` found, and nothing else."""

from __future__ import annotations

import json
import shutil
import sqlite3
import struct
from pathlib import Path

import pytest
from synthetic_sweeps import BUDGET, final_metrics

from analysis import AnalysisError, compare, load_runs, summary_table, write_report
from analysis.report.compose import compose
from analysis.report.page import to_markdown
from analysis.report.pictures import Pictures
from analysis.report.results_json import write_results


def text_of(folder: Path) -> str:
    """The report's text without its figures, which take longer than everything else together."""
    return to_markdown(compose(summary_table(folder), Pictures()), folder / "report")


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
    text = (reported / "report" / "report.md").read_text(encoding="utf-8")
    for name, widest in (("training_curves", 1200), ("loss_against_budgets", 1200), ("comparison_plots", 800)):
        assert f"(figures/{name}.png)" in text
        width, height = png_size(reported / "report" / "figures" / f"{name}.png")
        assert width >= widest
        assert height >= 400


def test_failures_stand_with_their_reason_and_the_verdict_is_conditional(reported):
    text = text_of(reported)
    failures = text.split("## What failed and why")[1].split("##")[0]
    assert "loss is NaN at step 31 (lr 0.003, gradient norm 812)" in failures
    assert "token_local: conditional on survival" in text


def test_a_sweep_without_failures_says_so(make_ablation):
    text = text_of(make_ablation(failed=False))
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
    text = text_of(journal.close())
    costs = next(line for line in text.split("cost of a run")[1].splitlines() if line.startswith("| b |"))
    assert costs.count("not measured") == 5  # tokens/s, FLOPs, memory, both counts of parameters
    assert "budgets not recorded" in text
    assert "this one follows from its baseline." in text
    assert "| sweep hash | not recorded |" in text


def test_the_plugins_of_a_sweep_stand_in_its_provenance_with_their_hashes(make_ablation):
    folder = make_ablation()
    plugins = [
        {"name": "mine.py", "file": "/home/you/mine.py", "sha256": "a" * 64},
        {"name": "theirs", "distribution": "their-package", "version": "1.2", "sha256": "b" * 64},
    ]
    with sqlite3.connect(folder / "journal.sqlite") as journal:
        journal.execute("INSERT OR REPLACE INTO meta VALUES ('plugins', ?)", (json.dumps(plugins),))
    shown = text_of(folder).split("## Provenance")[1]
    assert f"| plugin mine.py | /home/you/mine.py, sha256 {'a' * 64} |" in shown
    assert f"| plugin theirs | their-package 1.2, sha256 {'b' * 64} |" in shown


def test_a_plan_amended_after_the_first_trial_is_shown_above_the_verdict(make_ablation):
    folder = make_ablation(failed=False)

    with sqlite3.connect(folder / "journal.sqlite") as connection:
        connection.execute("UPDATE meta SET value = '4' WHERE key = 'analysis_plan_amended_after'")
        connection.execute("UPDATE meta SET value = '\"bbbb\"' WHERE key = 'analysis_plan_hash'")
    text = text_of(folder)
    assert text.index("amended after 4 trials") < text.index("**Answer.**")
    assert "bbbb, amended after 4 trials (in force at the first trial: aaaaaaaaaaaaaaaa)" in text


def test_a_refused_comparison_leaves_a_report_with_the_reason_and_no_verdict(journal):
    for seed in range(2):
        journal.trial("a", seed, final_metrics(2.0 + 0.1 * seed))
        journal.trial("b", seed, final_metrics(1.5 + 0.11 * seed, flops=2 * BUDGET))
    journal.meta(sweep={"name": "unequal", "design": {"baseline": "a"}, "analysis": [{"compare": {"baseline": "a"}}]})
    folder = journal.close()
    text = text_of(folder)
    assert "**Answer.** No answer: flops differ by more than 1%" in text
    assert "better" not in text
    assert write_results(summary_table(folder), folder / "report")
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
    text = text_of(journal.close())
    rows = [line for line in text.splitlines() if line.startswith("| 0000")]
    assert rows[0] == "| 0000000000000002 | 2.3000 | 0.01 |"
    assert "**Answer.** No answer yet: the best of three points was not trained on fresh seeds" in text
    assert "2.3" not in text.split("## ")[0]  # the value that a point was chosen by is no answer


def write_search(journal, *, points: int = 3, winners: bool = True, finished: bool = True) -> Path:
    """A search over learning rates whose last point is the best, with or without replicates of it."""
    for k in range(points):
        chosen = {"training.lr": 1e-4 * (k + 1), "model.layers": k}
        journal.trial(f"point-{k}", 900_000, final_metrics(2.5 - 0.01 * k), role="search", parameters=chosen)
    for seed in range(2 if winners else 0):
        state = "finished" if finished else "pending"
        metrics = final_metrics(2.4 + 0.01 * seed) if finished else None
        journal.trial(f"point-{points - 1}", seed, metrics, parameters=chosen, status=state)
    journal.meta(sweep={"name": "lr", "design": {"kind": "search"}, "objective": [{"metric": "validation/loss"}]})
    return journal.close()


def test_a_search_with_winners_says_what_won_and_lists_all_its_points(journal):
    folder = write_search(journal, points=12)
    text = text_of(folder)
    point = "training.lr = 0.0012, model.layers = 11"
    assert (
        f"**Answer.** The winner of a search over 12 points, {point}, reaches a mean validation loss of 2.4050" in text
    )
    assert "2.4050 nats (95% interval 2.3415 to 2.4685) on two seeds that the search did not use." in text
    row = next(line for line in text.split("cost of a run")[1].splitlines() if line.startswith("| point-11 |"))
    assert row.endswith(f"| {point} |")
    points = text.split("## Search points")[1].split("##")[0]
    rows = [line for line in points.splitlines() if line.startswith("| 0000")]
    assert len(rows) == 12
    assert rows[0] == "| 000000000000000b | 2.3900 | 0.0012 | 11 | point-11 | yes |"
    assert rows[-1] == "| 0000000000000000 | 2.5000 | 0.0001 | 0 | point-0 |  |"
    summary = summary_table(folder)
    assert [(arm.arm, arm.n, arm.point["model.layers"]) for arm in summary.arms] == [("point-11", 2, 11)]


def test_the_printed_summary_of_a_search_with_winners_shows_points_and_parameters(journal):
    from rich.console import Console

    console = Console(width=200, no_color=True)
    with console.capture() as captured:
        console.print(summary_table(write_search(journal)))
    assert "the best 3 of 3 finished search trials" in captured.get()
    assert "training.lr = 0.0003, model.layers = 2, reaches a mean validation loss" in captured.get()


def test_winners_of_a_search_are_not_called_untuned(journal):
    for k in range(2):
        for role, seed in (("search", 900_000), ("replicate", 0)):
            journal.trial(f"point-{k}", seed, final_metrics(2.0 + k), role=role, parameters={"training.lr": 1e-3 + k})
    journal.meta(sweep={"name": "lr", "design": {"kind": "search"}})
    assert not any("tuned" in limit.text for limit in summary_table(journal.close()).limits)


def test_a_search_of_many_points_without_winners_lists_all_of_them(journal):
    text = text_of(write_search(journal, points=12, winners=False))
    points = text.split("## Search points")[1].split("##")[0]
    assert sum(line.startswith("| 0000") for line in points.splitlines()) == 12


def test_a_search_whose_winners_have_not_finished_gives_no_verdict_and_its_points(journal):
    text = text_of(write_search(journal, finished=False))
    assert "**Answer.** No answer: no replicate has finished." in text
    assert "Provisional: 2 of 5 trials have not ended" in text
    assert "## Search points" in text


def test_finished_trials_that_lack_the_metric_are_not_called_unfinished(journal):
    journal.trial("a", 0, final_metrics(2.0))
    journal.meta(sweep={"name": "x", "objective": [{"metric": "validation/answer_loss"}]})
    verdict = summary_table(journal.close()).verdict
    assert verdict == "No answer: no finished trial has a validation/answer_loss."


@pytest.mark.parametrize("declared", [True, False])
def test_tuning_without_replicates_gives_a_report_without_a_verdict(journal, declared):
    for arm in ("a", "b"):
        journal.trial(arm, 900_000, final_metrics(1.2345), role="tuning", parameters={"training.lr": 1e-3})
    analysis = [{"compare": {"baseline": "a"}}] if declared else []
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}, "analysis": analysis})
    folder = journal.close()
    text = write_report(folder).report.with_suffix(".md").read_text(encoding="utf-8")
    assert "**Answer.** No answer: no replicate has finished." in text
    assert "Nothing to compare: no replicate has started." in text
    assert "1.23" not in text.split("## Runs")[0]
    assert not list((folder / "report").rglob("*.png"))


def test_trials_of_an_earlier_version_are_one_line_and_enter_nothing(journal):
    own = [
        (journal.trial("old", seed, final_metrics(2.0 + shift + 0.01 * seed)), arm, seed, "replicate", {})
        for arm, shift in (("a", 0.0), ("b", 0.5))
        for seed in range(2)
    ]
    shared = [(own[seed][0], "c", seed, "replicate", {"model.layers": 2}) for seed in range(2)]
    stale = journal.trial("b", 900_000, final_metrics(0.5), role="tuning", parameters={"training.lr": 5.0})
    journal.trial("b", 2, final_metrics(1.0), environment={"git": "old1234"})
    journal.trial("gone", 0, status="running")
    tuning = [{"trial_id": stale, "values": {"training.lr": 5.0}, "loss": 0.5}]
    journal.decision("tuning", "b", {"values": {"training.lr": 5.0}, "trials": tuning, "flops": 1})
    journal.trial_set(*own, *shared)
    compare_entry = {"compare": {"baseline": "a"}}
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}, "analysis": [compare_entry]})
    folder = journal.close()
    text = text_of(folder)
    failures = text.split("## What failed and why")[1].split("##")[0]
    assert "Nothing: all 4 trials finished." in failures
    assert "Left out, from an earlier version of the file: 3 trials of the journal." in failures
    assert "| left out | 3 trials from an earlier version of the file |" in text
    for word in ("Provisional", "gone", "old1234", "## Tuning"):
        assert word not in text
    summary = summary_table(folder)
    write_results(summary, folder / "report")
    assert [(arm.arm, arm.n) for arm in summary.arms] == [("a", 2), ("b", 2), ("c", 2)]
    assert summary.arms[1].mean == pytest.approx(2.505)
    assert summary.comparisons[0]["c"].difference == 0
    assert not summary.comparisons[0].missing
    names = sorted(path.name for path in (folder / "report" / "results").iterdir())
    assert names == ["a_results.json", "b_results.json", "c_results.json"]
    saved = read(folder, "results/c_results.json")
    assert (saved["parameters"], [run["seed"] for run in saved["runs"]]) == ({"model.layers": 2}, [0, 1])


def test_a_trial_of_the_set_that_the_journal_does_not_hold_yet_is_one_that_has_not_ended(journal):
    name = journal.trial("a", 0, final_metrics(2.0))
    journal.trial_set((name, "a", 0, "replicate", {}), ("f" * 16, "b", 0, "replicate", {}))
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}})
    text = text_of(journal.close())
    assert "Provisional: 1 of 2 trials have not ended" in text


def test_losses_are_set_against_the_oracle_and_one_below_it_is_called_a_leak(journal):
    for seed in range(2):
        journal.trial("a", seed, {**final_metrics(1.52), "validation/oracle_loss": 1.5})
        journal.trial("b", seed, {**final_metrics(1.48 + 0.05 * seed), "validation/oracle_loss": 1.5})
    journal.meta(sweep={"name": "smoke", "design": {"baseline": "a"}})
    text = text_of(journal.close())
    assert "| a | 1.5200 | 1.5000 | +0.0200 (least +0.0200) |" in text
    assert "Below the floor: b, seed 0 (−0.02000)" in text


def test_trials_that_have_not_ended_make_the_report_provisional(journal):
    journal.trial("a", 0, final_metrics(2.0))
    journal.trial("b", 0, status="running")
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}})
    text = text_of(journal.close())
    assert "Provisional: 1 of 2 trials have not ended" in text
    assert "It is undecided whether b reaches lower validation loss than a" in text
    assert "b has fewer than 2 seeds in common with a: no verdict is possible." in text


@pytest.mark.parametrize("listed", [False, True])
def test_trials_that_were_planned_and_never_began_count_as_not_ended(journal, listed):
    for seed in range(2):
        journal.trial("a", seed, final_metrics(2.0 + 0.1 * seed))
        journal.trial("b", seed, status="interrupted", reason="interrupted")
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}})
    if listed:  # as the sweep itself lists its trials: one that stands under two arms is planned twice
        journal.trial_set(
            *[(f"{2 * k + n:016x}", arm, k, "replicate", {}) for k in range(2) for n, arm in enumerate("ab")]
        )
    folder = journal.close()
    rows = [{"arm": arm, "role": "replicate", "refused": None, "trials": 3, "flops": 1} for arm in "ab"]
    refused = {"arm": "c", "role": "replicate", "refused": "too large", "trials": 3, "flops": None}
    (folder / "plan.json").write_text(json.dumps({"rows": [*rows, refused]}))
    text = text_of(folder)
    provisional = "2 of 4 trials have not ended (2 interrupted)"
    if not listed:
        provisional = "4 of 6 trials have not ended (2 interrupted, 2 not started)"
    assert f"Provisional: {provisional}; run the sweep again." in text
    assert "missing: b, seed 0: interrupted\n" in text
    assert "interrupted: interrupted" not in text


def test_a_sweep_in_which_everything_failed_still_has_a_report(journal):
    for arm in ("a", "b"):
        journal.trial(arm, 0, status="failed", reason="out of memory")
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}, "analysis": [{"compare": {"baseline": "a"}}]})
    folder = journal.close()
    text = text_of(folder)
    first = next(line for line in text.splitlines()[1:] if line)
    assert first.startswith("> **Error. All 2 trials failed, so there is no result. The reason: out of memory.")
    assert "**Answer.** No answer: every trial failed." in text
    assert text.split("## What failed")[1].count("out of memory") == 2


def test_an_untuned_sweep_and_a_law_that_cannot_be_fitted_are_said(journal):
    for arm in ("a", "b"):
        for seed in range(2):
            config = {"training": {"budget": {"flops": BUDGET}, "lr": 0.003}}
            loss = 2.0 + 0.1 * seed + (arm == "b") * 0.3 * (1 + seed)
            journal.trial(arm, seed, final_metrics(loss), config=config)
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}, "analysis": [{"scaling_law": {"law": "chinchilla"}}]})
    folder = journal.close()
    assert "One learning rate for all arms, not tuned." in [limit.text for limit in summary_table(folder).limits]
    section = text_of(folder).split("## Scaling laws")[1].split("## ")[0]
    assert "No law 'chinchilla': " in section
    assert "certificate" not in section


@pytest.mark.slow
def test_writing_twice_gives_the_same_bytes_and_leaves_nothing_else_behind(reported, tmp_path):
    again = Path(shutil.copytree(reported, tmp_path / "ablation"))
    stale = again / "report" / "results" / "gone_results.json"
    stale.write_text("{}")
    first = {path: path.read_bytes() for path in (again / "report").rglob("*") if path.is_file()}
    write_report(again)
    second = {path: path.read_bytes() for path in (again / "report").rglob("*") if path.is_file()}
    del first[stale]
    assert first == second
    assert not [path for path in second if path.name.startswith(".")]


def test_a_folder_without_a_sweep_or_with_an_empty_one_is_refused(tmp_path, journal):
    with pytest.raises(AnalysisError, match="no journal"):
        write_report(tmp_path)
    with pytest.raises(AnalysisError, match="holds no trial yet"):
        write_report(journal.close())
