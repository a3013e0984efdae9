"""Masked language modelling (Devlin et al. 2019): predict the selected tokens of a corrupted window, 80/10/10."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackwise_ray.data.corruption import MaskedBatch, mlm_mask
from stackwise_ray.training.objectives import OBJECTIVES
from stackwise_ray.training.objectives._masked import MaskedTokens


@OBJECTIVES.register("masked_lm")
class MaskedLM(MaskedTokens):
    """A selected token becomes the mask, another token, or stays."""

    def corrupt(self, windows: NDArray[np.int64], **draws: Any) -> MaskedBatch:
        return mlm_mask(windows, special_ids=self.data.special_ids, vocab_size=self.data.vocab_size, **draws)
