"""Stage plans: classical training is one stage, and an unknown regime is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stackwise_ray.config.trial import Budget, DataConfig, ModelConfig, TrainingConfig, TrialConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.training.stages import Stage, StagePlan, Trainable, stage_plan

TRIAL = TrialConfig(
    model=ModelConfig(family="gpt2", role="decoder", n_layers=3, d_model=8, n_heads=1, d_ff=8),
    data=DataConfig(corpus="markov", seq_len=16),
    training=TrainingConfig(budget=Budget(steps=1), mask_ratio=0.3),
)


def test_classical_training_of_a_decoder_is_one_stage_of_next_token_prediction():
    (stage,) = stage_plan(TRIAL).stages
    assert (stage.objective, stage.noise, stage.share) == ("next_token", None, 1.0)
    assert stage.active_blocks == stage.trainable.blocks == (0, 1, 2)
    assert stage.trainable.embeddings
    assert stage.trainable.norm
    assert stage.trainable.head


def test_classical_training_of_an_encoder_masks_at_the_configured_ratio():
    (stage,) = stage_plan(replace(TRIAL, model=replace(TRIAL.model, family="bert", role="encoder"))).stages
    assert (stage.objective, stage.noise) == ("masked_lm", ((0.3, 0.3),))


def test_an_unknown_regime_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"training.regime: unknown training regime 'classic'; did you mean"):
        stage_plan(replace(TRIAL, training=replace(TRIAL.training, regime="classic")))


def test_a_plan_whose_shares_do_not_sum_to_one_is_a_bug():
    stage = Stage(name="a", active_blocks=(0,), trainable=Trainable(blocks=(0,)), objective="next_token", share=0.5)
    with pytest.raises(ValueError, match=r"sum to 0\.5"):
        StagePlan(stages=(stage,))
