"""BK-core: the O(N) model around resolvents of tridiagonal matrices; importing it registers it with transformers."""

from stackwise_ray.models.bk.bk_model import (
    BKBlock,
    BKConfig,
    BKForCausalLM,
    BKForMaskedLM,
    BKForSequenceClassification,
    BKModel,
    BKPreTrainedModel,
)

__all__ = [
    "BKBlock",
    "BKConfig",
    "BKForCausalLM",
    "BKForMaskedLM",
    "BKForSequenceClassification",
    "BKModel",
    "BKPreTrainedModel",
]
