"""The first page of a report, the terminal and JSON: one source of words, and nothing that nobody recorded."""

from __future__ import annotations

import html
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_sweeps import BUDGET, final_metrics

from analysis import summary_table
from analysis.report.compose import compose
from analysis.report.html_page import to_html
from analysis.report.page import Table, to_markdown
from analysis.report.pictures import Pictures

CONFIG = {
    "model": {"family": "gpt2", "role": "decoder", "n_layers": 4, "d_model": 64, "n_heads": 4},
    "data": {"corpus": "python_stdlib", "tokenizer": "bytes", "seq_len": 256},
    "training": {
        "budget": {"flops": BUDGET},
        "lr": 0.003,
        "batch_tokens": 1024,
        "schedule": {"kind": "cosine", "warmup": 0.05},
    },
    "optimizer": {"kind": "adamw", "weight_decay": 0.1},
}


def printed(folder: Path, width: int = 80) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as captured:
        console.print(summary_table(folder))
    return captured.get()


def write(journal, *, arms: int = 2, seeds: int = 3, **meta) -> Path:
    for index in range(arms):
        for seed in range(seeds):
            loss = 2.0 - 0.3 * index + 0.05 * seed + 0.004 * ((seed * (index + 1)) % 3)
            parameters = {"model.d_ff": 128 * index} if index else {}
            journal.trial(f"arm-{index}", seed, final_metrics(loss), config=CONFIG, parameters=parameters)
    sweep = {"name": "x", "question": "Which is best?", "design": {"baseline": "arm-0"}, "base": {"model": "tiny"}}
    journal.meta(sweep=sweep | meta)
    return journal.close()


def test_page_terminal_and_json_say_the_same_answer(journal):
    folder = write(journal)
    summary = summary_table(folder)
    assert summary.verdict.startswith("arm-1 reaches 0.30 nats lower validation loss than arm-0 at equal FLOPs")
    page = compose(summary, Pictures())
    assert f"**Answer.** {summary.verdict}" in to_markdown(page, folder)
    shown = html.unescape(to_html(page))
    for part in (*(phrase.text for phrase in summary.phrases), *(limit.text for limit in summary.limits)):
        assert part.split(": ")[0] in shown
    assert summary.verdict in " ".join(printed(folder).split())
    assert summary.to_dict()["verdict"] == summary.verdict
    assert summary.to_dict()["limits"] == [limit.text for limit in summary.limits]


def test_the_setup_is_in_words_and_only_of_what_was_recorded(journal):
    setup = {fact.name: fact.text for fact in summary_table(write(journal)).setup}
    assert setup["base"] == "model tiny"
    assert setup["model"] == "decoder of the gpt2 family, 4 layers × width 64, 4 heads"
    assert setup["data"] == "python_stdlib, tokenizer bytes, sequences of 256 tokens"
    assert setup["learning rate"].startswith("0.003 (one learning rate for all arms, not tuned), cosine schedule")
    assert setup["seeds"] == "3 finished per arm, the same for every arm (paired)"
    assert "precision" not in " ".join(setup.values())
    assert "float32" not in " ".join(setup.values())  # nobody recorded it


def test_what_differs_is_what_each_arm_sets(journal):
    grid = summary_table(write(journal)).differences
    assert grid is not None
    assert grid.rows == (("arm-0", "nothing: it is the base"), ("arm-1", "model.d_ff = 128"))


def test_arms_that_are_learning_rates_are_not_called_untuned(journal):
    for rate in (0.001, 0.01):
        for seed in range(2):
            config = CONFIG | {"training": {**CONFIG["training"], "lr": rate}}
            metrics = final_metrics(2.0 + 10 * rate + 0.05 * seed + 0.01 * seed * rate)
            journal.trial(f"lr={rate}", seed, metrics, config=config, parameters={"training.lr": rate})
    journal.meta(sweep={"name": "rates", "design": {"baseline": "lr=0.001"}})
    summary = summary_table(journal.close())
    assert not any("tuned" in limit.text for limit in summary.limits)
    assert any("0.001 or 0.01 (set by the arms)" in fact.text for fact in summary.setup)


def test_the_cost_counts_tuning_and_failed_trials(journal):
    journal.trial("arm-0", 9, final_metrics(3.0, flops=0.5 * BUDGET), role="tuning", config=CONFIG)
    failed = journal.trial("arm-0", 8, status="failed", reason="NaN", config=CONFIG)
    journal.report(failed, 3, 1000, int(0.25 * BUDGET), 1001.0, train__loss=3.0)
    cost = {fact.name: fact.text for fact in summary_table(write(journal)).cost}
    assert cost["trials"] == "8 trials (7 replicates, 1 tuning), 1 failed"
    spent = "6.75T (tuning 500G, replicates 6.25T), trials that did not finish up to their last report"
    assert cost["training FLOPs"] == spent
    assert cost["time"].startswith("4 min 00 s of trials added up")


