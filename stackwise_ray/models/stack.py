"""The parts of a model, whatever its family calls them: embeddings, blocks, final norm, head.

Families make a `StackView` of their models; `models.stack_view` finds the family. It is a view: it holds the model's
own modules and changes nothing by being made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


def _unchanged(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


@dataclass(frozen=True, kw_only=True)
class StackView:
    """The parts of a model. Together they hold every parameter of the model; a tied head shares the embedding's.

    Attributes:
        embeddings: Token, position and type tables, with a norm that belongs to them (BERT, ModernBERT). The first
            takes tokens; any other is a table of positions that is added to it (GPT-2).
        embedding_dropout: A dropout between the embeddings and the first block that is in none of them (GPT-2).
        time: The embedding of time, where the model takes it (`time_input`); it trains with the embeddings.
        blocks: The layers, from the input to the output.
        final_norm: The norm between the last block and the head; None where blocks end in a norm (post-norm BERT).
        head: The modules that turn hidden states into logits, in order.
        residual_outputs: From a block to the last projection of each of its residual branches, which at 0 make it the
            identity; None where blocks end in a norm (post-norm BERT) and no such projections exist.
        projections: From a block to the matrices that low-rank adapters go on, of the shapes and in the order of the
            family's own `projections`.
        own_token: From a block to those of its matrices whose outputs no other position reads: they need not run for a
            position whose block output is not wanted. A matrix that makes keys or values is not among them.
        passed_on: What a block returns that does nothing, from its input.
    """

    embeddings: tuple[nn.Module, ...]
    blocks: nn.ModuleList
    final_norm: nn.Module | None
    head: tuple[nn.Module, ...]
    residual_outputs: Callable[[Any], tuple[nn.Module, ...]] | None
    projections: Callable[[Any], tuple[nn.Module, ...]]
    own_token: Callable[[Any], tuple[nn.Module, ...]]
    passed_on: Callable[[torch.Tensor], Any] = _unchanged
    embedding_dropout: nn.Module | None = None
    time: nn.Module | None = None

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Hidden states (batch, n, d_model) of tokens (batch, n), as the first block gets them without dropout."""
        first, *positions = self.embeddings
        hidden: torch.Tensor = first(tokens)
        for table in positions:
            hidden = hidden + table(torch.arange(tokens.shape[1], device=tokens.device))
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (..., vocab_size) of the trunk's last hidden states (..., d_model), at the positions given."""
        for module in self.head:
            hidden = module(hidden)
        return hidden

    def parts(self) -> Iterator[tuple[str, nn.Module]]:
        """(name, module) of every part, from the input to the output; names are unique."""
        yield from ((f"embeddings.{index}", module) for index, module in enumerate(self.embeddings))
        if self.time is not None:
            yield "time", self.time
        yield from ((f"blocks.{index}", block) for index, block in enumerate(self.blocks))
        if self.final_norm is not None:
            yield "final_norm", self.final_norm
        yield from ((f"head.{index}", module) for index, module in enumerate(self.head))
