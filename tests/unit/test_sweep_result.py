"""What `stackwise_ray.run` gives back: short at a prompt, an answer in a notebook, an error where all trials failed."""

from __future__ import annotations

import html
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis import write_report
from stackwise_ray.config.loading import sweep_from_plain
from stackwise_ray.config.reading.yaml import dump_yaml
from stackwise_ray.core.errors import SweepFailedError
from stackwise_ray.distributed import driver
from stackwise_ray.sweep import SweepResult, print_answer, run
from stackwise_ray.sweep import app as sweep_app
from stackwise_ray.terminal import make_console
from stackwise_ray.train import app as train_app

sys.path.append(str(Path(__file__).parent / "analysis"))
from synthetic_sweeps import JournalBuilder, train_nothing, write_ablation

DOCUMENT = {
    "name": "s",
    "base": {"model": "decoder/gpt2_family/tiny", "data": "markov", "overrides": {"training.budget": {"steps": 2}}},
    "design": {"kind": "arms", "arms": {"a": {}, "b": {"model.d_ff": 128}}, "baseline": "a"},
}


def test_a_result_is_short_at_the_prompt_and_an_answer_in_a_notebook(tmp_path: Path) -> None:
    summary = write_report(write_ablation(tmp_path / "ablation"))
    outcome = driver.SweepOutcome(
        directory=tmp_path / "ablation", trials=tuple(summary.sweep.trials), failed=(), report=summary.report
    )
    result = SweepResult(directory=tmp_path / "ablation", failed=(), outcome=outcome, summary=summary)
    shown = repr(result)
    assert len(shown.splitlines()) <= 20
    assert len(shown) < 1500
    assert "29 finished, 1 failed" in shown
    assert summary.verdict in shown
    page = html.unescape(result._repr_html_())
    assert summary.verdict in page
    assert str(summary.report) in page


@pytest.fixture
def all_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a sweep of which every trial has failed, which a run finds."""
    builder = JournalBuilder(tmp_path / "s")
    for arm in "ab":
        builder.trial(arm, 0, status="failed", reason="loss is NaN at step 1")
    builder.meta(sweep={"name": "s", "design": {"baseline": "a"}})
    folder = builder.close()
    train_nothing(monkeypatch, folder)
    return folder


def test_a_sweep_of_which_every_trial_failed_is_an_error_with_its_result(all_failed: Path, tmp_path: Path) -> None:
    with pytest.raises(SweepFailedError, match="All 2 trials failed, so there is no result") as caught:
        run(sweep_from_plain(DOCUMENT), tmp_path)
    assert caught.value.result.directory == all_failed
    assert "loss is NaN at step 1" in str(caught.value)
    assert "All 2 trials failed" in repr(caught.value.result)


@pytest.mark.parametrize("command", ["sweep", "train --multirun"])
def test_a_command_prints_a_sweep_of_which_every_trial_failed_as_any_other(
    all_failed: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "s.yaml").write_text(dump_yaml(DOCUMENT))
    words = ["model=decoder/gpt2_family/tiny", "data=markov", "training.budget.steps=2", "model.d_ff=64,128"]
    app, words = (sweep_app, [str(tmp_path / "s.yaml")]) if command == "sweep" else (train_app, ["--multirun", *words])
    done = CliRunner().invoke(app, [*words, "--output", str(tmp_path)])
    assert done.exit_code == 1, done.output
    assert "All 2 trials failed, so there is no result" in " ".join(done.output.split())
    assert "failed: a, seed 0, replicate" in done.output
    assert f"report: {all_failed / 'report'}" in done.output


def test_a_pipe_gets_the_place_of_the_report_and_the_command_to_see_it_in_mlflow_on_a_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, ui = (
        Path("/a folder", *["deep"] * 60, "report.html"),
        f"python -m mlflow ui --port 5000 # {'long ' * 60}end",
    )
    outcome = driver.SweepOutcome(directory=tmp_path, trials=(), failed=(), report=report, ui=ui)
    result = SweepResult(directory=tmp_path, failed=(), outcome=outcome, summary=None)
    print_answer(result, make_console(), as_json=False)
    assert capsys.readouterr().out.splitlines() == [f"report: {report}", f"MLflow: {ui}"]


def test_json_on_standard_output_is_all_of_it(all_failed: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(dump_yaml(DOCUMENT))
    done = CliRunner().invoke(sweep_app, [str(tmp_path / "s.yaml"), "--output", str(tmp_path), "--json"])
    assert done.exit_code == 1, done.output
    assert json.loads(done.stdout)["trials"] == {"failed": 2}
