"""What a GPU computes slowly, by the facts of real cards, and what a trial on it records."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stackwise_ray.running import run
from stackwise_ray.training.device_facts import DeviceFacts


def card(name: str, major: int, minor: int) -> DeviceFacts:
    return DeviceFacts(name=name, capability=(major, minor), memory_bytes=16 * 2**30, cuda="13.0")


@pytest.mark.parametrize(
    ("facts", "emulates", "times"),
    [
        (card("NVIDIA H200", 9, 0), False, None),
        (card("NVIDIA A100", 8, 0), False, None),
        (card("Tesla V100", 7, 0), True, None),
        (card("Tesla T4", 7, 5), True, 32),
        (card("NVIDIA GeForce RTX 3090", 8, 6), False, 64),
        (card("NVIDIA L4", 8, 9), False, 64),
        (card("NVIDIA GeForce RTX 5090", 12, 0), False, 64),
        (card("a card of the future", 13, 7), False, None),
    ],
)
def test_cards_differ_in_bf16_and_float64(facts: DeviceFacts, emulates: bool, times: int | None) -> None:
    assert (facts.emulates_bf16, facts.slow_float64) == (emulates, times)


def test_only_what_a_trial_uses_is_remarked() -> None:
    turing = card("Tesla T4", 7, 5)
    assert turing.remarks(precision="fp16", resolvent=False) == {}
    assert "write training.precision: fp16" in turing.remarks(precision="bf16", resolvent=False)["bf16"]
    assert list(turing.remarks(precision="bf16", resolvent=True)) == ["bf16", "float64"]
    assert card("NVIDIA H200", 9, 0).remarks(precision="bf16", resolvent=True) == {}


def test_what_is_unknown_of_a_card_is_absent_from_the_record() -> None:
    assert card("NVIDIA L4", 8, 9).record() == {
        "cuda": "13.0",
        "device_memory_bytes": 16 * 2**30,
        "compute_capability": "8.9",
    }


@pytest.mark.parametrize(("given", "share"), [(0.5, 0.5), (1.0, 1.0), (None, None)])
def test_a_record_says_how_many_gpus_and_which_share_of_each(
    given: float | None, share: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "read_facts", lambda device: card("Tesla T4", 7, 5))
    worker: Any = SimpleNamespace(_gpus=given, _device=None, _log=SimpleNamespace(warning=lambda text: None))
    assembly: Any = SimpleNamespace(world_size=2, trial=SimpleNamespace(training=SimpleNamespace(precision="bf16")))
    record = run._Worker._gpu_record(worker, assembly, resolvent=True)
    assert (record["gpus"], record.get("gpu_share"), record["computes_slowly"]) == (2, share, "bf16, float64")
