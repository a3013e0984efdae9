"""Next-token prediction from a context in which tokens are masked: what depth-as-time gives a causal model to learn.

Every position has a loss, against the true next token. It is evaluated on clean text: there it is next-token
prediction, and its losses are those of any other decoder.
"""

from __future__ import annotations

import functools

import numpy as np

from stackwise_ray.data import gather
from stackwise_ray.data.corruption import denoising_mask
from stackwise_ray.training.objectives import OBJECTIVES, Batch
from stackwise_ray.training.objectives._masked import TRAINING, clearer_inputs, identities, training_ratios
from stackwise_ray.training.objectives.next_token import NextToken


@OBJECTIVES.register("noisy_context")
class NoisyContext(NextToken):
    """The masks of a training sequence follow from its `identities`; validation windows have none."""

    def training_batch(self, sequences: range) -> Batch:
        offsets = self.order.windows(sequences.start, len(sequences))
        drawn_by = identities(self, sequences, offsets)
        windows, targets = gather(self.data.splits["train"].tokens, offsets, self.seq_len)
        ratios = training_ratios(self, drawn_by)
        corrupt = functools.partial(
            denoising_mask,
            windows,
            drawn_by,
            epoch=TRAINING,
            seed=self.trial.seed,
            special_ids=self.data.special_ids,
        )
        return Batch(
            inputs=corrupt(ratios=ratios).inputs,
            targets=targets,
            loss_positions=targets.size,
            times=ratios.astype(np.float32),
            clearer=clearer_inputs(self, corrupt, ratios),
        )
