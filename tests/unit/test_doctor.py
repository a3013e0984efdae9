"""The doctor: every line that can fail does so with a fix, and what it measures is what plans read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stackwise_ray import checkup
from stackwise_ray.checkup import Check
from stackwise_ray.config.loading import load_trial
from stackwise_ray.core.calibration_store import Calibration, CalibrationKey
from stackwise_ray.core.environment import usable_cores
from stackwise_ray.doctor import app
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


SOME = Check(name="some", status="ok", detail="as it should be")
BUSY = Check(name="load", status="note", detail="9.0 processes were running", fix="wait")


@pytest.fixture
def well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A machine on which all is well; the checks that were asked for, in their order. No process is started."""
    asked: list[str] = []

    def answers(name: str, answer: object) -> None:
        monkeypatch.setattr(checkup, name, lambda *about: asked.append(name) or answer)

    for name in ("python", "packages", "torch", "cuda", "data", "compiler", "cxx_compiler", "tracking", "ray", "load"):
        answers(f"check_{name}", replace(SOME, name=name))
    answers("check_disk", [replace(SOME, name="results")])
    answers("check_triton", None)
    answers("has_gpu", False)
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "cache"))
    return asked


def ask(*words: str) -> Result:
    return CliRunner().invoke(app, words, catch_exceptions=False)


def test_all_checks_are_made_in_order_and_the_next_command_is_named(well: list[str]) -> None:
    answer = ask("--no-calibrate")
    assert answer.exit_code == 0
    names = [
        "python",
        "packages",
        "torch",
        "cuda",
        "disk",
        "data",
        "compiler",
        "cxx_compiler",
        "triton",
        "tracking",
        "ray",
    ]
    assert well == [f"check_{name}" for name in names]
    *lines, last = answer.stdout.splitlines()
    assert lines[0] == "ok     python  as it should be"
    assert len(lines) == 10
    assert last == "all 10 checks pass; next: python -m stackwise_ray.sweep smoke"
    well.clear()
    assert ask("--no-calibrate", "--no-ray").exit_code == 0
    assert "check_ray" not in well


def test_json_is_all_of_standard_output_and_a_failure_is_exit_code_1(
    well: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = Check(name="data", status="fails", detail="no folder", fix="make it")
    monkeypatch.setattr(checkup, "check_data", lambda: fails)
    monkeypatch.setattr(checkup, "check_triton", lambda: BUSY)
    answer = ask("--no-calibrate", "--json")
    assert answer.exit_code == 1
    found = json.loads(answer.stdout)
    assert len(found) == 11
    assert {"name": "data", "status": "fails", "detail": "no folder", "fix": "make it"} in found
    assert "fails  data  no folder" in answer.stderr
    plain = ask("--no-calibrate")
    assert plain.exit_code == 1
    assert plain.stdout.splitlines()[-1] == "1 of 11 checks fail"
    assert "       fix: make it" in plain.stdout.splitlines()


def test_a_machine_that_is_busy_or_without_torch_is_not_measured(
    well: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "check_load", lambda: BUSY)
    answer = ask()
    assert answer.exit_code == 0
    assert answer.stdout.splitlines()[-2:] == [
        "       fix: wait",
        "all 11 checks pass; next: python -m stackwise_ray.sweep smoke",
    ]
    monkeypatch.setattr(checkup, "check_torch", lambda: replace(SOME, status="fails"))
    assert "load" not in ask("--even-if-busy").stdout


def test_what_was_measured_of_each_tiny_model_is_a_line(
    well: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers = """#!/bin/sh
    shift 5
    for words in "$@"; do
      case "$words" in
        *bert*) echo '{"words": "w", "problem": "no such model"}' ;;
        *) echo '{"words": "w", "kind": {"family": "gpt2"},' \\
          '"sample": {"flops_per_step": 5, "flops_per_s": 2.0e9, "startup_s": 1.25}}' ;;
      esac
    done
    """
    (tmp_path / "python").write_text(answers)
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    presets = ["decoder/gpt2_family/tiny", "encoder/bert_family/tiny", "decoder/gpt2_family/small"]
    monkeypatch.setattr("stackwise_ray.planning.calibration_runs.list_presets", lambda kind: presets)
    answer = ask("--threads", "1", "--seconds", "0.1")
    assert answer.exit_code == 1
    lines = answer.stdout.splitlines()
    at_once = min(usable_cores(), 8)
    speed = f"2.00GFLOP/s per trial with 1 thread(s), {at_once} at once; first step after 1.2 s"
    assert f"ok     speed, decoder/gpt2_family/tiny  {speed}" in lines
    assert "fails  speed, encoder/bert_family/tiny  no such model" in lines
    assert f"ok     calibration  for plans, in {tmp_path / 'cache' / 'calibration.json'}" in lines
    assert lines[-1] == "1 of 14 checks fail"


def test_a_checked_store_and_session_answer_in_their_own_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both ask a process of their own; what they make of its answer is read here."""
    python = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def says(script: str) -> tuple[Check, Check]:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        return checkup.check_ray(), checkup.check_tracking()

    ray, tracking = says("echo hello; echo slots 3 4.5; echo took 0.2")
    assert (ray.status, tracking.status, ray.fix, tracking.fix) == ("ok", "ok", None, None)
    assert ray.detail.endswith(" starts in 4.5 s, 3 trials at once")
    assert tracking.detail.endswith(", the default, SQLite: took a run in 0.2 s")
    ray, tracking = says("echo Traceback >&2; echo 'OSError: no room' >&2; exit 1")
    assert (ray.status, tracking.status) == ("fails", "fails")
    assert ray.detail.endswith(": OSError: no room")
    assert tracking.detail == "the default, SQLite: OSError: no room"
    assert tracking.fix == "reinstall mlflow: pip install --force-reinstall mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://away")
    _, tracking = says("echo $3 >&2")
    assert tracking.detail == "MLFLOW_TRACKING_URI: http://away"
    assert tracking.fix is not None
    assert tracking.fix.startswith("start the server")
    python.write_text("#!/bin/sh\nsleep 5\n")
    assert checkup.check_ray(seconds=0.05).detail.endswith(" did not start in 0.05 s")


@pytest.mark.parametrize(("load", "status"), [(0.2, "ok"), (99.0, "note")])
def test_a_busy_machine_is_a_note(monkeypatch: pytest.MonkeyPatch, load: float, status: str) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    check = checkup.check_load()
    assert (check.status, check.fix is None) == (status, status == "ok")
    assert check.detail == f"{load:.1f} processes were running over the last minute, on {usable_cores()} cores"


def test_torch_and_the_compilers_of_this_machine_work() -> None:
    torch = checkup.check_torch()
    assert torch.status == "ok"
    assert f", {usable_cores()} cores" in torch.detail
    for check in (checkup.check_compiler(), checkup.check_cxx_compiler()):
        assert check.status in ("ok", "note")
        assert (check.fix is None) == (check.status == "ok")


def test_a_package_that_is_missing_or_too_old_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": None, "transformers": "0.1"}
    real = checkup.package_version
    monkeypatch.setattr(checkup, "package_version", lambda name: versions.get(name, real(name)))
    check = checkup.check_packages()
    assert check.status == "fails"
    assert "torch is missing" in check.detail
    assert "transformers is 0.1, not " in check.detail
    assert check.fix is not None


def test_a_python_that_was_not_declared_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    check = checkup.check_python()
    assert (check.status, check.detail.split()[0]) == ("fails", "3.9.1")
    assert check.fix is not None
    assert check.fix.startswith("install Python >=3.11")
