"""A stage of training and a plan of stages, as values: block numbers, shares and names, no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AdapterSet:
    """Adapters that enter together.

    Attributes:
        name: Unique in a plan; part of the names of their parameters.
        ranks: (block, rank) of every block that gets them, on all its matrices.
        alpha: Their product is scaled by alpha / rank.
        quantised: Whether the weights under them are kept in four bits from then on.
    """

    name: str
    ranks: tuple[tuple[int, int], ...]
    alpha: int
    quantised: bool = False


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """The parts of the model that get updates in a stage.

    Attributes:
        blocks: Numbers of the blocks that train, counted from the input.
        adapters: All that have entered by now, on blocks that do not train themselves.
    """

    blocks: tuple[int, ...]
    embeddings: bool = True
    norm: bool = True
    head: bool = True
    adapters: tuple[AdapterSet, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training.

    Attributes:
        name: As in `outputs/metrics.json`.
        active_blocks: Blocks that the forward pass goes through, in order.
        trainable: What gets updates.
        objective: A name in `training.objectives`.
        noise: Bands (lowest, highest) of the share of corrupted positions; a sequence draws one of them and a share
            in it. None for objectives that corrupt nothing.
        widening: Whether the bands begin with their lowest share alone and widen to their highest over the stage.
        share: The stage's share of the budget.
        fixed_share: Whether an option of the stage's own says that share; `stage_split` divides what is left.
        finishes: Whether the stage trains a grown model once more: the losses right before it are reported beside
            those that it ends with.
        inserted: Blocks that enter with this stage, as the identity.
        reset: Blocks that go back to their initial values when this stage begins.
        own_head: Whether the head has left the token table by now.
        next_level: Share of masks whose embedding the stack that enters is drawn to (`training.consistency`); None:
            it is drawn to nothing.
        cached: Whether what goes into the blocks that train is read from a cache of the frozen blocks before them.
    """

    name: str
    active_blocks: tuple[int, ...]
    trainable: Trainable
    objective: str
    noise: tuple[tuple[float, float], ...] | None = None
    widening: bool = False
    share: float = 1.0
    fixed_share: bool = False
    finishes: bool = False
    inserted: tuple[int, ...] = ()
    reset: tuple[int, ...] = ()
    own_head: bool = False
    next_level: float | None = None
    cached: bool = False

    @property
    def lowest_trained(self) -> int:
        """Number of the lowest block that trains: what is before it may be kept in a cache."""
        return min(self.trainable.blocks)


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """The stages of a run in order; their shares sum to 1."""

    stages: tuple[Stage, ...]

    @property
    def grows(self) -> bool:
        """Whether blocks enter after the first stage."""
        return any(stage.active_blocks != self.stages[0].active_blocks for stage in self.stages)

    def __post_init__(self) -> None:
        total = sum(stage.share for stage in self.stages)
        if not self.stages or abs(total - 1) > 1e-9:
            raise ValueError(f"the shares of {len(self.stages)} stages sum to {total}, not to 1")
