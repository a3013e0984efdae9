"""Which options go with which way of training: what would have no effect is refused."""

from __future__ import annotations

from typing import Any

import pytest

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.trial.editing import edit
from stackwise_ray.config.trial.rules import check_trial
from stackwise_ray.core.errors import ConfigError

GPT2 = load_trial(["model=decoder/gpt2_family/tiny"])
BERT = load_trial(["model=encoder/bert_family/tiny"])

HYBRID = {"training.regime": "hybrid", "training.init_from": "runs/x"}
OWN = {"training.regime": "hybrid", "training.pretraining_share": 0.5}


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (
            {"training.trunk": "random_frozen"},
            "training.trunk = random_frozen has no effect in the regime classical",
        ),
        (
            {"training.noise": {"r_last": 0.3}},
            "training.noise: has no effect in the regime classical; choose the regime",
        ),
        (
            {"training.stage_split": [0.5, 0.5]},
            "training.stage_split = [0.5, 0.5] has no effect in the regime",
        ),
        (
            {"training.regime": "classical_random_ratio", "training.embeddings": "untied_all"},
            "has no effect in the regime classical_random_ratio; choose the regime append, depth_time or hybrid",
        ),
        (
            {"training.regime": "append", "training.consistency": 0.1},
            "training.consistency = 0.1 has no effect in the regime append; choose the regime depth_time",
        ),
        (
            {"training.regime": "depth_time", "training.consistency": 0.1, "model.n_layers": 1},
            "training.consistency = 0.1 has no effect: it draws a stack to the input of the next, and there is only",
        ),
        (
            {"training.regime": "append", "training.entry": "nearest_r"},
            "training.entry = nearest_r has no effect in the regime append; choose the regime depth_time",
        ),
        (
            {"training.regime": "depth_time", "training.entry": "nearest_r", "training.blocks_per_stack": 4},
            "training.entry = nearest_r has no effect: it chooses among stacks, and there is only one",
        ),
        (
            {"training.regime": "depth_time", "training.mask_ratio": 0.3},
            "training.mask_ratio = 0.3 has no effect in the regime depth_time; choose the regime classical or hybrid",
        ),
        (
            {
                "training.regime": "depth_time",
                "training.noise": {"schedule": [0.9, 0.6, 0.4, 0.2], "r_last": 0.2},
            },
            "training.noise.r_last = 0.2 has no effect beside a list of shares ([0.9, 0.6, 0.4, 0.2])",
        ),
        (
            {"training.regime": "depth_time", "training.trunk": "random_frozen", "training.embeddings": "untied_all"},
            "= untied_all has no effect with trunk: random_frozen, where embeddings and head train",
        ),
        ({"training.spectral_norm": True}, "training.spectral_norm = True has no effect in the family bert"),
        ({"training.residual_gain": 0.5}, "its blocks end in a norm, which undoes the scale; leave it out"),
        (
            {"training.regime": "depth_time", "training.stage_split": "flop_proportional"},
            "training.stage_split = flop_proportional divides a budget of flops or wall_seconds so that",
        ),
        (
            {"training.regime": "depth_time", "training.trunk": "random_frozen", "training.embeddings": "tied_frozen"},
            "= tied_frozen freezes the head after the first stage, and a random_frozen trunk needs it to train",
        ),
        (
            {"training.init_from": "runs/x"},
            "training.init_from = runs/x has no effect in the regime classical; choose the regime hy",
        ),
        ({"training.charge_init": False}, "training.charge_init = false has no effect in the regime classical"),
        (
            {"training.regime": "hybrid"},
            "training.init_from: is absent, and the regime hybrid begins from a checkpoint; give the folder",
        ),
        ({"training.regime": "hybrid"}, "or set training.pretraining_share, such as 0.5"),
        (
            HYBRID | {"training.pretraining_share": 0.5},
            "training.pretraining_share = 0.5 has no effect: training.init_from =",
        ),
        (
            {"training.pretraining_share": 0.5},
            "training.pretraining_share = 0.5 has no effect in the regime classical; choose the regime hybrid",
        ),
        (OWN | {"training.charge_init": False}, "training.charge_init = false has no effect without training.init_f"),
        (HYBRID | {"training.mask_ratio": 0.3}, "training.mask_ratio = 0.3 has no effect in the regime hybrid"),
        (
            HYBRID | {"model.pretrained": "x"},
            "model.pretrained = x has no effect: the weights come from training.init_from",
        ),
        (HYBRID | {"training.noise.kind": "band"}, "training.noise.kind = band has no effect in the regime hybrid"),
        (HYBRID | {"training.trunk": "random_frozen"}, "in the regime hybrid the stacks come from a checkpoint"),
        (HYBRID | {"training.finish": 0.1}, "training.finish: has no effect in training.hybrid = finetune"),
        (HYBRID | {"training.noise.schedule": "cosine"}, "training.noise.schedule: has no effect in training.hybrid"),
        (
            {"training.trunk": "lora"},
            "training.trunk = lora has no effect in the regime classical; choose the regime",
        ),
        (
            {"training.lora": {"rank": 4}},
            "training.lora: has no effect in the regime classical; choose the regime",
        ),
        (
            {"training.regime": "depth_time", "training.lora": {"rank": 4}},
            "training.lora: has no effect with training.trunk: frozen; leave it out, or choose trunk: lora or qlora",
        ),
        (
            {"training.regime": "depth_time", "training.trunk": "lora", "training.blocks_per_stack": 4},
            "training.trunk = lora has no effect: the model is one stack and has no trunk",
        ),
        (
            {"training.regime": "append", "training.trunk": "lora", "training.lora": {"rank": 1, "pattern": "rising"}},
            "training.lora.pattern = rising has no effect with rank 1",
        ),
        (
            {
                "training.regime": "append",
                "training.trunk": "qlora",
                "training.lora": {"pattern": "falling"},
                "training.blocks_per_stack": 2,
                "model.n_layers": 3,
            },
            "training.lora.pattern = falling has no effect with a trunk of one block",
        ),
        (
            {"training.regime": "depth_time", "training.trunk": "lora", "training.lora": {"rank": 8, "dual": 8}},
            "training.lora.dual = 8 is not below the least rank of the first set of adapters, 8",
        ),
        (
            {
                "training.regime": "depth_time",
                "training.trunk": "lora",
                "training.lora": {"rank": 8, "dual": 4, "pattern": "rising"},
            },
            "training.lora.dual = 4 is not below the least rank of the first set of adapters, 4",
        ),
    ],
)
def test_fields_of_another_regime_are_refused(edits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_trial(edit(BERT, edits))
    assert message in str(caught.value)


def test_a_decoder_that_is_evaluated_on_clean_text_is_entered_at_its_input() -> None:
    with pytest.raises(
        ConfigError, match=r"training\.entry = nearest_r has no effect: it is about masked inputs, and a decoder"
    ):
        check_trial(edit(GPT2, {"training.regime": "depth_time", "training.entry": "nearest_r"}))


ONE = {"model.n_layers": 2, "training.blocks_per_stack": 2}


@pytest.mark.parametrize(
    ("edits", "field"),
    [
        ({"training.regime": "depth_time", "training.trunk": "random_frozen"}, "trunk = random_frozen"),
        ({"training.regime": "append", "training.trunk": "trainable", "training.finish": 0.2}, "trunk = trainable"),
        ({"training.regime": "append", "training.embeddings": "untied_all"}, "embeddings = untied_all"),
        ({"training.regime": "depth_time", "training.stage_split": [1.0]}, r"stage_split = \[1\.0\]"),
        ({"training.regime": "depth_time", "training.noise.kind": "band"}, "noise.kind = band"),
        ({"training.regime": "append", "training.noise.schedule": "cosine"}, "noise.schedule = cosine"),
        ({"training.regime": "classical_random_ratio", "training.noise.r_first": 0.9}, "noise.r_first = 0.9"),
        ({**OWN, "training.hybrid": "band", "training.embeddings": "tied_frozen"}, "embeddings = tied_frozen"),
    ],
)
def test_what_one_stack_has_no_use_for_is_refused(edits: dict[str, Any], field: str) -> None:
    check_trial(edit(BERT, edits))
    with pytest.raises(
        ConfigError, match=rf"training\.{field} has no effect: the model is one stack .*smaller training\.blocks"
    ):
        check_trial(edit(BERT, {**edits, **ONE}))


def test_one_stack_keeps_what_it_has_a_use_for() -> None:
    check_trial(edit(BERT, {**ONE, "training.regime": "depth_time", "training.noise.schedule": [0.3]}))
    timed = {"training.regime": "append", "training.time": "input", "training.noise.r_first": 0.9}
    check_trial(edit(BERT, {**ONE, **timed, "training.embeddings": "untied_frozen_head"}))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"decay": 0.5}, "schedule.decay = 0.5 has no effect in a cosine schedule; leave it out, or choose wsd"),
        (
            {"kind": "constant", "final": 0.0},
            "schedule.final = 0 has no effect in a constant schedule; leave it out, or choose",
        ),
    ],
)
def test_a_part_of_another_schedule_is_refused(schedule: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"training.{message}"):
        check_trial(edit(BERT, {"training.schedule": schedule}))


