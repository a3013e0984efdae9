"""Masked denoising: predict the masked tokens of a window from those left, at the share of masks that a stage owns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackwise_ray.data.corruption import MaskedBatch, denoising_mask
from stackwise_ray.training.objectives import OBJECTIVES
from stackwise_ray.training.objectives._masked import MaskedTokens


@OBJECTIVES.register("masked_denoising")
class MaskedDenoising(MaskedTokens):
    """A selected token always becomes the mask; the masks of a window are nested in the share."""

    def corrupt(self, windows: NDArray[np.int64], **draws: Any) -> MaskedBatch:
        return denoising_mask(windows, special_ids=self.data.special_ids, **draws)
