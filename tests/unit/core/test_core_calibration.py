"""The machine's calibration: medians by hand, nothing predicted that was not measured, safe among processes."""

from __future__ import annotations

import fcntl
import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stackwise_ray.core.cache_place import cache_directory
from stackwise_ray.core.calibration_store import SAMPLES_KEPT, Calibration, CalibrationKey, Sample, calibration_path

KIND = CalibrationKey(family="gpt2", threads=2)


@pytest.fixture
def calibration(tmp_path: Path) -> Calibration:
    return Calibration(tmp_path / "cache" / "calibration.json")


def stored(calibration: Calibration) -> dict[str, int]:
    """How many samples the file has of every kind of run."""
    ((_, kinds),) = json.loads(calibration.path.read_text())["machines"].items()
    return {kind: len(samples) for kind, samples in kinds.items()}


def test_nothing_is_predicted_before_anything_was_measured(calibration: Calibration) -> None:
    assert calibration.measured(KIND, 1e9) is None
    assert calibration.predict_seconds(KIND, flops_per_step=1e9, flops_total=1e12) is None
    assert calibration.predict_peak_bytes(KIND, flops_per_step=1e9, live_peak_bytes=1e6) is None


def test_seconds_are_startup_plus_flops_over_the_median_speed(calibration: Calibration) -> None:
    for speed, startup in ((1e10, 1.0), (2e10, 2.0), (9e10, 30.0)):
        calibration.add(KIND, Sample(flops_per_step=1e9, flops_per_s=speed, startup_s=startup))
    seconds = calibration.predict_seconds(KIND, flops_per_step=1e9, flops_total=3e11, flops_evaluation=1e11)
    assert seconds == pytest.approx(2.0 + 4e11 / 2e10)


def test_bytes_are_the_corrected_tensors(calibration: Calibration) -> None:
    calibration.add(KIND, Sample(flops_per_step=1e9, memory_ratio=1.25))
    assert calibration.predict_peak_bytes(KIND, flops_per_step=1e9, live_peak_bytes=8e6) == pytest.approx(1e7)
    assert calibration.predict_seconds(KIND, flops_per_step=1e9, flops_total=1e12) is None


def test_samples_of_the_runs_own_size_count_alone(calibration: Calibration) -> None:
    calibration.add(KIND, Sample(flops_per_step=1e9, flops_per_s=1e10))
    calibration.add(KIND, Sample(flops_per_step=1e12, flops_per_s=8e10))
    small, large = calibration.measured(KIND, 2e9), calibration.measured(KIND, 1e12)
    assert small is not None
    assert large is not None
    assert small.flops_per_s == 1e10
    assert large.flops_per_s == 8e10


def test_beyond_the_measured_sizes_the_nearest_is_used(calibration: Calibration) -> None:
    calibration.add(KIND, Sample(flops_per_step=1e9, flops_per_s=1e10))
    calibration.add(KIND, Sample(flops_per_step=1e6, flops_per_s=1e8))
    far = calibration.measured(KIND, 1e12)
    assert far is not None
    assert far.flops_per_s == 1e10


@pytest.mark.parametrize(
    "other",
    [
        CalibrationKey(family="llama", threads=2),
        CalibrationKey(family="gpt2", threads=1),
        CalibrationKey(family="gpt2", threads=2, device="NVIDIA H100"),
        CalibrationKey(family="gpt2", threads=2, precision="bf16"),
        CalibrationKey(family="gpt2", threads=2, mixer="none"),
        CalibrationKey(family="gpt2", threads=2, backend="torch"),
        CalibrationKey(family="gpt2", threads=2, compiled=True),
    ],
)
def test_one_kind_of_run_says_nothing_about_another(calibration: Calibration, other: CalibrationKey) -> None:
    calibration.add(KIND, Sample(flops_per_step=1e9, flops_per_s=1e10))
    assert calibration.measured(other, 1e9) is None


