"""`stackwise new`: the file that it writes, what it refuses, and that it writes nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stackwise_ray.config.loading import load_sweep
from stackwise_ray.core.calibration_store import Calibration, CalibrationKey, Sample
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.new import _data, app, seconds_of
from stackwise_ray.sweep import plan

ANSWERS = ["--model", "decoder/gpt2_family/tiny", "--against", "decoder/llama_family/tiny", "--data", "markov"]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a cache in which nothing is, on a machine that is never idle."""
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 99.0, 99.0))  # whatever else runs here now
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def measured(empty: Path) -> Path:
    """The same with a machine whose speed is known."""
    for family in ("gpt2", "llama"):
        sample = Sample(flops_per_step=2e9, flops_per_s=1e10, startup_s=1.0, memory_ratio=1.0)
        Calibration().add(CalibrationKey(family=family), sample)
    return empty


def new(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.output


def test_the_plan_of_the_file_fits_the_time_and_fills_it(measured: Path) -> None:
    code, said = new(*ANSWERS, "--time", "4min", "--claim", "Llama is better.", "--yes")
    assert code == 0, said
    (file,) = measured.iterdir()
    sweep = load_sweep(file)
    assert (file.name, sweep.name, sweep.question) == ("llama_vs_gpt2.yaml", "llama_vs_gpt2", "Llama is better.")
    seconds = plan(sweep).seconds
    assert seconds is not None
    assert 0.8 * 0.85 * 240 <= seconds <= 0.85 * 240
    assert said.splitlines()[-2:] == [
        "  python -m stackwise_ray.sweep llama_vs_gpt2.yaml --plan   # what would run, at what cost",
        "  python -m stackwise_ray.sweep llama_vs_gpt2.yaml          # run it: the answer, and a report",
    ]


@pytest.mark.slow
def test_seeds_and_tuning_are_in_the_time(measured: Path) -> None:
    assert new(*ANSWERS, "--hours", "0.25", "--yes", "--output", "x.yaml")[0] == 0
    made = plan(load_sweep("x.yaml"))
    assert {row.role for row in made.rows} == {"replicate", "tuning"}
    assert made.seconds is not None
    assert made.seconds <= 0.85 * 900


@pytest.mark.parametrize(("words", "time"), [(["--time", "1s"], "1 s"), (["--hours", "0.001"], "3.6 s")])
def test_a_time_that_is_too_short_says_what_would_do(measured: Path, words: list[str], time: str) -> None:
    code, said = new(*ANSWERS, *words, "--yes")
    assert code == 2
    assert f"--time = {time} is too short for 6 trials of 30 steps, which take about" in said
    assert list(measured.iterdir()) == []


def test_without_a_measurement_there_is_no_time_and_no_file(empty: Path) -> None:
    code, said = new(*ANSWERS, "--yes")
    assert code == 2
    assert "This machine has not been measured on: gpt2, llama." in said
    assert "99.0 processes were running over the last minute" in said
    assert "add --even-if-busy" in said
    assert list(empty.iterdir()) == []


@pytest.mark.slow
def test_what_is_missing_is_measured(empty: Path) -> None:
    code, said = new(*ANSWERS, "--yes", "--even-if-busy", "--time", "3min")
    assert code == 0, said
    kinds = json.loads((empty.parent / "cache" / "calibration.json").read_text())["machines"]
    assert sorted(key.split(" | ")[0] for machine in kinds.values() for key in machine) == ["gpt2", "llama"]
    assert (empty / "llama_vs_gpt2.yaml").is_file()


def test_a_file_that_is_there_is_kept_unless_it_is_forced(measured: Path) -> None:
    (measured / "mine.yaml").write_text("mine")
    (measured / "llama_vs_gpt2.yaml").write_text("mine")
    for words in (["--output", "mine.yaml"], []):
        code, said = new(*ANSWERS, "--yes", *words)
        assert code == 2
        assert "exists; give --force to write over it" in said
    assert {file.read_text() for file in measured.iterdir()} == {"mine"}
    assert new(*ANSWERS, "--yes", "--output", "mine.yaml", "--force")[0] == 0
    assert load_sweep("mine.yaml").name == "llama_vs_gpt2"


@pytest.mark.parametrize("given", range(0, 6, 2))
def test_where_nobody_can_be_asked_the_missing_option_is_named(empty: Path, given: int) -> None:
    code, said = new("--claim", "x", *ANSWERS[:given])
    assert code == 2
    assert f"error: {ANSWERS[given]}: is not given, and standard input is no terminal" in said


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--time", "10min", "--hours", "1"], "give one"),
        (["--time", "soon"], "write a number and its unit"),
        (["--model", "decoder/gpt2_family/tny"], "did you mean 'decoder/gpt2_family/tiny'"),
        (["--data", "wikitext"], "did you mean 'wikitext2'"),
        (["--data", "text_files"], "name its file or folder"),
        (["--data", "/no/such.txt"], "there is no such file or folder"),
        (["--claim", "bad \udcff byte"], "--claim: is no UTF-8 text"),
        (["--output", "."], "is a folder"),
    ],
)
def test_a_mistake_is_answered_with_what_to_write(empty: Path, words: list[str], problem: str) -> None:
    code, said = new(*words, "--yes")
    assert code == 2
    assert problem in " ".join(said.split())
    assert list(empty.iterdir()) == []


MEASURES = """#!/bin/sh
shift 5
for words in "$@"; do
  family=gpt2
  case "$words" in *llama*) family=llama ;; esac
  echo "{\\"words\\": \\"w\\", \\"kind\\": {\\"family\\": \\"$family\\"}," \\
    "\\"sample\\": {\\"flops_per_step\\": 2e9, \\"flops_per_s\\": 1e10, \\"startup_s\\": 1.0}}"
done
"""


def test_an_arm_that_was_not_measured_is_measured_and_then_planned(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty.parent / "python").write_text(MEASURES)
    (empty.parent / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(empty.parent / "python"))
    code, said = new(*ANSWERS, "--yes", "--even-if-busy", "--time", "4min")
    assert code == 0, said
    assert "This machine has not been measured on: gpt2, llama." in said
    assert said.splitlines().count("planning …") == 2
    assert (empty / "llama_vs_gpt2.yaml").is_file()
    kinds = json.loads((empty.parent / "cache" / "calibration.json").read_text())["machines"]
    assert sorted(key.split(" | ")[0] for machine in kinds.values() for key in machine) == ["gpt2", "llama"]


def test_data_are_a_preset_or_a_file_of_ones_own(empty: Path) -> None:
    assert _data("markov") == ("markov", None)
    (empty / "my text.txt").write_text("mine")
    assert _data("my text.txt") == ("text_files", "my text.txt")


@pytest.mark.slow
def test_a_text_of_ones_own_is_data(measured: Path) -> None:
    text = measured / "my text.txt"
    text.write_text("\n\n".join(f"This is paragraph {number} of a text." for number in range(6000)))
    code, said = new("--data", "my text.txt", "--against", "decoder/llama_family/tiny", "--time", "2min", "--yes")
    assert code == 0, said
    assert 'data.path: "my text.txt"' in (measured / "llama_vs_gpt2.yaml").read_text()


def test_a_time_has_a_unit() -> None:
    assert [seconds_of(text) for text in ("90s", "10min", "2h", "0.5 h")] == [90.0, 600.0, 7200.0, 1800.0]
    for text in ("10", "0min", "-1h", "10 days"):
        with pytest.raises(ConfigError, match="unit"):
            seconds_of(text)
