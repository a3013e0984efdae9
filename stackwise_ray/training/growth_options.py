"""Options that several regimes share: the noise of stacks, and how a model grows stack by stack.

A regime's file derives its own options from these classes; rules for them are in `growth_rules`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from stackwise_ray.config.trial import Positive, Share, Strict, TrainingConfig, TrialConfig

T = TypeVar("T", bound=TrainingConfig)

ADAPTED = ("lora", "qlora")
"""Trunks that keep their weights while adapters on them train."""

DecoderObjective = Literal["noisy_context", "bidirectional"]


@dataclass(frozen=True, kw_only=True)
class Noise(Strict):
    """Share of masked positions that each stack owns, heaviest at the input; stack k of K has r_k."""

    kind: Literal["point", "band", "cumulative"] = "point"  # r_k; between its neighbours' midpoints; r_K to r_k
    schedule: Literal["linear", "cosine", "exponential"] | tuple[Share, ...] = "linear"  # or the list r_1, …, r_K
    r_first: Share = 0.95  # r_1 of the leftmost stack; above it hardly a token is left to read
    r_last: Share = 0.15  # r_K of the rightmost stack, and of the only one


@dataclass(frozen=True, kw_only=True)
class Lora(Strict):
    """Low-rank adapters on every matrix of the trunk's blocks: W + (alpha / rank) B A (Hu et al., 2106.09685)."""

    rank: Positive = 8  # of a block's adapters: the mean over the trunk, whatever the pattern
    pattern: Literal["constant", "rising", "falling"] = "constant"  # from the input on: rank/2 to 3/2 rank, or back
    dual: Positive | None = None  # rank of a second, smaller set, put over the whole trunk at each growth; None: none
    alpha: Positive = 16  # twice the default rank; fixed while the rank varies, as in the paper


@dataclass(frozen=True, kw_only=True)
class WithNoise(TrainingConfig):
    """Regimes that draw masks at the shares of stacks."""

    noise: Noise = field(default_factory=Noise)


@dataclass(frozen=True, kw_only=True)
class GrowingTraining(WithNoise):
    """Regimes that add one stack per stage."""

    blocks_per_stack: Positive = 1  # blocks that a stage adds; they divide the model's
    stage_split: Literal["uniform", "flop_proportional"] | tuple[Share, ...] = "uniform"  # or the shares in order
    trunk: Literal["frozen", "trainable", "lora", "qlora", "random_frozen"] = "frozen"  # what earlier stages trained
    lora: Lora = field(default_factory=Lora)  # with trunk lora, or qlora, which keeps the trunk's matrices in 4 bits
    embeddings: Literal["tied_frozen", "untied_frozen_head", "untied_all"] = "untied_frozen_head"  # after stage 1
    # of the budget, for a last stage on all shares of masks: everything trains, or all adapters; 1 leaves nothing else
    finish: Annotated[float, Field(ge=0, lt=1)] = 0.0


def options_of(trial: TrialConfig, kind: type[T]) -> T:
    """The training options of a trial whose regime has those of `kind`.

    Raises:
        TypeError: The regime has others: code of one regime was given a trial of another.
    """
    if not isinstance(trial.training, kind):
        raise TypeError(f"the regime {trial.training.regime} has no options of {kind.__name__}")
    return trial.training
