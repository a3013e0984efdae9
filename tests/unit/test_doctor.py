"""The doctor: every line that can fail does so with a fix, and what it measures is what plans read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stackwise_ray import checkup
from stackwise_ray.config.loading import load_trial
from stackwise_ray.core.calibration_store import Calibration, CalibrationKey
from stackwise_ray.core.environment import usable_cores
from stackwise_ray.training.device_facts import DeviceFacts
from tests.heavy_modules import run_and_list
from tests.own_cache import own_cache


def run_doctor(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stackwise_ray.doctor", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )


def test_its_help_has_examples_and_loads_nothing_heavy() -> None:
    output, loaded = run_and_list("from stackwise_ray.doctor import app; app(['--help'])")
    assert "python -m stackwise_ray.doctor --no-calibrate" in output
    assert loaded == []


def test_this_machine_has_a_python_and_packages_that_fit() -> None:
    assert checkup.check_python().status == "ok"
    assert checkup.check_packages().status == "ok"


def test_a_missing_data_folder_fails_and_a_present_one_is_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STACKWISE_DATA", raising=False)
    assert checkup.check_data().status == "ok"
    (tmp_path / "wikitext").mkdir()
    monkeypatch.setenv("STACKWISE_DATA", str(tmp_path))
    assert checkup.check_data().detail == "STACKWISE_DATA holds wikitext"
    monkeypatch.setenv("STACKWISE_DATA", str(tmp_path / "absent"))
    check = checkup.check_data()
    assert (check.status, check.fix) == ("fails", "set it to a folder that exists, or unset it")
    assert "no such file or directory" in check.detail


def test_a_file_where_results_should_go_fails(tmp_path: Path) -> None:
    (tmp_path / "experiments").write_text("")
    results = checkup.check_disk(tmp_path / "experiments" / "deeper")[0]
    assert (results.name, results.status) == ("results", "fails")
    assert results.detail == f"{tmp_path / 'experiments'} is a file"
    assert checkup.check_disk(tmp_path / "not" / "made" / "yet")[0].status == "ok"


def test_a_disk_with_too_little_room_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checkup, "LEAST_DISK", 2**60)  # more than any disk has
    assert checkup.check_disk(tmp_path)[0].status == "fails"


def test_a_compiler_that_is_missing_or_broken_is_a_note_with_a_fix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", "false")
    broken = checkup.check_compiler()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = checkup.check_compiler()
    monkeypatch.setenv("CXX", "no-such-compiler")
    without_cxx = checkup.check_cxx_compiler()
    assert (broken.status, missing.status, without_cxx.status) == ("note", "note", "note")
    assert (without_cxx.detail, bool(without_cxx.fix)) == ("no no-such-compiler", True)
    assert missing.detail == "no cc, gcc or clang"
    assert missing.fix is not None
    assert broken.fix is not None


H200 = DeviceFacts(name="NVIDIA H200", capability=(9, 0), memory_bytes=141 * 2**30, cuda="13.0", driver="580.65.06")
T4 = DeviceFacts(name="Tesla T4", capability=(7, 5), memory_bytes=16 * 2**30, cuda="12.8")
L4 = DeviceFacts(name="NVIDIA L4", capability=(8, 9), memory_bytes=24 * 2**30, cuda="13.0")


def test_gpus_are_listed_with_versions_and_with_what_they_compute_slowly() -> None:
    large = checkup.describe_gpus([H200, H200])
    assert (large.status, large.fix) == ("ok", None)
    assert large.detail == "CUDA 13.0, driver 580.65.06: NVIDIA H200 (141.0 GiB), NVIDIA H200 (141.0 GiB)"
    small = checkup.describe_gpus([L4])
    assert small.status == "ok"
    assert "NVIDIA L4 computes in float64 at 1/64 of its rate in float32" in small.detail
    assert "an estimate from data-sheet rates is 30 to 55 % more time per step" in small.detail
    old = checkup.describe_gpus([T4])
    assert (old.status, old.fix) == ("note", "write training.precision: fp16 where a file says bf16")
    assert "Tesla T4 computes bf16 by emulation" in old.detail


def test_more_threads_than_cores_are_refused() -> None:
    answer = run_doctor("--threads", str(usable_cores() + 1))
    assert answer.returncode == 2
    assert f"--threads = {usable_cores() + 1}" in answer.stdout + answer.stderr


@pytest.mark.slow
def test_a_failing_line_has_a_fix_and_makes_the_exit_code_1(tmp_path: Path) -> None:
    answer = run_doctor(
        "--no-ray",
        "--no-calibrate",
        "--json",
        STACKWISE_DATA=str(tmp_path / "absent"),
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
    )
    checks = {check["name"]: check for check in json.loads(answer.stdout)}
    assert answer.returncode == 1
    assert {name for name, check in checks.items() if check["status"] == "fails"} == {"data", "tracking"}
    assert all(check["fix"] for check in checks.values() if check["status"] != "ok")
    assert "delivers later" in checks["tracking"]["fix"]
    assert {"python", "packages", "torch", "cuda", "results", "compiler", "c++ compiler"} <= set(checks)


NOT_PURE = """
import itertools
from stackwise_ray.flags import FLAGS, Flag, Measure

