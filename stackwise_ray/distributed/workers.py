"""A trial with several workers: the same worker function under Ray Train's `TorchTrainer`, one process a worker.

`run_with_workers` is a generator like `training.run.run_trial`, so the trial actor does not know the difference. The
workers report through an actor of ours: Train's own `Result.metrics` is None where no checkpoint of its kind was
reported, and our checkpoints live in the trial's folder. Start-up costs about half a minute a trial (measured), which
is why a trial with one worker never comes here.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from typing import Any, Literal

import ray
from ray import train
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from stackwise_ray.core.errors import DiskFullError, PluginError, StaleAttemptError, TrialError, WorkersLostError
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.distributed.packing import PackedArguments, run_packed

_POLL_S = 0.2

_Answer = Literal["go on", "stop", "leave a checkpoint and stop"]


@ray.remote(num_cpus=0)
class _Channel:
    """What rank 0 has measured, until the trial actor fetches it."""

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._answer: _Answer = "go on"

    def put(self, message: Any) -> _Answer:
        """Append; what the workers shall do."""
        self._messages.append(message)
        return self._answer

    def take(self) -> list[Any]:
        """Everything since the last call."""
        messages, self._messages = self._messages, []
        return messages

    def end(self, answer: _Answer) -> None:
        """Tell the workers at their next message."""
        self._answer = answer


def run_with_workers(
    *, worker: str, arguments: PackedArguments, workers: int, cpus: int, gpus: float
) -> Generator[MetricRecord, None, Any]:
    """Run one trial on `workers` processes; yields and returns what rank 0's `run_trial` does.

    A KeyboardInterrupt thrown into it lets rank 0 leave a checkpoint, where the model is not in shards.

    Args:
        worker: ``module:function`` of the trial generator.
        arguments: Its keyword arguments, packed, without `rank` and `world_size`.
        cpus: CPUs a worker, also its number of torch threads.
        gpus: GPUs a worker; more than 0 selects the nccl backend, else gloo.

    Raises:
        TrialError, PluginError, DiskFullError, StaleAttemptError: As the worker function raised them.
        WorkersLostError: A worker process died.
    """
    channel = _Channel.remote()  # type: ignore[attr-defined]
    failure: list[BaseException] = []

    def fit() -> None:
        with tempfile.TemporaryDirectory(prefix="stackwise-ray-train-") as storage:
            trainer = TorchTrainer(
                _worker_loop,
                train_loop_config={"worker": worker, "arguments": arguments, "channel": channel, "cpus": cpus},
                scaling_config=ScalingConfig(
                    num_workers=workers,
                    use_gpu=gpus > 0,
                    resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})},
                ),
                torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
                run_config=RunConfig(storage_path=storage, failure_config=FailureConfig(max_failures=0)),
            )
            try:
                trainer.fit()
            except Exception as error:  # told to the generator below, which raises what it means
                failure.append(error)

    thread = threading.Thread(target=fit, name="torch-trainer", daemon=True)
    thread.start()
    answer: _Answer = "stop"
    try:
        while True:
            alive = thread.is_alive()  # before taking: what was put before the end must not be missed
            for kind, content in ray.get(channel.take.remote()):
                if kind == "record":
                    yield content
                elif kind == "finished":
                    thread.join()
                    return content
                else:
                    raise content
            if not alive:
                reason = str(failure[0]).strip().splitlines()[-1] if failure else "the workers ended without a result"
                raise WorkersLostError(reason) from (failure[0] if failure else None)
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        answer = "leave a checkpoint and stop"
        raise
    finally:
        with suppress(RayError):  # where Ray is gone, so are the workers
            ray.get(channel.end.remote(answer))
        thread.join(timeout=60)
        ray.kill(channel)


def _worker_loop(config: dict[str, Any]) -> None:
    """What each worker process runs."""
    import torch

    torch.set_num_threads(config["cpus"])
    context = train.get_context()
    rank, channel = context.get_world_rank(), config["channel"]

    def tell(kind: str, content: Any) -> _Answer:
        answer: _Answer = ray.get(channel.put.remote((kind, content))) if rank == 0 else "go on"
        return answer

    run = run_packed(config["worker"], config["arguments"], rank=rank, world_size=context.get_world_size())
    try:
        while True:
            answer = tell("record", next(run))
            if answer == "leave a checkpoint and stop":
                with suppress(KeyboardInterrupt):
                    run.throw(KeyboardInterrupt())
            if answer != "go on":
                raise RuntimeError("the trial was stopped")
    except StopIteration as end:
        tell("finished", end.value)
    except (TrialError, PluginError, DiskFullError, StaleAttemptError) as error:
        ray.get(channel.put.remote(("error", error)))  # whichever rank met it
        raise
