"""A source alone: what it is about is guessed, said and answered, or asked where two guesses are equally good."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import run

from stackwise_ray.core.invocation import ANALYSIS, as_started
from tests import foreign_sources
from tests.foreign_sources import METRIC, grid_runs, paired_runs, scored_runs


def as_csv(folder: Path, rows: list[dict[str, Any]], **names: str) -> str:
    pd.DataFrame(rows).rename(columns=names).to_csv(folder / "my runs.csv", index=False)
    return str(folder / "my runs.csv")


def test_arms_blocks_and_metric_are_guessed_and_the_printed_command_gives_the_same_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**one, "lr": 0.1, "train_loss": one[METRIC] - 1} for one in paired_runs()]
    code, out, _ = run(capsys, as_csv(tmp_path, rows, arm="optimizer.name"))
    assert code == 0
    guessed, sentence, command = out.splitlines()
    assert guessed == (
        "guessed: arms are in 'optimizer.name' (adam, muon), runs are paired by 'seed', the metric is 'val_loss', the "
        "baseline is adam (the first arm of the table)"
    )
    assert sentence.startswith("muon reaches 0.049 nats lower val_loss than adam")
    program, _, words = command.removeprefix("the whole answer: ").partition(" compare ")
    assert program == as_started(ANALYSIS)
    assert run(capsys, "compare", *shlex.split(words))[1].rstrip().splitlines()[-1] == sentence


def test_crashed_runs_of_a_wandb_export_are_left_out_of_the_guess_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = foreign_sources.wandb_export(tmp_path, [{**one, "optimizer": one["arm"]} for one in paired_runs()])
    table = pd.read_csv(source, dtype=str).drop(columns="arm")
    table.loc[0, "State"] = "crashed"
    table.to_csv(source, index=False)
    code, out, _ = run(capsys, source)
    assert code == 0
    assert "arms are in 'optimizer'" in out
    assert "1 × crashed" in out


def test_a_baseline_is_known_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**one, "arm": {"adam": "new", "muon": "baseline_v2"}[one["arm"]]} for one in paired_runs()]
    assert "the baseline is baseline_v2 (by its name)" in run(capsys, as_csv(tmp_path, rows))[1]


def test_tasks_and_seeds_pair_together_where_neither_does_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run(capsys, as_csv(tmp_path, scored_runs()))[1]
    assert "runs are paired by 'seed' and 'task'" in out
    assert "--block seed --block task" in out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"test_loss": 1.5}, "the metric val_loss or test_loss"),
        ({"model": 0}, "the arms optimizer or model"),
    ],
)
def test_where_two_guesses_are_equally_good_both_commands_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: dict[str, Any], words: str
) -> None:
    rows = []
    for number, one in enumerate(paired_runs(4)):
        extra = (
            {"test_loss": one[METRIC] * 1.5 + number / 100} if "test_loss" in more else {"model": "ab"[number // 2 % 2]}
        )
        rows.append({"optimizer": one["arm"], **{key: one[key] for key in one if key != "arm"}, **extra})
    if "model" in more:  # seeds tell the runs of each arm apart, whichever column the arms are in
        for number, row in enumerate(rows):
            row["seed"] = number % 4 if number < 4 else 3 - number % 4
            row["model"] = "ab"[number % 4 in (1, 2)] if number < 4 else "ba"[(3 - number % 4) in (1, 2)]
    code, out, err = run(capsys, as_csv(tmp_path, rows))
    assert (code, out) == (2, "")
    assert words in err
    commands = [line for line in err.splitlines() if line.startswith("  ")]
    assert len(commands) == 2
    assert run(capsys, *shlex.split(commands[1].strip().removeprefix(as_started(ANALYSIS))))[0] == 0


def test_a_column_that_parts_the_runs_as_another_does_is_no_second_guess(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**one, "path/1": one["arm"], "path/2": one["task"], "path/3": f"s{one['seed']}"} for one in scored_runs()]
    assert "runs are paired by 'seed' and 'task'" in run(capsys, as_csv(tmp_path, rows))[1]


def test_bleu_is_to_be_high_and_of_a_score_nobody_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**one, "acc": 1 / one[METRIC]} for one in paired_runs()]
    out = run(capsys, as_csv(tmp_path, [{key: row[key] for key in ("arm", "seed", "acc")} for row in rows]))[1]
    assert "the metric is 'acc' (to maximize)" in out
    assert "muon reaches" in out
    assert "higher acc" in out
    assert "--direction maximize" in out
    scores = [{"arm": row["arm"], "seed": row["seed"], "score": row["acc"]} for row in rows]
    code, _, err = run(capsys, as_csv(tmp_path, scores))
    assert code == 2
    assert "the direction minimize or maximize" in err


def test_the_way_that_a_study_was_asked_to_go_is_taken_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lm").mkdir()
    out = run(capsys, foreign_sources.optuna(tmp_path / "lm", paired_runs()))[1]
    assert "the metric is 'value' (to minimize)" in out
    assert "assumed" not in out


def test_a_loss_on_held_out_data_goes_before_a_loss_that_may_be_of_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**one, "loss": one[METRIC] - 1 + one["seed"] / 7} for one in paired_runs()]
    assert "the metric is 'val_loss'" in run(capsys, as_csv(tmp_path, rows))[1]


def test_a_grid_of_sizes_is_answered_by_a_law(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, as_csv(tmp_path, grid_runs()))
    assert code == 0
    assert "guessed: a scaling law of 'val_loss' over params and tokens" in out
    assert "fit 'my runs.csv' --map loss=val_loss" in out.replace(f"{tmp_path}/", "")
    assert "isoflop" in out


def test_a_table_that_is_about_nothing_known_is_one_message_with_its_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, as_csv(tmp_path, [{"x": 1.5, "y": 2.5}, {"x": 1.25, "y": 3.5}]))
    assert (code, out) == (2, "")
    assert "the columns are x, y" in err
    assert err.count("\n") == 1


def test_documents_of_the_harness_ask_which_of_two_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"model": model, "item": f"arc/{number}", "acc": (number * step) % 3 / 2, "acc_norm": (number + step) % 3 / 2}
        for model, step in (("gpt2", 1), ("other", 2))
        for number in range(8)
    ]
    _, _, err = run(capsys, as_csv(tmp_path, lines))
    assert "the metric acc or acc_norm" in err
    assert "--arm model --block item" in err


def test_the_guess_is_plain_data_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, as_csv(tmp_path, paired_runs()), "--json")[1])
    assert found["answer"]["arms"][0]["arm"] == "muon"
    assert found["command"].startswith(f"{as_started(ANALYSIS)} compare")


def test_a_word_that_is_no_source_is_still_a_wrong_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "comparee")
    assert code == 2
    assert "No such command 'comparee'" in err
    assert "nothing.csv: no such file" in run(capsys, "nothing.csv")[2]


def test_help_lists_no_command_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert "guess " not in run(capsys, "--help")[1].split("Commands:")[1]


def test_columns_of_a_law_under_other_names_are_asked_for_by_the_command_that_fits_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = run(capsys, as_csv(tmp_path, grid_runs(), params="params (M)", tokens="tokens (B)"))[2]
    assert "fit" in err
    assert "--map params=… --map tokens=… --map loss=…" in err


def test_a_guess_says_of_which_arm_runs_did_not_survive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**one, "state": "finished"} for one in paired_runs()]
    rows[0]["state"] = "crashed"
    out = run(capsys, as_csv(tmp_path, rows))[1]
    assert "muon: conditional on survival: blocks are missing" in out
