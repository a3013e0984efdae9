"""Parameter counts: what is trained, and what scaling laws call the size.

Planning counts on the meta device, where no weight exists. `model/params` and `model/params_non_embedding` are
these numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class ParameterCount:
    """Numbers of parameters.

    Attributes:
        total: Every parameter once; a head tied to the embedding is one matrix.
        non_embedding: Without the embedding tables (token, position, type) and without the output projection onto
            the vocabulary (matrix and bias), tied or not. This is N of Kaplan et al. 2020 (2001.08361, section 2.1,
            "excluding all vocabulary and positional embeddings"): it depends on neither the vocabulary, nor the
            context length, nor the tie, so families are compared by it.
    """

    total: int
    non_embedding: int


def count_parameters(model: PreTrainedModel) -> ParameterCount:
    """Counts the parameters of `model`, on any device, trainable or frozen.

    Example:
        >>> from stackwise_ray.config.trial import ModelConfig
        >>> from stackwise_ray.models import build_model
        >>> config = ModelConfig(family="gpt2", role="decoder", n_layers=1, d_model=8, n_heads=2, d_ff=32)
        >>> count_parameters(build_model(config, vocab_size=100, seq_len=16, device="meta"))
        ParameterCount(total=1816, non_embedding=888)
    """
    # Keyed by identity: a tied matrix has two names.
    sizes = {id(parameter): parameter.numel() for parameter in model.parameters()}
    tables: list[nn.Module] = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    output: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if output is not None:
        tables.append(output)
    vocabulary = {id(parameter) for module in tables for parameter in module.parameters()}
    total = sum(sizes.values())
    return ParameterCount(total=total, non_embedding=total - sum(sizes[key] for key in vocabulary))
