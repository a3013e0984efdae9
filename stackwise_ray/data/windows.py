"""Which tokens a batch holds: window offsets for training, validation and whole-split perplexity.

A window at offset o with `seq_len` inputs uses the `seq_len` + 1 tokens o … o + seq_len: inputs are the first
`seq_len` of them and targets the last `seq_len`, so that the target of input i is the token after it, inside the
same window. Neighbouring windows of a grid share exactly one token: the last target of one is the first input of
the next. Every token of a split but its first is thus a target once.

The order of training is a pure function of (seed, global sequence counter): any worker, at any step, after any
restart, asks for the sequences that are its own and gets what an uninterrupted single worker would have read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.seeding import DATA_ORDER, stream_seed
from stackwise_ray.data.counters import hash64


class TrainingOrder:
    """The endless sequence of training windows: epoch after epoch, each in an order of its own.

    Windows lie on the grid 0, seq_len, 2·seq_len, …; each epoch visits every one of them exactly once.

    Args:
        n_tokens: Length of the train split.
        seq_len: Inputs of a window.
        seed: The trial's root seed; the order comes from its data stream.

    Raises:
        ConfigError: The split is too short for one window.

    >>> order = TrainingOrder(n_tokens=41, seq_len=10, seed=0)
    >>> order.windows_per_epoch
    4
    >>> [int(offset) for offset in sorted(order.windows(0, 4))]
    [0, 10, 20, 30]
    """

    def __init__(self, n_tokens: int, seq_len: int, seed: int) -> None:
        self.n_tokens = n_tokens
        self.seq_len = seq_len
        self.windows_per_epoch = count_windows(n_tokens, seq_len, split="train")
        self._seed = stream_seed(seed, DATA_ORDER)
        self._epoch: tuple[int, NDArray[np.int64]] | None = None

    def windows(self, first_sequence: int, count: int) -> NDArray[np.int64]:
        """Offsets of the sequences first_sequence … first_sequence + count − 1, shape (count,).

        Args:
            first_sequence: Global counter over the whole training, from 0, all workers together.
        """
        if first_sequence < 0 or count < 0:
            raise ValueError(f"first_sequence = {first_sequence}, count = {count}: neither may be negative")
        pieces, sequence, end = [np.empty(0, dtype=np.int64)], first_sequence, first_sequence + count
        while sequence < end:
            epoch, place = divmod(sequence, self.windows_per_epoch)
            piece = self._permutation(epoch)[place : place + end - sequence]
            pieces.append(piece)
            sequence += len(piece)
        return np.concatenate(pieces) * self.seq_len

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if self._epoch is None or self._epoch[0] != epoch:
            # Sorting hashes gives the same order with every numpy version, which its shuffles do not promise.
            keys = hash64(self._seed, epoch, np.arange(self.windows_per_epoch, dtype=np.uint64))
            self._epoch = (epoch, np.argsort(keys, kind="stable").astype(np.int64))
        return self._epoch[1]


def fixed_validation_windows(n_tokens: int, seq_len: int, n_wanted_tokens: int) -> NDArray[np.int64]:
    """Offsets of the one set of validation windows, evenly spread over the split; no seed enters.

    Args:
        n_wanted_tokens: Predictions wanted; rounded up to whole windows. A split that has fewer gives all its
            windows, so the number used is ``len(offsets) * seq_len``: record that.

    >>> fixed_validation_windows(n_tokens=101, seq_len=10, n_wanted_tokens=45).tolist()
    [0, 20, 40, 60, 80]
    """
    available = count_windows(n_tokens, seq_len, split="validation")
    wanted = min(available, -(-n_wanted_tokens // seq_len))
    return np.arange(wanted, dtype=np.int64) * available // wanted * seq_len


def held_out_windows(n_tokens: int, seq_len: int, n_fixed_tokens: int, n_wanted_tokens: int) -> NDArray[np.int64]:
    """Offsets of validation windows that are not among `fixed_validation_windows`, evenly spread over those left.

    Args:
        n_fixed_tokens: What the fixed windows were asked for with.
        n_wanted_tokens: Predictions wanted; rounded up to whole windows. A split that has fewer left gives all of
            them, which may be none.

    >>> held_out_windows(n_tokens=101, seq_len=10, n_fixed_tokens=45, n_wanted_tokens=30).tolist()
    [10, 30, 70]
    """
    fixed = fixed_validation_windows(n_tokens, seq_len, n_fixed_tokens)
    grid = np.arange(count_windows(n_tokens, seq_len, split="validation"), dtype=np.int64) * seq_len
    left = np.setdiff1d(grid, fixed)
    wanted = min(len(left), -(-n_wanted_tokens // seq_len))
    return left[np.arange(wanted, dtype=np.int64) * len(left) // max(wanted, 1)]


def gather(
    tokens: NDArray[np.integer], offsets: ArrayLike, seq_len: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Inputs and targets of windows, each of shape (n_windows, seq_len), int64.

    ``targets[w, i]`` is the token after ``inputs[w, i]`` in the stream.

    Args:
        tokens: A split's token stream, shape (n_tokens,).
        offsets: First input of each window, shape (n_windows,).

    Raises:
        IndexError: A window reaches outside of the stream.

    >>> inputs, targets = gather(np.arange(100), [0, 50], seq_len=3)
    >>> inputs.tolist(), targets.tolist()
    ([[0, 1, 2], [50, 51, 52]], [[1, 2, 3], [51, 52, 53]])
    """
    starts = np.asarray(offsets, dtype=np.int64).reshape(-1)
    if len(starts) and (starts.min() < 0 or starts.max() + seq_len + 1 > len(tokens)):
        raise IndexError(
            f"windows of {seq_len} + 1 tokens at offsets {starts.min()} to {starts.max()} reach beyond a stream "
            f"of {len(tokens)} tokens"
        )
    windows = np.asarray(tokens[starts[:, None] + np.arange(seq_len + 1)], dtype=np.int64)
    return windows[:, :-1].copy(), windows[:, 1:].copy()


