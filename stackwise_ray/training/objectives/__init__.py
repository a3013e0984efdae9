"""What is predicted from what: one file per objective, each turning windows of tokens into inputs and targets.

`Stage.objective` names one. The loss is always summed cross-entropy over the positions that have a target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stackwise_ray.core import registries
from stackwise_ray.core.registry import Registry

if TYPE_CHECKING:
    from stackwise_ray.config.trial import TrialConfig
    from stackwise_ray.data import PreparedData, TrainingOrder
    from stackwise_ray.training.stage import Stage


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences ready for a model.

    Attributes:
        inputs: int64, shape (n_sequences, seq_len).
        targets: int64, same shape; `metrics.losses.IGNORED` where there is no loss.
        loss_positions: Positions with a target.
        times: float32, shape (n_sequences,): the share of positions that was to be masked, for a model that takes time
            (0: clean text); None: the objective has none.
        clearer: The inputs as the next stack gets them, with fewer masks, same shape; None: the stage needs none.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    loss_positions: int
    times: NDArray[np.float32] | None = None
    clearer: NDArray[np.int64] | None = None

    @property
    def revealed_positions(self) -> int:
        """Positions that are masked in the inputs and not in the clearer ones."""
        return 0 if self.clearer is None else int((self.inputs != self.clearer).sum())


class Objective(ABC):
    """Makes batches of one stage of one trial.

    Attributes:
        left_to_right: Whether every prediction sees its past alone: then exp(loss) is a perplexity, whole splits can
            be scored, and no model may beat a source whose entropy is known.
        stage_used: Share of the stage's budget that is used when a training batch is asked for; the loop sets it.
    """

    left_to_right: bool
    stage_used: float = 0.0

    def __init__(self, trial: TrialConfig, stage: Stage, data: PreparedData, order: TrainingOrder) -> None:
        self.trial, self.stage, self.data, self.order = trial, stage, data, order
        self.seq_len = trial.data.seq_len

    @abstractmethod
    def training_batch(self, sequences: range) -> Batch:
        """The sequences with these global counters: the same whoever asks, in whatever company, and whenever, but
        where the stage's noise widens with `stage_used`."""

    @abstractmethod
    def validation_batch(self, offsets: NDArray[np.int64]) -> Batch:
        """Windows of the validation split; the same in every arm and for every seed."""


OBJECTIVES: Registry[Callable[[TrialConfig, Stage, PreparedData, TrainingOrder], Objective]] = registries.OBJECTIVES
