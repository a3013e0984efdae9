"""What the command `evaluate` refuses before it loads anything, and its list of tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stackwise_ray.core.registries import TASKS
from stackwise_ray.evaluate import app


def evaluate(*words: str) -> Result:
    return CliRunner().invoke(app, words, catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "x", "--tasks", "wikitex2"], "--tasks = wikitex2 is no task; did you mean 'wikitext2'?"),
        (["--run", "x", "--tasks", "ptb,perplexity"], "--tasks = perplexity is no task"),
        (["--run", "x", "--tasks", ","], "names no task; --list shows them"),
        (["--run", "x", "--limit", "5"], "--limit = 5 is of a task's items; add --tasks"),
        (["--tasks", "ptb"], "give either --run DIR or --model PATH_OR_NAME"),
        (["--run", "x", "--tasks", "ptb,wikitext2", "data.path=d"], "data.path is of one task, and 2 are asked for"),
        (["--run", "x", "--tasks", "ptb", "data.seq_len=64"], "a run is scored with its own context and tokenizer"),
        (["--model", "x", "--tasks", "ptb", "data=markov"], "a task brings its own data"),
        (["--run", "x", "data=markov"], "a run is scored on its own data"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(words: list[str], message: str) -> None:
    answer = evaluate(*words)
    assert answer.exit_code == 2
    assert message in answer.output
    assert "Traceback" not in answer.output


def test_the_list_has_every_task_with_its_metrics_and_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STACKWISE_DATA", str(tmp_path))
    answer = evaluate("--list")
    assert answer.exit_code == 0
    for name, task in TASKS.items():
        assert f"{name}  {task.facts.kind}  " in answer.output
        assert all(metric.path in answer.output for metric in task.facts.metrics)
        assert f"$STACKWISE_DATA/{task.facts.source.folder}; --tasks {name} fetches" in answer.output


def test_the_list_says_where_data_were_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ptb").mkdir()
    for split in ("train", "valid", "test"):
        (tmp_path / "ptb" / f"ptb.{split}.txt").write_text(" a b \n")
    monkeypatch.setenv("STACKWISE_DATA", str(tmp_path))
    assert f"data: {tmp_path / 'ptb'}\n" in evaluate("--list").output