@dataclass(frozen=True)
class StridedWindows:
    """Windows over a whole split in which every token but the first is predicted exactly once.

    Attributes:
        offsets: First input of each window, shape (n_windows,); all windows have `seq_len` inputs, for `gather`.
        n_scored: How many of its last targets count in each window, shape (n_windows,); the others were scored by
            an earlier window and serve as context. They sum to n_tokens − 1.
        min_context: Fewest tokens that a prediction sees, those of the first window excepted (they see 1, 2, …).
    """

    offsets: NDArray[np.int64]
    n_scored: NDArray[np.int64]
    min_context: int


def strided_windows(n_tokens: int, seq_len: int, stride: int | None = None) -> StridedWindows:
    """Windows for the exact perplexity of a whole split, at the cost of seq_len / stride passes over it.

    Args:
        stride: Targets scored by each window but the first, 1 … seq_len; None: half of `seq_len`. With `seq_len`
            itself windows do not overlap and the first predictions of each see almost nothing.

    Raises:
        ConfigError: The split is too short for one window.

    >>> plan = strided_windows(n_tokens=11, seq_len=4, stride=2)
    >>> plan.offsets.tolist(), plan.n_scored.tolist(), plan.min_context
    ([0, 2, 4, 6], [4, 2, 2, 2], 3)
    """
    step = max(1, seq_len // 2) if stride is None else stride
    if not 1 <= step <= seq_len:
        wrong = "would never move on" if step < 1 else "is longer than a window and would skip tokens"
        raise ConfigError(f"a stride of {step} {wrong}; choose 1 to seq_len = {seq_len}")
    count_windows(n_tokens, seq_len, split="whole")
    last = n_tokens - 1 - seq_len
    offsets = np.append(np.arange(0, last, step, dtype=np.int64), last)
    scored = np.diff(offsets + seq_len, prepend=0)
    return StridedWindows(offsets=offsets, n_scored=scored, min_context=seq_len - step + 1)


def count_windows(n_tokens: int, seq_len: int, *, split: str) -> int:
    """Windows of the grid 0, seq_len, … that fit, each with seq_len + 1 tokens.

    Raises:
        ConfigError: None fits.
    """
    count = (n_tokens - 1) // seq_len
    if count < 1:
        raise ConfigError(
            f"= {seq_len}: the {split} split has {n_tokens:,} tokens, and one window needs seq_len + 1 = "
            f"{seq_len + 1:,}; choose at most {max(n_tokens - 1, 0):,}, or a larger corpus",
            path="data.seq_len",
        )
    return count
