"""Which backend computes: listed, forced by the environment, chosen by device, refused with a reason."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from stackwise_ray.config.trial import ResolventApplyMixer
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.kernels import BACKENDS, available_backends, choose_backend, resolvent_diagonal
from stackwise_ray.models import build_model
from stackwise_ray.planning.calibration_key import backend_of
from tests.small_trials import with_model


def test_backends_are_listed_fastest_first_and_reference_last() -> None:
    assert available_backends()[-1] == "reference"
    assert "torch" in available_backends()


def test_environment_forces_a_backend_and_nothing_is_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STACKWISE_BK_BACKEND", raising=False)
    assert choose_backend() == available_backends()[0]
    monkeypatch.setenv("STACKWISE_BK_BACKEND", "reference")
    assert choose_backend() == "reference"
    assert choose_backend("torch") == "torch"
    monkeypatch.setenv("STACKWISE_BK_BACKEND", "torhc")
    with pytest.raises(
        ConfigError, match=r"STACKWISE_BK_BACKEND: unknown kernel backend 'torhc'; did you mean 'torch'"
    ):
        choose_backend()
    real, shift = torch.zeros(1, 1, 2), torch.full((1, 1, 2), 1j)
    with pytest.raises(ConfigError, match="unknown kernel backend 'nope'"):
        resolvent_diagonal(real, real[..., 1:], shift, causal=True, backend="nope")


def test_backend_that_cannot_run_here_is_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataclasses.replace(BACKENDS.get("torch"), name="absent", rank=0, unusable=lambda: "no compiler found")
    monkeypatch.setitem(BACKENDS._entries, "absent", broken)
    assert "absent" not in available_backends()
    usable = ", ".join(available_backends())
    with pytest.raises(ConfigError, match=rf"'absent' cannot run here: no compiler found; choose one of {usable}$"):
        choose_backend("absent")


def test_backend_is_chosen_by_the_device_of_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STACKWISE_BK_BACKEND", raising=False)
    assert choose_backend(device="cpu") != "host"  # an answer that is not remembered when another one registers
    host_only = dataclasses.replace(BACKENDS.get("torch"), name="host", rank=0, devices=frozenset({"cpu"}))
    monkeypatch.setitem(BACKENDS._entries, "host", host_only)
    assert choose_backend(device="cpu") == "host"
    assert choose_backend(device="cuda") in ("triton", "torch")
    assert choose_backend("host", "meta") == "host"
    with pytest.raises(
        ConfigError, match=r"'host' does not compute on cuda; choose one of (triton, )?torch, reference$"
    ):
        choose_backend("host", "cuda")


def test_a_model_on_the_cpu_of_a_machine_with_a_gpu_takes_no_backend_of_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> torch.Tensor:
        raise AssertionError("the GPU's backend was called for tensors of the CPU")

    gpu = dataclasses.replace(
        BACKENDS.get("torch"), name="gpu", rank=0, devices=frozenset({"cuda"}), diagonal=refuse, apply=refuse
    )
    monkeypatch.setitem(BACKENDS._entries, "gpu", gpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("STACKWISE_BK_BACKEND", raising=False)
    assert choose_backend() == "gpu"
    trial = with_model(family="bk", n_heads=None, mixer=ResolventApplyMixer(n_heads=2))
    assert backend_of(trial, "cpu") == choose_backend(device="cpu") != "gpu"
    model = build_model(trial.model, vocab_size=20, seq_len=8)
    assert bool(model(input_ids=torch.zeros(1, 8, dtype=torch.long)).logits.isfinite().all())
