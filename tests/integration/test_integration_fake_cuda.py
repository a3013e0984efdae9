"""Whole trials on a CUDA device that has sizes and no data (`tests.fake_cuda`): what a GPU would refuse or wait for.

It shows that devices do not mix, that a plain step waits for nothing, that counted FLOPs are planned FLOPs with CUDA's
own attention, and that no float64 tensor is computed with. It cannot show values, speed, or what a kernel does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from tests.fake_cuda.device import CARD
from tests.fake_cuda.faults import FAULTS
from tests.fake_cuda.trials import COUNTED, COVERING, PLAIN, TRIALS

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("g++") or shutil.which("c++")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(COMPILER is None or sys.platform != "linux", reason="the guard needs a C++ compiler and Linux"),
]

Report = dict[str, Any]
SHARED = "whole splits on a share of the device"
ALLOWED = {"transfer to the device, pinned"}
"""What a plain step may do beside computing: its batch comes without anybody waiting."""
REST = tuple(name for name in TRIALS if name not in COVERING)
UNTRAINED = ("evaluation", "generate", "generate of bk")
ALL = [*COVERING, *(pytest.param(name, marks=pytest.mark.exhaustive) for name in REST)]
TRAINED = [each for each in ALL if each not in UNTRAINED]


class Reports:
    """One process runs all that cover the others, at the first question, and one all others: torch is imported once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = compiled_guard(folder)
        self._known: dict[str, Report] = {}

    def __getitem__(self, name: str) -> Report:
        if name not in self._known:
            self._known |= self._run(REST if name in REST else ())
        return self._known[name]

    def _run(self, names: Collection[str]) -> dict[str, Report]:
        written = self._folder / f"reports-{len(names)}.json"
        command = [sys.executable, "-m", "tests.fake_cuda.trials", str(written), *names]
        environment = {**os.environ, "LD_PRELOAD": str(self._guard)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        found: dict[str, Report] = json.loads(written.read_text())
        return found


def compiled_guard(folder: Path) -> Path:
    import torch

    home, guard = Path(torch.__file__).parent, folder / "guard.so"
    headers = [f"-isystem{home / 'include'}", f"-isystem{home / 'include/torch/csrc/api/include'}"]
    libraries = [f"-L{home / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{home / 'lib'}"]
    source = str(ROOT / "tests/fake_cuda/guard.cpp")
    words = [str(COMPILER), "-w", "-O1", "-std=c++17", "-shared", "-fPIC", *headers, source, *libraries]
    subprocess.run([*words, "-o", str(guard)], check=True)
    return guard


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    return Reports(tmp_path_factory.mktemp("fake_cuda"))


def noted(report: Report, during: str, *, but: Collection[str] = ()) -> set[tuple[str, str]]:
    """What was noted while the program did this, and where."""
    return {(what, where) for at, what, where, _ in report["events"] if at == during and what not in but}


def doubles(report: Report) -> set[tuple[str, str]]:
    return {(what, where) for at, what, where, _ in report["doubles"] if at in (PLAIN, COUNTED)}


@pytest.mark.parametrize("name", ALL)
def test_nothing_mixes_devices_or_lacks_a_rule(reports: Reports, name: str) -> None:
    assert reports[name]["failure"] is None


@pytest.mark.parametrize("name", TRAINED)
def test_a_plain_step_waits_for_nothing(reports: Reports, name: str) -> None:
    assert reports[name]["plain_steps"] >= 4
    assert noted(reports[name], PLAIN, but=ALLOWED) == set()


@pytest.mark.parametrize("name", TRAINED)
def test_counted_flops_are_planned_flops(reports: Reports, name: str) -> None:
    assert reports[name]["counted"] == reports[name]["planned"]


@pytest.mark.parametrize("name", TRAINED)
def test_no_step_computes_in_float64(reports: Reports, name: str) -> None:
    assert doubles(reports[name]) == set()


def test_attention_runs_in_cudas_own_kernels(reports: Reports) -> None:
    for name, kernel in (("gpt2, bf16", "flash"), (SHARED, "flash"), ("gpt2, float32", "efficient")):
        seen = {operation for during, operation, _ in reports[name]["operations"] if during == PLAIN}
        forward = f"aten::_scaled_dot_product_{kernel}_attention"
        assert {forward, f"{forward}_backward"} <= seen, name


def test_a_record_says_which_device_it_was_and_how_much_of_it(reports: Reports) -> None:
    found = reports["bk apply, bf16"]["environment"]
    assert found["device"] == CARD["name"]
    assert found["device_memory_bytes"] == CARD["total_memory"]
    assert found["compute_capability"] == f"{CARD['major']}.{CARD['minor']}"
    assert found["gpus"] == 1


def test_a_share_of_the_device_is_recorded_and_measured_as_one(reports: Reports) -> None:
    assert reports[SHARED]["environment"]["gpu_share"] == 0.25
    assert "gpu_share" not in reports["gpt2, bf16"]["environment"]
    kinds = reports[SHARED]["measured"]
    assert any(kind.endswith("share 0.25") for kind in kinds)


def test_an_interrupted_trial_goes_on_from_its_checkpoint(reports: Reports) -> None:
    assert reports["interruption"]["checkpoints"]
    assert reports["interruption"]["continued"]


def test_a_saved_model_is_scored_and_tokens_are_generated(reports: Reports) -> None:
    assert "test/perplexity_byte" in reports["evaluation"]["scores"]
    for name in ("generate", "generate of bk"):
        batch, length = reports[name]["shape"]
        assert batch == 2
        assert length > 5


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(reports: Reports, fault: str) -> None:
    report = reports[fault]
    found = (report["failure"] or "") + str(noted(report, PLAIN, but=ALLOWED)) + str(doubles(report))
    assert SIGNS[fault] in found


SIGNS = {
    "a tensor of the CPU": "tensors of cuda and of cpu",
    "a value that is read": "value read",
    "a generator of the CPU": "expected a generator of cuda",
    "a float64 buffer": "aten::zeros",
    "a copy from pageable memory": "transfer to the device, waiting",
    "an operation without a FLOP rule": "no FLOP rule for operation aten::special_bessel_j0",
}
