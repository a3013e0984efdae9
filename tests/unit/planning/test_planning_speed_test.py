"""A few real steps, timed: what a measuring process answers, and how the answers of several become samples."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from stackwise_ray.config.loading import load_trial
from stackwise_ray.core.calibration_store import Calibration, CalibrationKey, Sample
from stackwise_ray.core.environment import usable_cores
from stackwise_ray.data import prepare
from stackwise_ray.planning import calibration_runs, speed_test
from stackwise_ray.planning.calibration_runs import Place, calibrate, places_here, tiny_trials
from stackwise_ray.planning.speed_test import FEWEST_STEPS, main, measure
from tests.small_trials import TRIAL, run, with_training

pytestmark = pytest.mark.usefixtures("module_cache")

WORDS = (
    "model=decoder/gpt2_family/tiny model.n_layers=1 model.d_model=16 model.n_heads=2 model.d_ff=32 data=markov "
    "data.markov.n_tokens=4000 data.seq_len=16 data.validation_tokens=256 training.batch_tokens=64"
)


def test_what_is_measured_is_what_a_run_of_the_trial_counts(tmp_path: Path) -> None:
    trial = with_training(TRIAL, accumulation=2)
    kind, sample = measure(trial, prepare(trial.data), threads=1, baseline_bytes=77, seconds=0.0)
    _, result = run(trial, tmp_path)
    assert kind == CalibrationKey(family="gpt2", threads=1)
    assert sample.flops_per_step == result.metrics["flops/total"] / 6
    assert sample.baseline_bytes == 77
    assert sample.memory_ratio == pytest.approx(1.0, abs=0.1)
    assert sample.startup_s is not None
    assert sample.flops_per_s is not None
    assert 0 < sample.startup_s < 60
    assert 1e5 < sample.flops_per_s < 1e13


def test_it_trains_for_the_seconds_and_no_fewer_than_the_fewest_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    data, now, taken = prepare(TRIAL.data), [0.0], []
    # A clock on which every step takes a second.
    monkeypatch.setattr("stackwise_ray.planning.speed_test._now", lambda device: now[0])

    class Counting(speed_test.TrainingStep):
        def take(self, **arguments: object) -> object:
            now[0] += 1.0
            taken.append(arguments["first_sequence"])
            return super().take(**arguments)

    monkeypatch.setattr(speed_test, "TrainingStep", Counting)
    for seconds, steps in ((0.0, FEWEST_STEPS), (5.0, 5)):
        taken.clear()
        _, sample = measure(TRIAL, data, threads=1, baseline_bytes=1, seconds=seconds)
        assert taken == [8 * number for number in range(2 + steps)], "a warm-up of two, and each its own sequences"
        assert sample.flops_per_s == sample.flops_per_step, "one step per second"


def test_a_process_answers_one_line_per_trial_and_names_what_cannot_be_built(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = f"{WORDS} model.n_heads=3"
    main(["1", "0", "[]", wrong, WORDS])
    refused, measured = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert refused["words"] == wrong
    assert "n_heads" in refused["problem"]
    assert measured["words"] == WORDS
    assert CalibrationKey(**measured["kind"]) == CalibrationKey(family="gpt2", threads=1)
    sample = Sample(**measured["sample"])
    assert sample.baseline_bytes is not None
    assert sample.baseline_bytes > 10_000_000


ANSWERS = """#!/bin/sh
# A measuring process that has measured already: one line per trial, and its variables as what it measured.
shift 5
for words in "$@"; do
  case "$words" in
    *wrong*) echo "{\\"words\\": \\"$words\\", \\"problem\\": \\"no such model\\"}" ;;
    *dies*) echo "Traceback" >&2; echo "MemoryError: too large" >&2; exit 1 ;;
    *) echo "{\\"words\\": \\"$words\\", \\"kind\\": {\\"family\\": \\"gpt2\\", \\"threads\\": $OMP_NUM_THREADS}," \\
            "\\"sample\\": {\\"flops_per_step\\": 5, \\"flops_per_s\\": $SPEED}}" ;;
  esac
done
"""


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes answer at once."""
    (tmp_path / "python").write_text(ANSWERS)
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


@pytest.mark.usefixtures("answering")
def test_every_place_gives_a_sample_and_a_wrong_trial_is_named(tmp_path: Path) -> None:
    calibration = Calibration(tmp_path / "calibration.json")
    at = [Place(device="cpu", variables={"SPEED": speed}) for speed in ("100", "300")]
    trials = ["one", "wrong", "two"]
    found = list(calibrate(trials, at=at, threads=3, seconds=0.5, calibration=calibration))
    assert [measurement.words for measurement in found] == trials
    assert [measurement.problem for measurement in found] == [None, "no such model", None]
    assert [[sample.flops_per_s for sample in measurement.samples] for measurement in found] == [
        [100, 300],
        [],
        [100, 300],
    ]
    measured = calibration.measured(CalibrationKey(family="gpt2", threads=3), 5)
    assert measured is not None
    assert measured.flops_per_s == 200
    assert calibration.measured(CalibrationKey(family="gpt2", threads=1), 5) is None


@pytest.mark.usefixtures("answering")
def test_after_a_process_has_died_its_last_words_are_the_last_answer(tmp_path: Path) -> None:
    at = [Place(device="cpu", variables={"SPEED": "100"})]
    calibration = Calibration(tmp_path / "calibration.json")
    first, last = calibrate(["one", "dies", "two"], at=at, threads=1, seconds=0.5, calibration=calibration)
    assert (first.words, first.problem) == ("one", None)
    assert (last.words, last.problem, last.samples) == ("dies", "MemoryError: too large", ())


def test_this_machine_measures_as_many_at_once_as_its_cores_hold() -> None:
    cores = usable_cores()
    assert places_here("cpu", 1) == (Place(device="cpu"),) * min(cores, calibration_runs.MOST_AT_ONCE)
    assert places_here("cpu", cores) == (Place(device="cpu"),)


def test_a_tiny_preset_that_is_wrong_is_one_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    presets = ["decoder/bk_family/tiny", "decoder/nothing/tiny", "decoder/gpt2_family/small"]
    monkeypatch.setattr(calibration_runs, "list_presets", lambda kind: presets)
    *bk, wrong = tiny_trials()
    assert wrong == "model=decoder/nothing/tiny"
    kinds = [load_trial(words.split()).model.mixer.kind for words in bk]
    assert len(kinds) == len(set(kinds)) > 2
