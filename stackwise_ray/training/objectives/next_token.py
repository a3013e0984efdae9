"""Next-token prediction: the target of each input is the token after it in the same window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stackwise_ray.data import gather
from stackwise_ray.training.objectives import OBJECTIVES, Batch, Objective


@OBJECTIVES.register("next_token")
class NextToken(Objective):
    """Every position has a target."""

    left_to_right = True

    def training_batch(self, sequences: range) -> Batch:
        offsets = self.order.windows(sequences.start, len(sequences))
        return _batch(self.data.splits["train"].tokens, offsets, self.seq_len)

    def validation_batch(self, offsets: NDArray[np.int64]) -> Batch:
        return _batch(self.data.splits["validation"].tokens, offsets, self.seq_len)


def _batch(tokens: NDArray[np.unsignedinteger], offsets: NDArray[np.int64], seq_len: int) -> Batch:
    inputs, targets = gather(tokens, offsets, seq_len)
    times = np.zeros(len(inputs), dtype=np.float32)
    return Batch(inputs=inputs, targets=targets, loss_positions=targets.size, times=times)