calls = itertools.count(1)
FLAGS.register("restless")(
    Flag(name="restless", summary="Decays more at every call.", claim="None.",
         measured_by=(Measure(metric="validation/loss"),), needs=lambda trial: None,
         edits=lambda trial: {"optimizer.weight_decay": next(calls) / 100})
)
"""


@pytest.mark.slow
def test_a_plugin_that_keeps_its_promises_passes_and_one_that_breaks_one_is_named_with_it(tmp_path: Path) -> None:
    good = str(Path(__file__).parents[2] / "examples" / "08_your_own_flag.py")
    bad = tmp_path / "[restless].py"
    bad.write_text(NOT_PURE)
    cache = own_cache(tmp_path / "cache")
    words = ["--no-ray", "--no-calibrate", "--output", str(tmp_path), "--plugin", good, "--plugin", str(bad)]
    answer = run_doctor(*words, STACKWISE_CACHE=str(cache))
    assert answer.returncode == 1
    lines = answer.stdout.splitlines()
    assert [line.split()[0] for line in lines if good in line] == ["ok"] * 6
    assert f"ok     flag long_warmup ({good})  It has its own name" in answer.stdout
    broken, *others = [i for i, line in enumerate(lines) if line.startswith("fails")]
    assert all(lines[i].startswith(f"fails  flag restless ({bad})") for i in (broken, *others))
    assert "two calls of `edits` on one trial give different edits" in lines[broken]
    assert lines[broken + 1].strip() == "fix: correct the plugin"
    assert not (cache / "calibration.json").exists()


@pytest.mark.slow
def test_torch_ray_and_the_tracking_store_work_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for check in (checkup.check_torch(), checkup.check_tracking(), checkup.check_ray()):
        assert check.status == "ok", check


@pytest.mark.slow
def test_a_ray_that_does_not_start_in_time_fails_with_a_fix() -> None:
    check = checkup.check_ray(seconds=0.5)
    assert check.status == "fails"
    assert "did not start in 0.5 s" in check.detail
    assert check.fix is not None


@pytest.mark.slow
def test_what_it_measures_is_what_a_plan_reads_also_after_a_trial_that_cannot_be_built(
    tmp_path: Path,
) -> None:
    from stackwise_ray.planning.calibration_runs import calibrate, places_here
    from stackwise_ray.planning.trial_plan import plan_trial

    calibration = Calibration(tmp_path / "calibration.json")
    words = "model=decoder/gpt2_family/tiny data=markov training.batch_tokens=1024"
    at = places_here("cpu", 1)
    trials = ["model=decoder/gpt2_family/tiny model.n_heads=7", words]
    wrong, measurement = calibrate(trials, at=at, threads=1, seconds=0.2, calibration=calibration)
    assert wrong.problem is not None
    assert "n_heads" in wrong.problem
    assert measurement.problem is None
    assert len(measurement.samples) == len(at)
    trial = load_trial(words.split())
    plan = plan_trial(trial, vocab_size=260)
    per_token = plan.flops_forward_per_token + plan.flops_backward_per_token
    per_step = round(1024 * per_token + plan.flops_optimizer_per_step)
    assert {sample.flops_per_step for sample in measurement.samples} == {per_step}, "planned = counted, to the unit"
    kind = CalibrationKey(family="gpt2", threads=1)
    seconds = calibration.predict_seconds(kind, flops_per_step=per_step, flops_total=10 * per_step)
    assert seconds is not None
    measured = calibration.measured(kind, per_step)
    assert measured is not None
    assert measured.memory_ratio == pytest.approx(1.0, abs=0.1)
    assert measured.flops_per_s is not None
    assert 1e7 < measured.flops_per_s < 1e13


def test_every_tiny_preset_is_measured() -> None:
    from stackwise_ray.planning.calibration_runs import tiny_trials

    trials = tiny_trials()
    assert "model=decoder/gpt2_family/tiny" in trials
    assert "model=encoder/bert_family/tiny" in trials
    for words in trials:
        load_trial(words.split())
