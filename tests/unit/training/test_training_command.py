"""`train` before it trains: mistakes that the configuration shows by itself, and the plan of one trial."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from rich.console import Console

import stackwise_ray.train as command
from stackwise_ray.config.loading import load_trial
from stackwise_ray.core.records import MetricRecord
from tests.small_trials import run

WORDS = ["model=encoder/bert_family/tiny", "model.d_model=16", "model.n_heads=2", "model.d_ff=32", "data=markov"]
WORDS += ["data.markov={n_tokens: 4000, n_symbols: 4, order: 1}", "data.seq_len=16", "data.validation_tokens=256"]
GROWN = [*WORDS, "training=depth_time"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["training.blocks_per_stack=3"], "training.blocks_per_stack = 3 does not divide model.n_layers = 4"),
        (["training.stage_split=[0.5, 0.2, 0.2, 0.2]"], "needs 4 positive shares with the sum 1"),
        (["training.noise.schedule=[0.9, 0.2]"], "has 2 shares for 4 stacks; give 4"),
        (["training=hybrid", "training.init_from=nowhere"], "contains neither a finished run"),
        (
            ["training=hybrid", "training.pretraining_share=0.5", "training.max_steps=1"],
            "= 1 is fewer than the 2 stages",
        ),
    ],
)
def test_what_the_words_alone_show_is_refused_before_any_data_is_prepared(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(*_: object, **__: object) -> None:
        raise AssertionError("data were prepared")

    monkeypatch.setattr("stackwise_ray.data.prepare", prepare)
    grown = GROWN[:-1] if words[0].startswith("training=") else GROWN
    with pytest.raises(typer.Exit) as left:
        command.main([*grown, *words])
    assert left.value.exit_code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan_only": True, "output": Path("x")}, "--output is for a run, and --plan writes nothing"),
        ({"multirun": True, "threads": 7}, "--threads is for one trial"),
        ({"as_json": True}, "--json prints a plan: add --plan"),
    ],
)
def test_an_option_without_effect_is_refused(
    options: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as left:
        command.main(WORDS, **options)
    assert left.value.exit_code == 2
    assert message in capsys.readouterr().err


def test_the_plan_of_one_trial_is_what_it_then_costs(
    module_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*GROWN, "model.n_layers=2", "training.max_steps=4", "training.batch_tokens=64", "training.evaluations=1"]
    command.main(words, plan_only=True, as_json=True)
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert list(tmp_path.iterdir()) == []
    _, result = run(load_trial(words), tmp_path / "run")
    assert (row["flops"], row["steps"]) == (result.metrics["flops/total"], result.metrics["steps/total"])


def test_the_plan_of_one_trial_names_its_stages_and_what_a_checkpoint_costs_it(
    module_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [*WORDS, "model.n_layers=2", "training.batch_tokens=64", "training.evaluations=1"]
    command.main([*small, "training=hybrid", "training.pretraining_share=0.25", "training.max_steps=4"], plan_only=True)
    assert "stages: classical 1 step, finetune 3 steps" in capsys.readouterr().out

    run(load_trial([*small, "training.max_steps=2"]), tmp_path, keep_model=True)
    words = [*small, "training=hybrid", f"training.init_from={tmp_path}", "training.max_steps=5"]
    command.main(words, plan_only=True)
    said = capsys.readouterr().out
    assert "hybrid: 2 of its 5 steps are charged for training.init_from" in said
    assert "stages:" not in said  # it has one


def test_what_is_not_on_a_terminal_says_at_once_that_it_compiles() -> None:
    console = Console(file=io.StringIO(), width=120)
    with command.Display(console, load_trial(WORDS)) as display:
        record = MetricRecord(trial_id="t", attempt=1, step=0, tokens=0, flops=0, time=0.0, metrics={})
        display.show(record)
        display.show(replace(record, doing="compiling stage_4"))
    lines = console.file.getvalue().splitlines()
    assert lines == ["bert 4×16 on markov: starting", "bert 4×16 on markov: compiling stage_4 …"]
