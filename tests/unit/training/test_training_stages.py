"""Stage plans: classical training is one stage, and an unknown regime is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stackwise_ray.config.trial import Budget, ModelConfig, TrialConfig, data_config, replace_training, training_config
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import prepare
from stackwise_ray.data.corpora.markov import MarkovSource
from stackwise_ray.planning.trial_plan import plan_trial, split_by_cost
from stackwise_ray.training.budget import StageFlops
from stackwise_ray.training.regimes.depth_time import DepthTimeTraining, depth_time
from stackwise_ray.training.stage import Stage, StagePlan, Trainable
from stackwise_ray.training.stages import REGIMES, Regime, stage_plan
from tests.small_trials import GROWING, run, with_model, with_training

TRIAL = TrialConfig(
    model=ModelConfig(family="gpt2", role="decoder", n_layers=3, d_model=8, n_heads=1, d_ff=8),
    data=data_config(corpus="markov", seq_len=16, markov=MarkovSource()),
    training=training_config(budget=Budget(steps=1)),
)


def test_classical_training_of_a_decoder_is_one_stage_of_next_token_prediction():
    (stage,) = stage_plan(TRIAL).stages
    assert (stage.objective, stage.noise, stage.share) == ("next_token", None, 1.0)
    assert stage.active_blocks == stage.trainable.blocks == (0, 1, 2)
    assert stage.trainable.embeddings
    assert stage.trainable.norm
    assert stage.trainable.head


def test_classical_training_of_an_encoder_masks_at_the_configured_ratio():
    training = replace_training(TRIAL.training, mask_ratio=0.3)
    trial = replace(TRIAL, model=replace(TRIAL.model, family="bert", role="encoder"), training=training)
    (stage,) = stage_plan(trial).stages
    assert (stage.objective, stage.noise) == ("masked_lm", ((0.3, 0.3),))


def test_an_unknown_regime_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"training.regime: unknown training regime 'classic'; did you mean"):
        stage_plan(replace(TRIAL, training=replace(TRIAL.training, regime="classic")))


def test_a_plan_whose_shares_do_not_sum_to_one_is_a_bug():
    stage = Stage(name="a", active_blocks=(0,), trainable=Trainable(blocks=(0,)), objective="next_token", share=0.5)
    with pytest.raises(ValueError, match=r"sum to 0\.5"):
        StagePlan(stages=(stage,))


def growing(regime="depth_time", **training):
    trial = replace(TRIAL, model=replace(TRIAL.model, family="bert", role="encoder", n_layers=4))
    return replace(trial, training=replace_training(trial.training, regime=regime, **training))


def test_depth_as_time_grows_from_the_output_to_the_input_through_what_is_frozen():
    stages = stage_plan(growing()).stages
    assert [stage.active_blocks for stage in stages] == [(3,), (2, 3), (1, 2, 3), (0, 1, 2, 3)]
    assert [stage.trainable.blocks for stage in stages] == [(3,), (2,), (1,), (0,)]
    assert [stage.inserted for stage in stages] == [(), (2,), (1,), (0,)]
    assert [stage.noise[0][0] for stage in stages] == pytest.approx([0.15, 0.15 + 0.8 / 3, 0.15 + 1.6 / 3, 0.95])
    assert [(s.trainable.norm, s.trainable.head, s.trainable.embeddings) for s in stages] == [
        (True, True, True),
        (False, False, True),
        (False, False, True),
        (False, False, True),
    ]
    assert [stage.own_head for stage in stages] == [False, True, True, True]
    assert {stage.objective for stage in stages} == {"masked_denoising"}


def test_stacks_may_be_of_several_blocks_and_stages_of_unequal_shares():
    stages = stage_plan(growing(blocks_per_stack=2, stage_split=(0.75, 0.25))).stages
    assert [(stage.active_blocks, stage.share) for stage in stages] == [((2, 3), 0.75), ((0, 1, 2, 3), 0.25)]


def test_policies_of_the_embeddings_and_the_control_of_a_random_trunk():
    tied = stage_plan(growing(embeddings="tied_frozen")).stages[1]
    assert (tied.trainable.embeddings, tied.trainable.head, tied.own_head) == (False, False, False)
    both = stage_plan(growing(embeddings="untied_all")).stages[1]
    assert (both.trainable.embeddings, both.trainable.head, both.own_head) == (True, True, True)
    control = stage_plan(growing(trunk="random_frozen")).stages[1]
    assert (control.trainable.norm, control.trainable.head, control.reset) == (True, True, (3,))


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"blocks_per_stack": 3},
            r"blocks_per_stack = 3 does not divide model\.n_layers = 4; choose 1, 2, 4",
        ),
        (
            {"stage_split": (0.5, 0.5)},
            r"training\.stage_split = \[0\.5, 0\.5\] has 2 shares .* needs 4 positive shares",
        ),
        ({"stage_split": (0.5, 0.5, 0.5, 0.5)}, r"with the sum 2"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(training, message):
    with pytest.raises(ConfigError, match=message):
        stage_plan(growing(**training))


def test_the_control_of_depth_as_time_trains_once_on_all_its_shares():
    trial = growing()
    (stage,) = stage_plan(
        replace(trial, training=replace_training(trial.training, regime="classical_random_ratio"))
    ).stages
    assert stage.trainable.blocks == (0, 1, 2, 3)
    assert [low for low, high in stage.noise if low == high] == pytest.approx(
        [0.95, 0.15 + 1.6 / 3, 0.15 + 0.8 / 3, 0.15]
    )


def test_appending_grows_from_the_input_on_top_of_what_is_frozen():
    stages = stage_plan(growing(regime="append")).stages
    assert [stage.active_blocks for stage in stages] == [(0,), (0, 1), (0, 1, 2), (0, 1, 2, 3)]
    assert [stage.trainable.blocks for stage in stages] == [(0,), (1,), (2,), (3,)]
    assert [stage.trainable.embeddings for stage in stages] == [True, False, False, False]
    assert all(stage.trainable.head and stage.trainable.norm for stage in stages)
    assert [stage.noise[0][0] for stage in stages] == pytest.approx([0.95, 0.15 + 1.6 / 3, 0.15 + 0.8 / 3, 0.15])


@pytest.mark.parametrize("regime", GROWING)
def test_a_trunk_may_go_on_training_and_a_finish_trains_everything(regime):
    stages = stage_plan(growing(regime=regime, trunk="trainable", finish=0.2)).stages
    assert all(stage.trainable.blocks == stage.active_blocks and not stage.own_head for stage in stages)
    assert [stage.share for stage in stages] == pytest.approx([0.2] * 5)
    assert (stages[-1].name, len(stages[-1].noise), stages[-1].inserted) == ("finish", 4, ())


def test_a_finish_after_freezing_trains_every_part():
    finish = stage_plan(growing(finish=0.2)).stages[-1].trainable
    assert finish.blocks == (0, 1, 2, 3)
    assert finish.embeddings
    assert finish.norm
    assert finish.head


def test_a_stack_of_several_blocks_enters_whole_and_the_stack_before_goes_back_whole():
    right_to_left = stage_plan(growing(blocks_per_stack=2, trunk="random_frozen")).stages[1]
    assert (right_to_left.inserted, right_to_left.reset) == ((0, 1), (2, 3))
    left_to_right = stage_plan(growing(regime="append", blocks_per_stack=2, trunk="random_frozen")).stages[1]
    assert (left_to_right.inserted, left_to_right.reset) == ((2, 3), (0, 1))


def _renamed(trial: TrialConfig) -> StagePlan:
    """Depth as time with a finish, in which no stage has the name that it usually has."""
    plan = depth_time(trial)
    return StagePlan(stages=tuple(replace(stage, name=f"part {n}") for n, stage in enumerate(plan.stages)))


@pytest.fixture
def renamed() -> Iterator[TrialConfig]:
    """A trial of a regime with other names of stages."""
    with REGIMES.registered("renamed", Regime(plan=_renamed, options=DepthTimeTraining)):
        yield with_training(with_model(n_layers=3), regime="renamed", finish=0.5, stage_split="flop_proportional")


def test_a_plan_splits_by_cost_what_stages_with_a_share_of_their_own_leave(renamed: TrialConfig) -> None:
    flops = [
        StageFlops(forward_per_sequence=n, backward_per_sequence=0, evaluation_per_sequence=n, optimizer_per_step=0)
        for n in (1, 2, 1, 100)
    ]
    shares = [stage.share for stage in split_by_cost(renamed, stage_plan(renamed), flops).stages]
    assert shares == pytest.approx([0.125, 0.25, 0.125, 0.5])


@pytest.mark.usefixtures("module_cache")
def test_what_comes_before_a_finish_is_scored_and_planned_whatever_the_stage_is_called(
    renamed: TrialConfig, tmp_path: Path
) -> None:
    trial = with_training(renamed, stage_split="uniform", budget=Budget(steps=8))
    data = prepare(trial.data)
    tokens = {split: stream.n_tokens for split, stream in data.splits.items()}
    plan = plan_trial(trial, vocab_size=data.vocab_size, special_ids=data.special_ids, split_tokens=tokens)
    _, result = run(trial, tmp_path)
    assert "validation/loss_without_finish" in result.metrics
    assert result.metrics["flops/evaluation"] == plan.flops_evaluation