def test_masking_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.mask_ratio = 0 masks no token, and an encoder learns from"):
        check_trial(edit(BERT, {"training.mask_ratio": 0.0}))


def test_a_hybrid_that_trains_its_own_checkpoint_takes_what_classical_training_takes() -> None:
    check_trial(edit(BERT, {**OWN, "training.mask_ratio": 0.3}))
    check_trial(edit(BERT, {**OWN, "model.pretrained": "weights"}))
    with pytest.raises(ConfigError, match=r"training\.mask_ratio = 0\.3 has no effect on a decoder"):
        check_trial(edit(GPT2, {**OWN, "training.mask_ratio": 0.3}))


def test_a_decoder_has_no_share_of_masks_in_classical_training() -> None:
    check_trial(edit(BERT, {"training.mask_ratio": 0.3}))
    with pytest.raises(ConfigError, match=r"training\.mask_ratio = 0\.3 has no effect on a decoder; only encoders"):
        check_trial(edit(GPT2, {"training.mask_ratio": 0.3}))


def test_all_embeddings_over_a_random_prefix_mean_something() -> None:
    fields = {"training.regime": "append", "training.trunk": "random_frozen", "training.embeddings": "untied_all"}
    check_trial(edit(BERT, fields))


def test_a_gain_does_not_change_weights_that_are_given() -> None:
    with pytest.raises(ConfigError, match=r"residual_gain = 0\.5 would change what the weights at runs/a compute"):
        check_trial(edit(GPT2, {"model.pretrained": "runs/a", "training.residual_gain": 0.5}))
    hybrid = {"training.regime": "hybrid", "training.init_from": "runs/b", "training.residual_gain": 0.5}
    with pytest.raises(ConfigError, match=r"residual_gain = 0\.5 would change what the weights at runs/b compute"):
        check_trial(edit(GPT2, hybrid))


def test_adapters_may_be_on_a_trunk_under_a_frozen_tied_head_and_in_a_finish_of_one_stack() -> None:
    trunk = {"training.regime": "depth_time", "training.trunk": "lora"}
    check_trial(edit(BERT, {**trunk, "training.embeddings": "tied_frozen"}))
    check_trial(edit(BERT, {**trunk, "training.lora": {"rank": 8, "dual": 3, "pattern": "falling"}}))
    check_trial(edit(BERT, {**trunk, "training.blocks_per_stack": 4, "training.finish": 0.2}))
    check_trial(edit(BERT, {**trunk, "training.consistency": 0.5}))


@pytest.mark.parametrize(
    ("trial", "field", "value"),
    [(BERT, "entry", "nearest_r"), (GPT2, "spectral_norm", True), (GPT2, "residual_gain", 0.5)],
)
def test_what_is_about_a_stack_by_itself_is_refused_beside_adapters(trial: Any, field: str, value: Any) -> None:
    fields = {"training.regime": "depth_time", f"training.{field}": value}
    check_trial(edit(trial, fields))
    with pytest.raises(ConfigError, match=rf"training\.{field} = .* trunk: lora"):
        check_trial(edit(trial, {**fields, "training.trunk": "lora"}))
