"""How the workers of one trial add up, what they report, and how they stop; Ray's processes do not start."""

from __future__ import annotations

import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.trial.editing import to_plain
from stackwise_ray.core.errors import TrialError
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.distributed import workers
from stackwise_ray.distributed.messages import Assignment, Instruction, Raised, Returned, RunSettings, encode
from stackwise_ray.distributed.workers import backend_of_workers
from tests.small_trials import TRIAL


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


def assigned(worker: str) -> Assignment:
    return Assignment(
        settings=RunSettings(worker=worker, objective="loss", directory=Path("/nowhere"), workers=2),
        trial_id="t",
        attempt=3,
        trial=to_plain(TRIAL),
        data_fingerprint="f",
    )


@pytest.mark.parametrize(("waits", "doing"), [(True, "waiting for resources"), (False, "starting 2 workers")])
def test_a_trial_whose_workers_have_not_reported_says_what_it_does(
    waits: bool, doing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It asks Ray's tables, which a running cluster has.
    monkeypatch.setattr(workers, "waits_for_resources", lambda: waits)
    sign = workers._starting(assigned("not:run"))
    assert (sign.trial_id, sign.attempt, sign.doing) == ("t", 3, doing)
    assert (sign.step, sign.tokens, sign.flops, sign.metrics) == (0, 0, 0, {})


def measured(step: int) -> MetricRecord:
    return MetricRecord(trial_id="t", attempt=3, step=step, tokens=0, flops=0, time=0.0, metrics={})


def two_steps(**arguments: Any) -> Generator[MetricRecord, None, str]:
    """A worker function that tells who it is by its number of steps, and checkpoints when it is told to stop."""
    try:
        yield measured(arguments["rank"] + 1)
        yield measured(arguments["world_size"])
    except KeyboardInterrupt:
        CHECKPOINTS.append(arguments["trial_id"])
        raise
    return "the result"


def refused(**arguments: Any) -> Generator[MetricRecord, None, str]:
    """A worker function that fails after a step."""
    yield measured(1)
    raise TrialError("loss is NaN")


CHECKPOINTS: list[str] = []


class Channel:
    """The channel between the workers and their trial, in this process."""

    def __init__(self) -> None:
        self.actor = workers._Channel.__ray_metadata__.modified_class()  # type: ignore[attr-defined]
        self.put = SimpleNamespace(remote=self.actor.put)


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Channel:
    # The channel's actor is called here, in this process.
    monkeypatch.setattr(workers.ray, "get", lambda answer: answer)
    CHECKPOINTS.clear()
    return Channel()


def work(channel: Channel, function: str, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one of two worker processes runs."""
    context = SimpleNamespace(get_world_rank=lambda: rank, get_world_size=lambda: 2)
    # What Ray Train tells a worker process.
    monkeypatch.setattr(workers.train, "get_context", lambda: context)
    monkeypatch.setitem(sys.modules, "worker_functions", sys.modules[__name__])
    workers._worker_loop({"assignment": encode(assigned(f"worker_functions:{function}")), "channel": channel})


def test_rank_0_reports_every_record_and_the_result_and_the_others_nothing(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(channel, "two_steps", 0, monkeypatch)
    first, second, last = channel.actor.take()
    assert (first.step, second.step, last) == (1, 2, Returned(result="the result"))
    assert channel.actor.take() == [], "each is taken once"
    work(channel, "two_steps", 1, monkeypatch)
    assert channel.actor.take() == []


def test_what_a_worker_raises_is_reported_whichever_met_it(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank, records in ((0, 1), (1, 0)):
        with pytest.raises(TrialError, match="loss is NaN"):
            work(channel, "refused", rank, monkeypatch)
        *before, raised = channel.actor.take()
        assert len(before) == records
        assert isinstance(raised, Raised)
        assert str(raised.error) == "loss is NaN"


@pytest.mark.parametrize(
    ("instruction", "checkpoints"), [(Instruction.STOP, []), (Instruction.CHECKPOINT_AND_STOP, ["t"])]
)
def test_workers_stop_at_their_next_record_and_leave_a_checkpoint_where_that_is_asked_for(
    channel: Channel, monkeypatch: pytest.MonkeyPatch, instruction: Instruction, checkpoints: list[str]
) -> None:
    channel.actor.end(instruction)
    with pytest.raises(RuntimeError, match="the trial was stopped"):
        work(channel, "two_steps", 0, monkeypatch)
    assert [record.step for record in channel.actor.take()] == [1]
    assert checkpoints == CHECKPOINTS
