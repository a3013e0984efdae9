"""How flags edit a config: conflicts, needs, order, idempotence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from stackwise_ray.config.trial import Budget, ModelConfig, TrialConfig, data_config, training_config
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data.corpora.markov import MarkovSource
from stackwise_ray.flags import FLAGS, Flag, apply_flags

TRIAL = TrialConfig(
    model=ModelConfig(family="gpt2", role="decoder", n_layers=2, d_model=16, n_heads=2, d_ff=32),
    data=data_config(corpus="markov", seq_len=16, markov=MarkovSource()),
    training=training_config(budget=Budget(steps=4)),
)


@pytest.fixture
def extra_flags() -> Iterator[None]:
    """Flags that exist only in these tests."""

    def flag(name, edits, lack=None):
        return Flag(
            name=name, summary="", claim="", measured_by=(), needs=lambda trial: lack, edits=lambda trial: edits
        )

    added = [
        flag("test_float32", {"training.precision": "float32"}),
        flag("test_bf16", {"training.precision": "bf16"}),
        flag("test_budget", {"training.budget": {"steps": 2}}),
        flag("test_budget_steps", {"training.budget.steps": 3}),
        flag("test_narrow", {"model.d_model": 17}),
        flag("test_nested", {"training": {"precision": "bf16", "batch_tokens": 64}}),
        flag("test_needy", {}, lack="needs training.regime = depth_time; choose it or drop the flag"),
    ]
    with ExitStack() as registered:
        for entry in added:
            registered.enter_context(FLAGS.registered(entry.name, entry))
        yield


def test_without_flags_the_trial_is_the_same_object():
    assert apply_flags(TRIAL) is TRIAL


def test_a_flag_changes_its_field_alone_and_a_second_call_changes_nothing():
    once = apply_flags(replace(TRIAL, flags=("activation_checkpointing",)))
    assert once.training.activation_checkpointing
    assert replace(once, flags=(), training=replace(once.training, activation_checkpointing=False)) == TRIAL
    assert apply_flags(once) == once


def test_mixed_precision_is_bf16_and_keeps_a_chosen_fp16():
    flagged = replace(TRIAL, flags=("mixed_precision",))
    assert apply_flags(flagged).training.precision == "bf16"
    fp16 = replace(flagged, training=replace(TRIAL.training, precision="fp16"))
    assert apply_flags(fp16).training.precision == "fp16"


@pytest.mark.usefixtures("extra_flags")
@pytest.mark.parametrize(
    "pair", [("test_float32", "test_bf16"), ("test_bf16", "test_float32"), ("test_budget", "test_budget_steps")]
)
def test_two_flags_that_write_different_values_to_one_field_are_refused_with_both_names(pair):
    with pytest.raises(ConfigError) as caught:
        apply_flags(replace(TRIAL, flags=pair))
    assert all(f"'{name}'" in str(caught.value) for name in pair)


@pytest.mark.usefixtures("extra_flags")
def test_two_flags_that_write_the_same_value_compose():
    assert apply_flags(replace(TRIAL, flags=("test_bf16", "mixed_precision"))).training.precision == "bf16"


@pytest.mark.usefixtures("extra_flags")
def test_a_flag_that_lacks_something_says_what_and_what_to_write():
    with pytest.raises(ConfigError, match=r"flags: 'test_needy' needs training.regime = depth_time; choose it"):
        apply_flags(replace(TRIAL, flags=("test_needy",)))


@pytest.mark.usefixtures("extra_flags")
def test_a_rule_that_flags_break_is_said_of_the_flags_that_break_it_and_of_no_other():
    for flags in (("test_narrow", "test_bf16"), ("test_bf16", "test_narrow")):
        with pytest.raises(
            ConfigError, match=r"flags: the flag 'test_narrow' cannot be applied: model\.n_heads = 2 "
        ) as caught:
            apply_flags(replace(TRIAL, flags=flags))
        assert "test_bf16" not in str(caught.value)


def test_two_flags_that_break_a_rule_together_are_both_named():
    trial = replace(TRIAL, flags=("mixed_precision", "compile", "early_exit"))
    with pytest.raises(ConfigError, match=r"'compile' and .*'early_exit' cannot be applied together: ") as caught:
        apply_flags(trial)
    assert "mixed_precision" not in str(caught.value)


def test_a_rule_that_the_trial_breaks_by_itself_is_not_said_of_its_flags():
    broken = replace(TRIAL, model=replace(TRIAL.model, n_heads=3), flags=("mixed_precision",))
    with pytest.raises(ConfigError, match=r"^model\.n_heads = 3 ") as caught:
        apply_flags(broken)
    assert "mixed_precision" not in str(caught.value)


@pytest.mark.usefixtures("extra_flags")
def test_edits_of_a_mapping_conflict_and_compose_field_by_field():
    assert apply_flags(replace(TRIAL, flags=("test_nested", "test_bf16"))).training.batch_tokens == 64
    with pytest.raises(ConfigError, match=r"'test_float32' sets training.precision = 'float32' and 'test_nested' sets"):
        apply_flags(replace(TRIAL, flags=("test_float32", "test_nested")))


def test_an_unknown_flag_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="flags: unknown flag 'mixed_precison'; did you mean 'mixed_precision'"):
        apply_flags(replace(TRIAL, flags=("mixed_precison",)))


def test_a_flag_listed_twice_is_refused():
    with pytest.raises(ConfigError, match="contains 'mixed_precision' twice"):
        apply_flags(replace(TRIAL, flags=("mixed_precision", "mixed_precision")))
