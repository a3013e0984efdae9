"""What every training objective promises: batches that depend on their sequences alone, of the shape of the inputs."""

from __future__ import annotations

import numpy as np

from stackwise_ray.contracts import NotAtHand, require
from stackwise_ray.contracts.small_trial import small_trial
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import TrainingOrder, prepare
from stackwise_ray.training.objectives import OBJECTIVES, Objective
from stackwise_ray.training.stages import stage_plan

SEQUENCES = range(4)


def its_batches_depend_on_their_sequences_alone(name: str) -> None:
    """The same sequences give the same batch, whoever asks, and in whatever company."""
    first, again = made(name).training_batch(SEQUENCES), made(name).training_batch(SEQUENCES)
    same = np.array_equal(first.inputs, again.inputs) and np.array_equal(first.targets, again.targets)
    require(same, "the same sequences give another batch")
    part = made(name).training_batch(range(2, 3))
    require(np.array_equal(part.inputs[0], first.inputs[2]), "a sequence's inputs depend on its company")


def its_targets_are_counted(name: str) -> None:
    """Targets have the shape of the inputs, and `loss_positions` counts those that there is a loss for."""
    from stackwise_ray.metrics.losses import IGNORED

    objective = made(name)
    for what, batch in (
        ("training", objective.training_batch(SEQUENCES)),
        ("validation", objective.validation_batch(np.array([0, objective.seq_len], dtype=np.int64))),
    ):
        require(batch.targets.shape == batch.inputs.shape, f"{what}: inputs and targets have different shapes")
        counted = int((batch.targets != IGNORED).sum())
        said = batch.loss_positions
        require(counted == said, f"{what}: {counted} positions have a target, and loss_positions = {said}")


def made(name: str) -> Objective:
    """The objective of the first stage of a small trial that has one, on prepared data.

    Raises:
        NotAtHand: No regime of ours uses it on a small trial, so it is checked with the regime that does.
    """
    for words in WORDS:
        try:
            trial = small_trial(*words)
        except ConfigError:
            continue
        stage = stage_plan(trial).stages[0]
        if stage.objective == name:
            data = prepare(trial.data)
            order = TrainingOrder(data.splits["train"].n_tokens, trial.data.seq_len, trial.seed)
            objective: Objective = OBJECTIVES.get(name)(trial, stage, data, order)
            return objective
    raise NotAtHand("no regime of stackwise_ray uses it; train a trial of the regime that does")


ENCODER = ("model.role=encoder", "model.family=bert")
WORDS = ((), ENCODER, ("training.regime=depth_time",), (*ENCODER, "training.regime=depth_time"))
"""Small trials that between them use every objective of ours."""

CHECKS = (its_batches_depend_on_their_sequences_alone, its_targets_are_counted)
