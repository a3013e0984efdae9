"""What objectives with masks share: the share of masks that each sequence draws, and a loss on the masked positions."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackwise_ray.data import gather
from stackwise_ray.data.corruption import MaskedBatch, drawn_ratios
from stackwise_ray.training.objectives import Batch, Objective

VALIDATION_SEED, VALIDATION, TRAINING = 0, 0, 1
"""Corruption of validation is one fixed set for all arms and seeds; the draws of training never meet it."""


def identities(objective: Objective, sequences: range, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """What the masks of training sequences follow from, shape (n_sequences,): their global counters, which no epoch
    repeats; under `training.cache` their windows, so that what a frozen prefix makes of them can be kept."""
    counters = np.arange(sequences.start, sequences.stop, dtype=np.int64)
    return offsets if objective.trial.training.cache else counters


def training_ratios(objective: Objective, drawn_by: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of masked positions of each training sequence, shape (n_sequences,)."""
    stage = objective.stage
    assert stage.noise is not None, stage  # every regime that masks sets it
    bands = stage.noise
    if stage.widening:
        bands = tuple((low, low + (high - low) * objective.stage_used) for low, high in bands)
    return drawn_ratios(drawn_by, bands, epoch=TRAINING, seed=objective.trial.seed)


def clearer_inputs(
    objective: Objective, corrupt: Callable[..., MaskedBatch], ratios: NDArray[np.float64]
) -> NDArray[np.int64] | None:
    """What the next stack gets of the sequences, whose masks are nested in these; None: the stage does not ask.

    Args:
        corrupt: From ``ratios`` to the sequences with so many masks.
    """
    level = objective.stage.next_level
    return None if level is None else corrupt(ratios=np.minimum(ratios, level)).inputs


class MaskedTokens(Objective):
    """Loss on the masked positions alone; the masks of a training sequence follow from its `identities`."""

    left_to_right = False

    @abstractmethod
    def corrupt(self, windows: NDArray[np.int64], **draws: Any) -> MaskedBatch:
        """Windows (n_sequences, seq_len) with masks.

        Args:
            draws: `sequence_ids`, `ratios`, `epoch` and `seed`, as the functions of `data.corruption` take them.
        """

    def training_batch(self, sequences: range) -> Batch:
        offsets = self.order.windows(sequences.start, len(sequences))
        drawn_by = identities(self, sequences, offsets)
        windows, _ = gather(self.data.splits["train"].tokens, offsets, self.seq_len)
        ratios = training_ratios(self, drawn_by)
        corrupt = functools.partial(self.corrupt, windows, sequence_ids=drawn_by, epoch=TRAINING, seed=self.trial.seed)
        return _on_masked(corrupt(ratios=ratios), ratios, clearer_inputs(self, corrupt, ratios))

    def validation_batch(self, offsets: NDArray[np.int64]) -> Batch:
        """At the shares of the stage that trains now, all of them from its beginning on."""
        assert self.stage.noise is not None, self.stage  # every regime that masks sets it
        return self.masked_at(offsets, drawn_ratios(offsets, self.stage.noise, epoch=VALIDATION, seed=VALIDATION_SEED))

    def masked_at(self, offsets: NDArray[np.int64], ratios: NDArray[np.float64] | float) -> Batch:
        """Validation windows at any share of masks."""
        windows, _ = gather(self.data.splits["validation"].tokens, offsets, self.seq_len)
        draws = {"sequence_ids": offsets, "ratios": ratios}
        return _on_masked(self.corrupt(windows, **draws, epoch=VALIDATION, seed=VALIDATION_SEED), ratios)


def _on_masked(
    masked: MaskedBatch, ratios: NDArray[np.float64] | float, clearer: NDArray[np.int64] | None = None
) -> Batch:
    from stackwise_ray.metrics.losses import IGNORED  # here: it loads torch, which naming an objective does not need

    return Batch(
        inputs=masked.inputs,
        targets=np.where(masked.selected, masked.targets, IGNORED),
        loss_positions=int(masked.selected.sum()),
        times=np.broadcast_to(np.asarray(ratios, dtype=np.float32), len(masked.inputs)).copy(),
        clearer=clearer,
    )