def test_old_samples_leave_as_new_ones_come(calibration: Calibration) -> None:
    for _ in range(SAMPLES_KEPT):
        calibration.add(KIND, Sample(flops_per_step=1e9, flops_per_s=1e10))
    for _ in range(SAMPLES_KEPT // 2 + 1):
        calibration.add(KIND, Sample(flops_per_step=1e9, flops_per_s=5e10))
    measured = calibration.measured(KIND, 1e9)
    assert measured is not None
    assert measured.flops_per_s == 5e10
    assert stored(calibration) == {KIND.text(): SAMPLES_KEPT}


def test_a_run_that_measured_no_speed_hides_no_speed_of_another_size(calibration: Calibration) -> None:
    calibration.add(KIND, Sample(flops_per_step=1e7, flops_per_s=1e9))
    calibration.add(KIND, Sample(flops_per_step=1e9, memory_ratio=1.1))
    measured = calibration.measured(KIND, 1e9)
    assert measured is not None
    assert (measured.flops_per_s, measured.memory_ratio) == (1e9, 1.1)


def test_many_runs_of_one_size_push_out_no_measurement_of_another(calibration: Calibration) -> None:
    calibration.add(KIND, Sample(flops_per_step=1e9, flops_per_s=1e10, startup_s=2.0))
    for _ in range(2 * SAMPLES_KEPT):
        calibration.add(KIND, Sample(flops_per_step=1e6, flops_per_s=1e8, startup_s=1.0))
    measured = calibration.measured(KIND, 1e9)
    assert measured is not None
    assert (measured.flops_per_s, measured.startup_s) == (1e10, 2.0)
    assert stored(calibration) == {KIND.text(): SAMPLES_KEPT + 1}


def test_what_few_runs_measure_is_not_pushed_out_by_what_all_do(calibration: Calibration) -> None:
    calibration.add(KIND, Sample(flops_per_step=1e9, flops_per_s=1e6, memory_ratio=1.1))
    for _ in range(2 * SAMPLES_KEPT):
        calibration.add(KIND, Sample(flops_per_step=1e9, flops_per_s=1e9))
    measured = calibration.measured(KIND, 1e9)
    assert measured is not None
    assert measured.memory_ratio == 1.1
    assert measured.flops_per_s == 1e9
    assert stored(calibration) == {KIND.text(): SAMPLES_KEPT + 1}


def test_a_rare_field_keeps_no_old_speed(calibration: Calibration) -> None:
    for _ in range(SAMPLES_KEPT):
        calibration.add(KIND, Sample(flops_per_step=1e9, flops_per_s=1e9, memory_ratio=1.1))
    for _ in range(SAMPLES_KEPT):
        calibration.add(KIND, Sample(flops_per_step=1e9, flops_per_s=1e10))
    measured = calibration.measured(KIND, 1e9)
    assert measured is not None
    assert (measured.flops_per_s, measured.memory_ratio) == (1e10, 1.1)


def test_an_entry_that_is_no_measurement_counts_as_not_there(calibration: Calibration) -> None:
    calibration.add(KIND, Sample(flops_per_step=1e9, flops_per_s=1e9))
    text = calibration.path.read_text()
    calibration.path.write_text(text.replace('"flops_per_s": 1000000000.0', '"flops_per_s": -1'))
    assert calibration.measured(KIND, 1e9) is None
    calibration.add(KIND, Sample(flops_per_step=1e9, flops_per_s=1e10))
    assert stored(calibration) == {KIND.text(): 1}


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_what_cannot_be_a_measurement_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="flops_per_s"):
        Sample(flops_per_step=1e9, flops_per_s=value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"version": 99, "machines": {}}',
        '{"version": 1}',
        '{"version": 1, "machines": {}, "starts": []}',
    ],
)
def test_a_damaged_or_newer_cache_holds_no_measurements(calibration: Calibration, content: str) -> None:
    calibration.path.parent.mkdir(parents=True)
    calibration.path.write_text(content)
    assert calibration.measured(KIND, 1e9) is None
    assert calibration.start_seconds() is None
    calibration.add(KIND, Sample(flops_per_step=1e9, flops_per_s=1e10))
    calibration.add_start(20.0)
    assert calibration.measured(KIND, 1e9) is not None
    assert calibration.start_seconds() == 20.0


def test_processes_that_add_at_once_lose_nothing(calibration: Calibration) -> None:
    code = (
        "import sys; from stackwise_ray.core.calibration_store import Calibration, CalibrationKey, Sample\n"
        "for i in range(3): Calibration(sys.argv[1]).add("
        "CalibrationKey(family=sys.argv[2]), Sample(flops_per_step=1e9, flops_per_s=1e10))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(calibration.path), name]) for name in "abc"]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert list(stored(calibration).values()) == [3, 3, 3]


def test_adding_waits_for_whoever_else_is_adding(calibration: Calibration) -> None:
    calibration.path.parent.mkdir()
    adding = threading.Thread(target=calibration.add, args=(KIND, Sample(flops_per_step=1e9, flops_per_s=1e10)))
    with open(calibration.path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        adding.start()
        adding.join(timeout=0.2)
        assert adding.is_alive()
        assert calibration.measured(KIND, 1e9) is None
    adding.join(timeout=10)
    assert calibration.measured(KIND, 1e9) is not None


def test_the_place_of_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path))
    assert calibration_path() == tmp_path / "calibration.json"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("STACKWISE_CACHE", "~/own")
    assert calibration_path().parent == tmp_path / "own" == cache_directory()
    monkeypatch.delenv("STACKWISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert calibration_path() == tmp_path / "xdg" / "stackwise_ray" / "calibration.json"
