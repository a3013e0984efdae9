"""Writes checkpoints while training goes on: the loop waits for a copy in the host's memory, a thread does the rest.

Hashing and writing take seconds per gigabyte. The loop asks `CheckpointWriter.due` between two steps and calls `write`;
what a write fails with is raised in the loop. A file is written by `checkpoints`; no thread outlives `close`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch

from stackwise_ray.training.checkpoints import Checkpoint

MOST_SHARE = 0.02
"""Share of the time that checkpoints may take: a checkpoint that costs 1 s is followed by another after 50 s."""


class CheckpointWriter:
    """Writes a trial's checkpoints, one at a time.

    Args:
        save: Writes one, whole or not at all; called in the thread.
        least_seconds: Least time between the beginnings of two. 0: one is always due, whatever it costs.
        clock: Gives seconds.
        thread_costs: Whether the thread's processor time is missing in training, as it is where a CPU trains.
    """

    def __init__(
        self,
        save: Callable[[Checkpoint], object],
        *,
        least_seconds: float,
        clock: Callable[[], float],
        thread_costs: bool,
    ) -> None:
        self._save, self._least, self._clock, self._thread_costs = save, least_seconds, clock, thread_costs
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._running: Future[float] | None = None
        self._began, self._cost = clock(), 0.0

    def due(self) -> bool:
        """Whether to write one now: not while another is being written, and not so often that they cost too much.

        Raises:
            Exception: What the last write failed with.
        """
        if self._running is not None and self._running.done():
            self.wait()
        if self._least == 0:
            return True
        enough = max(self._least, self._cost / MOST_SHARE)
        return self._running is None and self._clock() - self._began >= enough

    def write(self, checkpoint: Checkpoint, *, began: float) -> None:
        """Copies a checkpoint and begins to write it; its tensors may change when this returns.

        Args:
            began: When the loop began to wait for it.

        Raises:
            Exception: What the write before failed with.
        """
        self.wait()
        self._running = self._threads.submit(self._write, host_copy(checkpoint))
        self._began, self._cost = began, self._clock() - began

    def wait(self) -> None:
        """Waits for the write that is under way, if any.

        Raises:
            Exception: What it failed with.
        """
        running = self._running
        if running is None:
            return
        try:
            spent = running.result()
        finally:
            if running.done():  # not where this wait was interrupted
                self._running = None
        if self._thread_costs:
            self._cost += spent

    def close(self) -> BaseException | None:
        """Waits for the write that is under way and ends the thread; gives what the write failed with."""
        self._threads.shutdown()
        running, self._running = self._running, None
        return None if running is None else running.exception()

    def _write(self, checkpoint: Checkpoint) -> float:
        """In the thread: writes, and gives the seconds of processor time that this took."""
        began = time.thread_time()
        self._save(checkpoint)
        return time.thread_time() - began


def host_copy(checkpoint: Checkpoint) -> Checkpoint:
    """A copy in the host's memory that nothing else holds: the loop may change every tensor and number of its own.

    A GPU copies into pinned memory without waiting, and is waited for once, at the end. torch keeps pinned memory that
    was freed for the next copy, since pinning costs more than copying.
    """
    devices: set[torch.device] = set()

    def copied(tensor: torch.Tensor) -> torch.Tensor:
        from_gpu = tensor.device.type == "cuda"
        if from_gpu:
            devices.add(tensor.device)
        target = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=from_gpu)
        return target.copy_(tensor.detach(), non_blocking=from_gpu)

    tensors = {
        name: {key: copied(tensor) for key, tensor in group.items()} for name, group in checkpoint.tensors.items()
    }
    for device in devices:
        torch.cuda.current_stream(device).synchronize()
    return replace(checkpoint, tensors=tensors, state=copy.deepcopy(checkpoint.state))
