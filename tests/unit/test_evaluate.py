"""What the command `evaluate` refuses before it loads anything, its list of tasks, and what it prints of scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

import stackwise_ray.evaluate as command
from stackwise_ray.core.metric_catalogue import format_metric
from stackwise_ray.core.registries import TASKS
from stackwise_ray.evaluate import app
from stackwise_ray.tasks.task import Reference
from stackwise_ray.terminal import make_console
from tests.small_trials import TRIAL, run
from tests.unit.tasks.test_tasks_evaluating import QUESTIONS, tiny_choice


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


@pytest.fixture(scope="module")
def trained(module_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished trial."""
    folder = tmp_path_factory.mktemp("trained")
    run(TRIAL, folder, keep_model=True)
    return folder


def test_a_run_is_scored_on_its_own_data_and_its_numbers_are_kept_beside_it(trained: Path, tmp_path: Path) -> None:
    answer = evaluate("--run", str(trained), "--output", str(tmp_path / "scores"))
    assert answer.exit_code == 0, answer.output
    kept = json.loads((tmp_path / "scores" / "evaluation.json").read_text())["metrics"]
    metrics = json.loads((trained / "outputs" / "metrics.json").read_text())
    assert kept["validation/loss"] == pytest.approx(metrics["validation/loss"], rel=1e-6)
    lines = answer.stdout.splitlines()
    assert lines[-1] == f"results: {tmp_path / 'scores' / 'evaluation.json'}"
    assert lines[:-1] == [f"{name}  {format_metric(name, value)}" for name, value in sorted(kept.items())]
    assert not (trained / "outputs" / "evaluation.json").exists()


def test_a_model_is_scored_on_data_that_are_named_and_nothing_is_written(trained: Path) -> None:
    before = sorted(trained.rglob("*"))
    words = ["data=markov", "data.markov={order: 1, n_symbols: 4, n_tokens: 4000}", "data.seq_len=16"]
    words += ["data.tokenizer=bytes"]
    answer = evaluate("--model", str(trained / "model"), *words, "data.validation_tokens=256")
    assert answer.exit_code == 0, answer.output
    metrics = json.loads((trained / "outputs" / "metrics.json").read_text())
    assert f"validation/loss  {format_metric('validation/loss', metrics['validation/loss'])}" in answer.stdout
    assert "results:" not in answer.stdout
    assert sorted(trained.rglob("*")) == before


@pytest.fixture
def choice(tmp_path: Path) -> Iterator[str]:
    """A task of three questions is registered; the word that names its data."""
    (tmp_path / "questions.json").write_text(json.dumps(QUESTIONS))
    with TASKS.registered("tiny_choice", tiny_choice()):
        yield f"data.path={tmp_path / 'questions.json'}"


def test_a_task_prints_each_metric_and_what_was_scored_and_is_not_computed_twice(
    trained: Path, tmp_path: Path, choice: str
) -> None:
    words = ["--run", str(trained), "--tasks", "tiny_choice, tiny_choice", "--output", str(tmp_path / "scores"), choice]
    answer = evaluate(*words)
    assert answer.exit_code == 0, answer.output
    kept = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    value = kept["metrics"]["tiny_choice/accuracy"]
    metric, scored, where = answer.stdout.splitlines()
    assert metric.startswith(f"tiny_choice/accuracy  {format_metric('tiny_choice/accuracy', value)}  ± ")
    assert metric.endswith(" (standard error)  floor 0.5000")
    fingerprint = kept["tasks"]["tiny_choice"]["data_fingerprint"][:12]
    assert scored == f"tiny_choice: test split, 3 questions, context of 16 tokens, data {fingerprint}"
    assert where == f"results: {tmp_path / 'scores' / 'evaluation.json'}"
    assert evaluate(*words).stdout.splitlines() == [metric, f"{scored}; computed before", where]
    limited = evaluate(*words, "--limit", "2")
    assert "tiny_choice: test split, 2 questions, the first 2 alone, context of 16 tokens" in limited.stdout


def test_a_saved_model_is_scored_on_a_task_with_a_context_of_its_own(trained: Path, choice: str) -> None:
    words = ["--tasks", "tiny_choice", choice, "data.tokenizer=bytes", "data.seq_len=8"]
    answer = evaluate("--model", str(trained / "model"), *words)
    assert answer.exit_code == 0, answer.output
    assert ", context of 8 tokens, data " in answer.stdout
    assert "results:" not in answer.stdout


def test_a_folder_without_a_trial_is_a_mistake(tmp_path: Path) -> None:
    answer = evaluate("--run", str(tmp_path / "nothing"))
    assert answer.exit_code == 2
    assert answer.stderr.count("error:") == 1
    assert answer.stdout == ""


def test_what_is_printed_of_a_metric_is_all_that_is_known_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    reference = Reference(metric="test/accuracy", value=0.5, model="gpt2", source="a paper", split="test")
    facts = replace(TASKS.get("wikitext2").facts, references=(reference, replace(reference, metric="other/metric")))
    content = {
        "metrics": {"test/accuracy": {"value": 0.25, "standard_error": 0.0123}},
        "floor": {"test/accuracy": 0.125},
        "limit": 7,
        "split": "validation",
        "n_items": 1234,
        "item": "questions",
        "n_cut": 2000,
        "seq_len": 64,
        "data_fingerprint": "0123456789abcdef",
    }
    command._answer(SimpleNamespace(content=content, facts=facts, kept=True), make_console())
    assert capsys.readouterr().out.splitlines() == [
        "test/accuracy  0.2500  ± 0.012 (standard error)  floor 0.1250  published 0.5 (gpt2; a paper)",
        f"{facts.name}: validation split, 1,234 questions, the first 7 alone, 2,000 cut by the context, "
        "context of 64 tokens, data 0123456789ab; computed before",
    ]
