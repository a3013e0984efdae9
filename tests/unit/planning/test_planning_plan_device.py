"""The device that a plan assumes: that of the trial, by the name under which runs and the doctor store its speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackwise_ray.config.loading import load_trial
from stackwise_ray.core import calibration_store
from stackwise_ray.core.calibration_store import Calibration, Sample
from stackwise_ray.planning.calibration_key import calibration_key
from stackwise_ray.planning.plan_device import PlanDevice

SAMPLE = Sample(flops_per_step=1e9, flops_per_s=1e13)
GPT2 = "model=decoder/gpt2_family/tiny"
BK = "model=decoder/bk_family/tiny"


@pytest.fixture
def calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calibration:
    """What a machine without a GPU has stored, whatever machine this is."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("STACKWISE_BK_BACKEND", raising=False)
    return Calibration(tmp_path / "calibration.json")


def measure_elsewhere(
    calibration: Calibration, monkeypatch: pytest.MonkeyPatch, gpu: str, words: str = GPT2, backend: str | None = None
) -> None:
    """What the doctor or a run stores on a machine with the GPU, with four threads per trial."""
    key = calibration_key(load_trial([words]), device=gpu, threads=4, backend=backend)
    with monkeypatch.context() as there:
        there.setattr(calibration_store, "machine_signature", lambda: f"a node with {gpu} x64")
        calibration.add(key, SAMPLE)


@pytest.mark.parametrize(("words", "backend"), [(GPT2, None), (BK, "triton")])
def test_a_plan_on_a_machine_without_a_gpu_finds_what_the_only_kind_of_gpu_was_measured_to_do(
    calibration: Calibration, monkeypatch: pytest.MonkeyPatch, words: str, backend: str | None
) -> None:
    measure_elsewhere(calibration, monkeypatch, "NVIDIA H200", words, backend)
    trial = load_trial([words])
    device = PlanDevice.given(1, calibration).of(trial)
    assert device == PlanDevice(name="NVIDIA H200", here=False)
    key = calibration_key(trial, device=device.name, threads=8, backend=device.backend(trial))
    measured = calibration.measured(key, 1e9)
    assert measured is not None
    assert measured.flops_per_s == 1e13


def test_a_share_of_a_gpu_has_not_the_speed_of_a_whole_one(
    calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_elsewhere(calibration, monkeypatch, "NVIDIA H200")
    device = PlanDevice.given(0.25, calibration)
    key = calibration_key(load_trial([GPT2]), device=device.name, threads=8, backend=None, gpu_share=device.share)
    assert calibration.measured(key, 1e9) is None


def test_of_two_kinds_of_gpu_none_is_taken(calibration: Calibration, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PlanDevice.given(1, calibration).name == "cuda"
    measure_elsewhere(calibration, monkeypatch, "NVIDIA H200")
    measure_elsewhere(calibration, monkeypatch, "NVIDIA L4")
    assert calibration.gpus() == ("NVIDIA H200", "NVIDIA L4")
    assert PlanDevice.given(1, calibration) == PlanDevice(name="cuda", here=False)


def test_without_a_gpu_given_or_with_the_cpu_named_the_plan_is_of_the_cpu(
    calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # also on a machine that has one
    monkeypatch.setattr("torch.cuda.get_device_name", lambda number: "NVIDIA L4")
    assert PlanDevice.given(0, calibration).of(load_trial([GPT2])).name == "cpu"
    assert PlanDevice.given(1, calibration).of(load_trial([GPT2])) == PlanDevice(name="NVIDIA L4")
    assert PlanDevice.given(1, calibration).of(load_trial([GPT2, "training.device=cpu"])).name == "cpu"


def test_the_speed_of_a_processor_is_never_another_machines(
    calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_elsewhere(calibration, monkeypatch, "cpu")
    key = calibration_key(load_trial([GPT2]), device="cpu", threads=4, backend=None)
    assert calibration.measured(key, 1e9) is None
    assert calibration.gpus() == ()
