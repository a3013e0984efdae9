"""A trial with several workers: the same worker function under Ray Train's `TorchTrainer`, one process per worker.

`run_with_workers` is a generator like `running.run.run_trial`, so the trial actor treats both alike. The workers report
through an actor of this module: the metrics of Train's own result are None without a checkpoint of its own kind, and
our checkpoints are in the trial's folder. Start-up takes about half a minute per trial (measured), so a trial with one
worker does not use this module.
"""

from __future__ import annotations

import os
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
from stackwise_ray.distributed.worker_groups import remove_stranded_groups, waits_for_resources

_POLL_S = 0.2
_START_POLL_S = 2.0
_START_TIMEOUT_S = 10_000_000
"""Workers wait for resources for as long as other trials hold them; Ray Train would begin anew every minute."""

_ONCE = FailureConfig(max_failures=0, controller_failure_limit=0)  # type: ignore[call-arg]  # its stub is of Train V1
"""The ledger tries again, with a new attempt number."""


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

    A KeyboardInterrupt thrown into it lets rank 0 write a checkpoint, unless the model is sharded. Until a worker has
    reported, a record every two seconds says whether the workers wait for resources or start.

    Args:
        assignment: Its settings say how many workers, with how many CPUs (torch threads) and GPUs each.

    Raises:
        TrialError, ConfigError, DiskFullError, StaleAttemptError: As the worker function raised them.
        WorkersLostError: A worker process died.
    """
    settings = assignment.settings
    channel = _Channel.remote()  # type: ignore[attr-defined]
    failure: list[BaseException] = []
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(_START_TIMEOUT_S)

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
                torch_config=TorchConfig(backend=backend_of_workers(assignment)),
                run_config=RunConfig(
                    storage_path=storage,
                    failure_config=_ONCE,
                ),
            )
            try:
                trainer.fit()
            except Exception as error:  # the generator below raises what it means
                failure.append(error)

    thread = threading.Thread(target=fit, name="torch-trainer", daemon=True)
    thread.start()
    instruction = Instruction.STOP
    begun, looked = False, time.monotonic()
    try:
        while True:
            alive = thread.is_alive()  # before taking: what was put before the end must not be missed
            for message in ray.get(channel.take.remote()):
                begun = True
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
            if not begun and time.monotonic() - looked > _START_POLL_S:
                remove_stranded_groups()
                yield _starting(assignment)
                looked = time.monotonic()
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        instruction = Instruction.CHECKPOINT_AND_STOP
        raise
    finally:
        with suppress(RayError):  # where Ray is gone, so are the workers
            ray.get(channel.end.remote(instruction))
        if begun:
            thread.join(timeout=60)
        ray.kill(channel)


def backend_of_workers(assignment: Assignment) -> str:
    """The backend of `torch.distributed`, by the device of the workers (see `training.assembly.choose_device`)."""
    on_cpu = assignment.trial["training"]["device"] == "cpu" or not assignment.settings.gpus
    return "gloo" if on_cpu else "nccl"


def _starting(assignment: Assignment) -> MetricRecord:
    """A sign of life of a trial whose workers have not reported yet."""
    workers = assignment.settings.workers
    return MetricRecord(
        trial_id=assignment.trial_id,
        attempt=assignment.attempt,
        step=0,
        tokens=0,
        flops=0,
        time=time.time(),
        metrics={},
        doing="waiting for resources" if waits_for_resources() else f"starting {workers} workers",
    )


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