def test_a_sweep_of_which_every_trial_failed_says_so_first_and_shows_no_table(journal):
    for arm in ("a", "b"):
        journal.trial(arm, 0, status="failed", reason="out of memory")
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}})
    folder = journal.close()
    text = printed(folder)
    assert text.startswith("All 2 trials failed, so there is no result.")
    assert "out of memory" in text
    assert "difference" not in text
    summary = summary_table(folder)
    assert summary.to_dict()["error"] == summary.error
    assert repr(summary).splitlines()[1] == summary.error
    assert "All 2 trials failed" in summary._repr_html_()


def test_a_value_that_all_arms_set_alike_is_no_difference(journal):
    for width in (64, 32):
        config = CONFIG | {"model": CONFIG["model"] | {"n_layers": 2, "d_model": width}}
        own = {"model.n_layers": 2, "model.d_model": width, "model.not_recorded": 1}
        journal.trial(f"w{width}", 0, final_metrics(2.0), config=config, parameters=own)
    journal.meta(sweep={"name": "x", "design": {"baseline": "w64"}, "base": {"model": "tiny"}})
    text = to_markdown(compose(summary_table(journal.close()), Pictures()), journal.directory)
    assert "| w64 | model.d_model = 64, model.not_recorded = 1 |" in text, "what no configuration records may differ"
    assert "| w32 | model.d_model = 32, model.not_recorded = 1 |" in text
    assert "1 finished per arm, the same for every arm (paired); no run was repeated" in text


@pytest.mark.parametrize(("arms", "above", "below"), [(2, 1, 0), (13, 0, 1), (30, 0, 1)])
def test_what_a_dozen_arms_change_is_on_the_first_page_and_what_more_change_below_it(journal, arms, above, below):
    page = compose(summary_table(write(journal, arms=arms)), Pictures())
    heading = "what differs from the base"
    assert [isinstance(block, Table) and heading in block.grid.columns for block in page.head].count(True) == above
    listed = [part.blocks[0] for part in page.sections if part.title == "Arms"]
    assert [len(table.grid.rows) for table in listed] == [arms] * below
    assert (f"What differs: {arms} arms, listed under Arms." in to_markdown(page, journal.directory)) == bool(below)


def test_the_best_of_many_arms_are_shown_on_the_terminal_below_the_baseline(journal):
    rows = [line.split()[0] for line in printed(write(journal, arms=30)).splitlines() if line.startswith(" arm-")]
    assert rows[:6] == ["arm-0", "arm-29", "arm-28", "arm-27", "arm-26", "arm-25"]
    assert rows[6:12] == [f"arm-{k}" for k in (6, 5, 4, 3, 2, 1)]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_printed_line_ends_in_blanks_and_the_lines_of_a_weak_point_are_below_its_first_word(journal, width):
    folder = write(journal, arms=4)
    lines = printed(folder, width).splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    begin, end = lines.index("what would change the answer:"), lines.index(lines[-1])
    points = "\n".join(lines[begin + 1 : end])
    shown = [" ".join(part.split()) for part in points.split("  - ")[1:]]
    limits = [limit.text for limit in summary_table(folder).limits[: len(shown)]]
    assert len(shown) == 3
    assert [text in said for text, said in zip(limits, shown, strict=True)] == [True] * 3
    assert all(line.startswith(("  - ", "    ")) for line in lines[begin + 1 : begin + 4])


@pytest.mark.parametrize("arms", [2, 30])
def test_the_terminal_fits_eighty_columns_whatever_the_number_of_arms(journal, arms):
    text = printed(write(journal, arms=arms))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 70
    rows = [line for line in lines if line.startswith(" arm-")]
    assert all("[" not in row or "]" in row for row in rows)  # no cell is broken
    assert ("… 18 more" in text) == (arms == 30)


def test_a_view_at_the_prompt_is_short(journal):
    summary = summary_table(write(journal, arms=30))
    assert len(repr(summary).splitlines()) <= 20
    assert len(repr(summary.comparisons[0]).splitlines()) <= 20
    assert len(repr(summary.comparisons[0].arms)) < 30 * 150
    assert summary.verdict in html.unescape(summary._repr_html_())
