"""How the workers of one trial divide its work: one object that assembly, step, loop, evaluation and state ask.

Here are the two that hold the whole model on every worker: one worker alone, and replicas with sums of gradients. The
one that holds shards is in `sharding`, which loads DTensor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from stackwise_ray.training.parallel.collectives import Collectives
from stackwise_ray.training.parallel.gradient_sums import GradientSums


class Parallelism(ABC):
    """What a trial's parts ask about its workers. Every worker makes the same calls in the same order.

    Attributes:
        pads_passes: Whether a worker with fewer passes than the others runs empty ones: each pass is a collective.
        gathers_checkpoints: Whether every worker takes part in a checkpoint. Then all have to agree when one is due,
            and one worker alone (at Ctrl-C, say) cannot leave any.
    """

    pads_passes: bool
    gathers_checkpoints: bool

    @abstractmethod
    def share_out(self) -> None:
        """A stage begins: leaves to this worker what it holds of the model."""

    @abstractmethod
    def make_whole(self) -> None:
        """A stage ends: gives every worker all of the model."""

    @abstractmethod
    def begin_sums(self, parameters: Sequence[nn.Parameter], collectives: Collectives) -> None:
        """The backward pass that comes is a step's last: sums of gradients may begin inside it."""

    @abstractmethod
    def sum_gradients(self, loss: Tensor, parameters: Sequence[nn.Parameter], collectives: Collectives) -> None:
        """Turns this worker's part of the loss, shape (), and of the gradients into the sums over all, in place."""

    @abstractmethod
    def gathered(self, tensor: Tensor) -> Tensor:
        """All of a parameter, an optimizer's state or a gradient norm; a collective where workers hold shards."""

    @abstractmethod
    def gathered_by_first(self, tensor: Tensor, rank: int) -> Tensor:
        """The same for a checkpoint, which the first worker writes: the others may get an empty tensor."""

    @abstractmethod
    def shared_like(self, tensor: Tensor, own: Tensor) -> Tensor:
        """What this worker holds of a whole tensor, where it holds `own` of the one that it replaces."""

    @abstractmethod
    def checkpoint_due(self, due: bool, rank: int, collectives: Collectives) -> bool:
        """Whether to write a checkpoint now, where this worker's own clock says `due`."""


class SingleWorker(Parallelism):
    """One worker holds everything and waits for nobody."""

    pads_passes = False
    gathers_checkpoints = False

    def share_out(self) -> None:
        """It keeps all of the model."""

    def make_whole(self) -> None:
        """It is whole."""

    def begin_sums(self, parameters: Sequence[nn.Parameter], collectives: Collectives) -> None:
        """There is nothing to add."""

    def sum_gradients(self, loss: Tensor, parameters: Sequence[nn.Parameter], collectives: Collectives) -> None:
        """There is nothing to add."""

    def gathered(self, tensor: Tensor) -> Tensor:
        return tensor

    def gathered_by_first(self, tensor: Tensor, rank: int) -> Tensor:
        return tensor

    def shared_like(self, tensor: Tensor, own: Tensor) -> Tensor:
        return tensor

    def checkpoint_due(self, due: bool, rank: int, collectives: Collectives) -> bool:
        return due


class Replicated(SingleWorker):
    """Every worker holds the whole model; gradients are summed during and after the last backward pass of a step."""

    def __init__(self) -> None:
        self._begun: GradientSums | None = None

    def begin_sums(self, parameters: Sequence[nn.Parameter], collectives: Collectives) -> None:
        self._begun = GradientSums(parameters, collectives)
        self._begun.watch()

    def sum_gradients(self, loss: Tensor, parameters: Sequence[nn.Parameter], collectives: Collectives) -> None:
        sums, self._begun = self._begun or GradientSums(parameters, collectives), None
        sums.finish(loss)
