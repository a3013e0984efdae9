"""A trial with several workers: the same worker function under Ray Train's `TorchTrainer`, one process per worker.

`run_with_workers` is a generator like `running.run.run_trial`, so the trial actor does not know the difference. The
workers report through an actor of ours: the metrics of Train's own result are None where no checkpoint of its kind was
reported, and our checkpoints live in the trial's folder. Start-up costs about half a minute per trial (measured), which
is why a trial with one worker never comes here.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from typing import Any

import ray
from ray import train
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from stackwise_ray.core.errors import ConfigError, DiskFullError, StaleAttemptError, TrialError, WorkersLostError
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.distributed.messages import Assignment, Instruction, Raised, Returned, decode, encode

_POLL_S = 0.2


@ray.remote(num_cpus=0)
class _Channel:
    """What rank 0 has measured, until the trial actor fetches it."""

    def __init__(self) -> None:
        self._messages: list[MetricRecord | Returned | Raised] = []
        self._instruction = Instruction.CONTINUE

    def put(self, message: MetricRecord | Returned | Raised) -> Instruction:
        """Append; what the workers shall do."""
        self._messages.append(message)
        return self._instruction

    def take(self) -> list[MetricRecord | Returned | Raised]:
        """Everything since the last call."""
        messages, self._messages = self._messages, []
        return messages

    def end(self, instruction: Instruction) -> None:
        """Tell the workers at their next message."""
        self._instruction = instruction


def run_with_workers(assignment: Assignment) -> Generator[MetricRecord, None, Any]:
    """Run one trial on several processes; yields and returns what rank 0's `run_trial` does.

    A KeyboardInterrupt thrown into it lets rank 0 leave a checkpoint, where the model is not in shards.

    Args:
        assignment: Its settings say how many workers, with how many CPUs (torch threads) and GPUs each; GPUs select the
            nccl backend, none gloo.

    Raises:
        TrialError, ConfigError, DiskFullError, StaleAttemptError: As the worker function raised them.
        WorkersLostError: A worker process died.
    """
    settings = assignment.settings
    channel = _Channel.remote()  # type: ignore[attr-defined]
    failure: list[BaseException] = []

    def fit() -> None:
        with tempfile.TemporaryDirectory(prefix="stackwise-ray-train-") as storage:
            trainer = TorchTrainer(
                _worker_loop,
                train_loop_config={"assignment": encode(assignment), "channel": channel},
                scaling_config=ScalingConfig(
                    num_workers=settings.workers,
                    use_gpu=settings.gpus > 0,
                    resources_per_worker={"CPU": settings.cpus, **({"GPU": settings.gpus} if settings.gpus else {})},
                ),
                torch_config=TorchConfig(backend="nccl" if settings.gpus else "gloo"),
                run_config=RunConfig(storage_path=storage, failure_config=FailureConfig(max_failures=0)),
            )
            try:
                trainer.fit()
            except Exception as error:  # the generator below raises what it means
                failure.append(error)

    thread = threading.Thread(target=fit, name="torch-trainer", daemon=True)
    thread.start()
    instruction = Instruction.STOP
    try:
        while True:
            alive = thread.is_alive()  # before taking: what was put before the end must not be missed
            for message in ray.get(channel.take.remote()):
                match message:
                    case MetricRecord():
                        yield message
                    case Returned(result=result):
                        thread.join()
                        return result
                    case Raised(error=error):
                        raise error
            if not alive:
                reason = str(failure[0]).strip().splitlines()[-1] if failure else "the workers ended without a result"
                raise WorkersLostError(reason) from (failure[0] if failure else None)
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        instruction = Instruction.CHECKPOINT_AND_STOP
        raise
    finally:
        with suppress(RayError):  # where Ray is gone, so are the workers
            ray.get(channel.end.remote(instruction))
        thread.join(timeout=60)
        ray.kill(channel)


def _worker_loop(config: dict[str, Any]) -> None:
    """What each worker process runs."""
    import torch

    assignment = decode(Assignment, config["assignment"])
    torch.set_num_threads(assignment.settings.cpus)
    context = train.get_context()
    rank, channel = context.get_world_rank(), config["channel"]

    def send(message: MetricRecord | Returned) -> Instruction:
        instruction: Instruction = ray.get(channel.put.remote(message)) if rank == 0 else Instruction.CONTINUE
        return instruction

    try:
        run = assignment.settings.worker_function()(
            **assignment.arguments(), rank=rank, world_size=context.get_world_size()
        )
        while True:
            instruction = send(next(run))
            if instruction is Instruction.CHECKPOINT_AND_STOP:
                with suppress(KeyboardInterrupt):
                    run.throw(KeyboardInterrupt())
            if instruction is not Instruction.CONTINUE:
                raise RuntimeError("the trial was stopped")
    except StopIteration as end:
        send(Returned(result=end.value))
    except (TrialError, ConfigError, DiskFullError, StaleAttemptError) as error:
        ray.get(channel.put.remote(Raised(error=error)))  # whichever rank met it
        raise
