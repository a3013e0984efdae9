"""The outputs of a frozen prefix, kept for every window of the train split while one stage trains on top of them.

A file in the trial's folder, one at a time: made when a stage begins, or an attempt continues inside it, and removed
when the stage or the attempt ends. All workers fill it together, each its part of the windows, and all read it. It
rests on masks that stay the same in every epoch (`objectives._masked.identities`). The loop fills it; its FLOPs are
training FLOPs.

Not here: how a pass is cut (`models.growth.prefix`), and whether a trial may have a cache
(`training.growth_rules`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.atomic import disk_full_is_named
from stackwise_ray.core.errors import ConfigError, DiskFullError, TrialError
from stackwise_ray.core.quantities import format_bytes
from stackwise_ray.metrics.flops import FlopCounter
from stackwise_ray.models.growth.prefix import prefix_output
from stackwise_ray.training.assembly import Assembly
from stackwise_ray.training.budget import shares
from stackwise_ray.training.objectives import Objective
from stackwise_ray.training.parallel.collectives import Collectives
from stackwise_ray.training.stage import Stage
from stackwise_ray.training.step import model_inputs, to_device

FILE = "prefix_cache"
"""Beginning of the file's name in the trial's folder; the attempt's number follows."""


def cache_bytes(trial: TrialConfig, n_windows: int) -> int:
    """Size of a cache: float32 hidden states of every window of the train split."""
    return 4 * n_windows * trial.data.seq_len * trial.model.d_model


def check_size(trial: TrialConfig, size: int) -> None:
    """Refuses a cache of `size` bytes that is above `training.cache_bytes`.

    Raises:
        ConfigError: With both sizes.
    """
    limit = trial.training.cache_bytes
    if limit is not None and size > limit:
        raise ConfigError(
            f"= {limit}, but the cache of the frozen prefix needs {size} bytes ({format_bytes(size)}) for all windows "
            f"of the train split; raise it to {size}, or set training.cache: false",
            path="training.cache_bytes",
        )


class PrefixCache:
    """The cache of one attempt on one worker.

    Args:
        directory: The trial's folder, which all workers see.
        attempt: Number of the attempt.

    Attributes:
        size: Bytes of the file.
    """

    def __init__(self, assembly: Assembly, collectives: Collectives, directory: Path, attempt: int) -> None:
        self._assembly, self._collectives = assembly, collectives
        self._directory, self._attempt, self._file = directory, attempt, directory / f"{FILE}.{attempt}"
        self._n_windows = assembly.order.windows_per_epoch
        self._rows: NDArray[np.float32] | None = None
        self.size = cache_bytes(assembly.trial, self._n_windows)

    @property
    def filled(self) -> bool:
        """Whether it can be read."""
        return self._rows is not None

    def check_room(self) -> None:
        """Refuses to begin where the cache cannot be written; what killed attempts left of theirs is removed first.

        Raises:
            ConfigError: It is above `training.cache_bytes`.
            DiskFullError: The disk has less room than that.
        """
        check_size(self._assembly.trial, self.size)
        self.drop()
        self._collectives.sum_number(0)  # it is gone for everybody
        free = shutil.disk_usage(self._directory).free
        if self.size > free:
            raise DiskFullError(
                f"{self._directory}: the cache of the frozen prefix needs {format_bytes(self.size)}, but the disk has "
                f"only {format_bytes(free)} left; free some space and run the same command again, or set "
                "training.cache: false"
            )

    def fill(self, stage: Stage, objective: Objective, batch_windows: int) -> Generator[None, None, int]:
        """Runs the prefix over all windows, yielding between batches; returns the FLOPs of all workers together.

        Args:
            objective: The stage's.
            batch_windows: Windows of a pass.

        Raises:
            TrialError: There are more workers than windows, or hidden states are not float32.
            DiskFullError: The disk has filled up since `check_room`.
        """
        assembly, counts, flops = self._assembly, dict[int, int](), 0
        if self._n_windows < assembly.world_size:
            raise TrialError(
                f"{assembly.world_size} workers are more than the {self._n_windows} windows of the cache; "
                "use fewer workers, or set training.cache: false"
            )
        rows = self._create()
        last: tuple[NDArray[np.int64], _HostCopy] | None = None
        mine = shares(0, self._n_windows, assembly.world_size)[assembly.rank]
        for start in range(mine.start, mine.stop, batch_windows):
            # The first epoch holds every window once, and its masks are those of all epochs.
            sequences = range(start, min(start + batch_windows, mine.stop))
            inputs = model_inputs(assembly.model, objective.training_batch(sequences), assembly.device)
            known = len(sequences) in counts
            counter = FlopCounter()
            with contextlib.nullcontext() if known else counter, assembly.autocast():
                output = prefix_output(assembly.model, stage.lowest_trained, **inputs)
            counts.setdefault(len(sequences), counter.forward)
            flops += counts[len(sequences)]
            if output.dtype != torch.float32:  # autocast leaves the residual stream of every family as it is
                raise TrialError(
                    f"the prefix gives {output.dtype}, but the cache stores float32; set training.cache: false"
                )
            copy = _HostCopy(output)
            if last is not None:  # written while a GPU is at work on this batch
                rows[last[0]] = last[1].array()
            last = self._windows(sequences), copy
            yield
        assert last is not None, "every worker has a window"
        rows[last[0]] = last[1].array()
        rows.flush()
        total = self._collectives.sum_number(flops)  # from here on every worker has written its part
        self._rows = np.memmap(self._file, dtype=np.float32, mode="r", shape=rows.shape)
        return total

    def read(self, sequences: range) -> Tensor:
        """What the prefix gives for training sequences, (n_sequences, seq_len, d_model), on the worker's device."""
        assert self._rows is not None, "a stage's cache is filled before its first step"
        return to_device(np.array(self._rows[self._windows(sequences)]), self._assembly.device)

    def drop(self) -> None:
        """Removes the attempt's file, and those that earlier attempts left when they were killed."""
        self._rows = None
        if self._assembly.rank == 0:
            for file in self._directory.glob(f"{FILE}.*"):
                if int(file.suffix[1:]) <= self._attempt:  # a later attempt has taken over: its file is not ours
                    file.unlink(missing_ok=True)

    def _create(self) -> np.memmap[tuple[int, ...], np.dtype[np.float32]]:
        if self._assembly.rank == 0:
            self.drop()
            with disk_full_is_named(self._file), open(self._file, "wb") as file:
                # Room for all of it now: a mapped page that finds the disk full would kill the process.
                os.posix_fallocate(file.fileno(), 0, self.size)
        self._collectives.sum_number(0)  # the file is there for everybody
        trial = self._assembly.trial
        shape = (self._n_windows, trial.data.seq_len, trial.model.d_model)
        return np.memmap(self._file, dtype=np.float32, mode="r+", shape=shape)

    def _windows(self, sequences: range) -> NDArray[np.int64]:
        """Numbers of the sequences' windows on the grid of the train split."""
        order = self._assembly.order
        return order.windows(sequences.start, len(sequences)) // order.seq_len


class _HostCopy:
    """A copy in the host's memory that is under way; of a tensor on a CPU the tensor itself."""

    def __init__(self, tensor: Tensor) -> None:
        self._copy = tensor.to("cpu", non_blocking=True)  # from a GPU into pinned memory
        self._made: torch.Event | None = None
        if tensor.device.type != "cpu":
            self._made = torch.Event(device=tensor.device)
            self._made.record()

    def array(self) -> NDArray[np.float32]:
        """Its values, once they are there."""
        if self._made is not None:
            self._made.synchronize()
        return self._copy.numpy()
