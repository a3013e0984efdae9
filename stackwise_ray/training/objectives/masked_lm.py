"""Masked language modelling (Devlin et al. 2019): predict the selected tokens of a corrupted window, 80/10/10."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stackwise_ray.data import gather
from stackwise_ray.data.corruption import mlm_mask
from stackwise_ray.training.objectives import (
    IGNORED,
    OBJECTIVES,
    TRAINING,
    VALIDATION,
    VALIDATION_SEED,
    Batch,
    Objective,
)


@OBJECTIVES.register("masked_lm")
class MaskedLM(Objective):
    """Loss on the selected positions; the masks of a training sequence follow from its global counter."""

    left_to_right = False

    def training_batch(self, sequences: range) -> Batch:
        offsets = self.order.windows(sequences.start, len(sequences))
        counters = np.arange(sequences.start, sequences.stop, dtype=np.int64)
        tokens = self.data.splits["train"].tokens
        return self._batch(tokens, offsets, counters, seed=self.trial.seed, purpose=TRAINING)

    def validation_batch(self, offsets: NDArray[np.int64]) -> Batch:
        tokens = self.data.splits["validation"].tokens
        return self._batch(tokens, offsets, offsets, seed=VALIDATION_SEED, purpose=VALIDATION)

    def _batch(
        self,
        tokens: NDArray[np.unsignedinteger],
        offsets: NDArray[np.int64],
        identities: NDArray[np.int64],
        *,
        seed: int,
        purpose: int,
    ) -> Batch:
        windows, _ = gather(tokens, offsets, self.seq_len)
        assert self.stage.noise is not None, self.stage  # every regime sets it for this objective
        ((ratio, _),) = self.stage.noise
        masked = mlm_mask(
            windows,
            identities,
            epoch=purpose,
            seed=seed,
            ratio=ratio,
            special_ids=self.data.special_ids,
            vocab_size=self.data.vocab_size,
        )
        targets = np.where(masked.selected, masked.targets, IGNORED)
        return Batch(inputs=masked.inputs, targets=targets, loss_positions=int(masked.selected.sum()))
