"""How the workers of one trial add up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.trial.editing import to_plain
from stackwise_ray.distributed.messages import Assignment, RunSettings
from stackwise_ray.distributed.workers import backend_of_workers


@pytest.mark.parametrize(
    ("device", "gpus", "backend"),
    [("cpu", 1.0, "gloo"), ("cpu", 0.0, "gloo"), ("auto", 0.0, "gloo"), ("auto", 1.0, "nccl"), ("cuda", 1.0, "nccl")],
)
def test_workers_add_up_by_what_their_device_can(device: str, gpus: float, backend: str) -> None:
    """Also where a sweep gives GPUs to trials that train on the CPU."""
    trial = load_trial(["model=decoder/gpt2_family/tiny", "training.budget={steps: 3}"])
    assignment = Assignment(
        settings=RunSettings(worker="not:run", objective="loss", directory=Path("/nowhere"), workers=2, gpus=gpus),
        trial_id="t",
        attempt=1,
        trial=to_plain(replace(trial, training=replace(trial.training, device=device))),
        data_fingerprint="f",
    )
    assert backend_of_workers(assignment) == backend
