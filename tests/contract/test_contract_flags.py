"""What every flag promises, asked of every registered flag and of every pair of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from stackwise_ray.config.trial import Budget, ModelConfig, TrialConfig, data_config, training_config
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data.corpora.markov import MarkovSource
from stackwise_ray.flags import FLAGS, apply_flags

TRIAL = TrialConfig(
    model=ModelConfig(family="gpt2", role="decoder", n_layers=2, d_model=16, n_heads=2, d_ff=32),
    data=data_config(corpus="markov", seq_len=16, markov=MarkovSource()),
    training=training_config(budget=Budget(steps=4)),
)


@pytest.mark.parametrize("name", FLAGS.names())
def test_a_flag_says_who_it_is_what_it_does_and_what_it_claims(name):
    flag = FLAGS.get(name)
    assert flag.name == name
    assert flag.summary.endswith(".")
    assert flag.claim


@pytest.mark.parametrize("name", FLAGS.names())
def test_a_flags_edit_is_pure_and_changes_the_config_or_the_flag_says_what_it_lacks(name):
    flag, trial = FLAGS.get(name), replace(TRIAL, flags=(name,))
    if flag.needs(trial) is not None:
        with pytest.raises(ConfigError, match=f"'{name}'"):
            apply_flags(trial)
        return
    assert flag.edits(trial) == flag.edits(trial)
    edited = apply_flags(trial)
    assert replace(edited, flags=()) != TRIAL
    assert apply_flags(edited) == edited


@pytest.mark.parametrize("pair", list(combinations(FLAGS.names(), 2)), ids="+".join)
def test_a_pair_of_flags_composes_in_either_order_or_is_refused_with_both_names(pair):
    try:
        edited = apply_flags(replace(TRIAL, flags=pair))
    except ConfigError as error:
        assert all(f"'{name}'" in str(error) for name in pair)  # noqa: PT017
    else:
        other_way = apply_flags(replace(TRIAL, flags=pair[::-1]))
        assert replace(edited, flags=()) == replace(other_way, flags=())
