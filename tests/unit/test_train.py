"""The command `train` in this process: what it prints, writes and refuses, and its exit codes."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import stackwise_ray.train as command
from stackwise_ray.contracts.small_trial import WORDS
from stackwise_ray.core.metric_catalogue import format_metric
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.training.trial_folder import TrialResult
from tests.small_trials import TRIAL

pytestmark = pytest.mark.usefixtures("module_cache")


def train(*words: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.chdir(folder)
    return CliRunner().invoke(command.app, words, catch_exceptions=False)


def test_a_trial_is_trained_into_a_folder_of_its_identity_and_answered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = train(*WORDS, "--threads", "1", folder=tmp_path, monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    (folder,) = (tmp_path / "runs").iterdir()
    metrics = json.loads((folder / "outputs" / "metrics.json").read_text())
    assert metrics["steps/total"] == 6
    first, quality, cost, where = done.stdout.splitlines()
    assert first == "gpt2 2×16 on markov: starting"
    assert quality.startswith(
        f"validation loss {format_metric('validation/loss', metrics['validation/loss'])} nats per"
    )
    assert cost.startswith("768 tokens, ")
    assert " training FLOPs, " in cost
    assert where == f"results: runs/{folder.name}"
    assert done.stderr == ""
    again = train(*WORDS, folder=tmp_path, monkeypatch=monkeypatch)
    assert again.stdout.splitlines()[1:] == [quality, cost, where]
    assert (folder / "attempt").read_text() == "2"

    other = train(*WORDS, "seed=1", "--output", str(folder), folder=tmp_path, monkeypatch=monkeypatch)
    assert other.exit_code == 2
    assert other.stderr.rstrip().endswith(
        "contains another trial (seed was 0, is 1); choose another --output, or delete this folder"
    )
    assert other.stdout == ""


def test_a_trial_that_fails_by_its_own_doing_ends_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*WORDS, "training.lr=1e30", "training.gradient_clip=null", "--output", "x"]
    failed = train(*words, folder=tmp_path, monkeypatch=monkeypatch)
    assert failed.exit_code == 1
    assert failed.stderr.startswith("failed: non-finite")
    assert "results:" not in failed.stdout
    assert (tmp_path / "x" / "config.yaml").is_file()


def test_a_plan_of_several_values_is_that_of_a_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [word for word in WORDS if "d_ff" not in word]
    words += ["model.d_ff=32,64", "training.lr=1e-3,1e-2", "--multirun", "--plan", "--json"]
    done = train(*words, folder=tmp_path, monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 4
    assert {row["steps"] for row in rows} == {6}
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_a_table_on_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = train(*WORDS, "--plan", folder=tmp_path, monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    assert "gpt2 2×16 on markov" in done.stdout
    assert "classical" in done.stdout
    assert done.stderr == ""


def test_a_mistake_of_the_words_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, said in (
        (["model=decoder/gpt2_family/tny"], "did you mean 'decoder/gpt2_family/tiny'"),
        ([*(word for word in WORDS if "batch_tokens" not in word), "training.batch_tokens=60"], "choose 48 or 64"),
        ([*WORDS, "--plan", "--output", "x"], "--plan writes nothing"),
        ([*WORDS, "--json"], "--json prints a plan: add --plan"),
        ([*WORDS, "--multirun", "--threads", "1"], "--threads is for one trial"),
    ):
        done = train(*words, folder=tmp_path, monkeypatch=monkeypatch)
        assert (done.exit_code, done.stderr.count("error:"), done.stdout) == (2, 1, ""), words
        assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def record(step: int, progress: float, **metrics: float) -> MetricRecord:
    values = {"progress": progress, **{name.replace("__", "/"): value for name, value in metrics.items()}}
    return MetricRecord(trial_id="t", attempt=1, step=step, tokens=1000 * step, flops=0, time=0.0, metrics=values)


def test_a_pipe_gets_a_line_per_minute_with_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(command.time, "monotonic", lambda: now[0])
    console = Console(file=io.StringIO(), width=200)
    with command.Display(console, TRIAL) as display:
        now[0] += 500.0
        display.show(replace(record(0, 0.0), doing="compiling"))
        display.show(record(1, 0.1, train__loss=4.0))
        now[0] += 30.0
        display.show(record(2, 0.2, validation__loss=3.5))
        now[0] += 30.0
        display.show(record(3, 0.3, train__loss=3.0, throughput__tokens_per_s=2000.0))
        now[0] += 59.0
        display.show(record(4, 1.0))
        now[0] += 1.0
        display.show(record(5, 1.0))
    quality = "loss 3.0000, validation 3.5000, 2.00k tokens/s"
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "gpt2 2×16 on markov: starting",
        "gpt2 2×16 on markov: compiling …",
        "gpt2 2×16 on markov: 10%, step 1, 1.00k tokens, loss 4.0000",
        f"gpt2 2×16 on markov: 30%, step 3, 3.00k tokens, {quality}, 3 min 30 s left",
        f"gpt2 2×16 on markov: 100%, step 5, 5.00k tokens, {quality}",
    ]


def test_a_terminal_shows_a_bar_that_is_gone_afterwards() -> None:
    terminal = Console(file=io.StringIO(), width=100, force_terminal=True)
    with command.Display(terminal, TRIAL) as display:
        display.show(record(3, 0.5, train__loss=3.0))
        assert display._progress is not None
        (task,) = display._progress.tasks
        assert (task.description, task.completed, task.total) == ("gpt2 2×16 on markov", 0.5, 1.0)
        assert task.fields["text"] == "step 3, 3.00k tokens, loss 3.0000"
        display.show(replace(record(4, 0.6), doing="evaluating"))
        assert task.fields["text"] == "evaluating …"
    assert not display._progress.live.is_started


def test_the_answer_names_every_quality_that_was_measured_and_what_it_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"tokens/total": 2e6, "flops/total": 3e9, "validation/loss": 1.5, "test/perplexity_byte": 2.25}
    command._answer(TrialResult(metrics=metrics, directory=tmp_path, environment={}), command.make_console())
    masked = metrics | {"validation/masked_loss": 2.5, "throughput/tokens_per_s": 1000.0}
    command._answer(TrialResult(metrics=masked, directory=tmp_path, environment={}), command.make_console())
    assert capsys.readouterr().out.splitlines() == [
        "validation loss 1.5000 nats per token, 2.250 per byte",
        "2.00M tokens, 3.00G training FLOPs",
        f"results: {tmp_path}",
        "masked loss 2.5000 nats per token (mean of 15 to 90 % masked), validation loss 1.5000 on its own masks, "
        "2.250 per byte",
        "2.00M tokens, 3.00G training FLOPs, 1.00k tokens/s",
        f"results: {tmp_path}",
    ]
