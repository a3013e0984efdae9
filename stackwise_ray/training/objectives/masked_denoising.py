"""Masked denoising: predict the masked tokens of a window from those left, at the share of masks that a stage owns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stackwise_ray.data import gather
from stackwise_ray.data.corruption import denoising_mask, drawn_ratios
from stackwise_ray.training.objectives import (
    IGNORED,
    OBJECTIVES,
    TRAINING,
    VALIDATION,
    VALIDATION_SEED,
    Batch,
    Objective,
)


@OBJECTIVES.register("masked_denoising")
class MaskedDenoising(Objective):
    """Loss on the masked positions; the masks of a training sequence follow from its global counter."""

    left_to_right = False

    def training_batch(self, sequences: range) -> Batch:
        offsets = self.order.windows(sequences.start, len(sequences))
        counters = np.arange(sequences.start, sequences.stop, dtype=np.int64)
        ratios = training_ratios(self, counters)
        tokens = self.data.splits["train"].tokens
        return self._batch(tokens, offsets, counters, ratios, seed=self.trial.seed, epoch=TRAINING)

    def validation_batch(self, offsets: NDArray[np.int64]) -> Batch:
        """At the shares of the stage that trains now."""
        assert self.stage.noise is not None, self.stage  # every regime sets it for this objective
        ratios = drawn_ratios(offsets, self.stage.noise, epoch=VALIDATION, seed=VALIDATION_SEED)
        return self.masked_at(offsets, ratios)

    def masked_at(self, offsets: NDArray[np.int64], ratios: NDArray[np.float64] | float) -> Batch:
        """Validation windows at any share; the masks of a window are nested in it."""
        tokens = self.data.splits["validation"].tokens
        return self._batch(tokens, offsets, offsets, ratios, seed=VALIDATION_SEED, epoch=VALIDATION)

    def _batch(
        self,
        tokens: NDArray[np.unsignedinteger],
        offsets: NDArray[np.int64],
        identities: NDArray[np.int64],
        ratios: NDArray[np.float64] | float,
        *,
        seed: int,
        epoch: int,
    ) -> Batch:
        windows, _ = gather(tokens, offsets, self.seq_len)
        masked = denoising_mask(
            windows, identities, epoch=epoch, seed=seed, ratios=ratios, special_ids=self.data.special_ids
        )
        targets = np.where(masked.selected, masked.targets, IGNORED)
        return Batch(inputs=masked.inputs, targets=targets, loss_positions=int(masked.selected.sum()))


def training_ratios(objective: Objective, counters: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of masked positions of each training sequence, shape (n_sequences,)."""
    assert objective.stage.noise is not None, objective.stage  # every regime that masks sets it
    return drawn_ratios(counters, objective.stage.noise, epoch=TRAINING, seed=objective.trial.seed)
