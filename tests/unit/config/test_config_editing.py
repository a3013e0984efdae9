"""Edited copies of a trial: the rules for mappings, kinds, budgets, and the words of every refusal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackwise_ray.config.identity import canonical_json
from stackwise_ray.config.trial import (
    Budget,
    ModelConfig,
    NoMixer,
    ResolventApplyMixer,
    ResolventDiagonalMixer,
    TrialConfig,
    data_config,
    training_config,
)
from stackwise_ray.config.trial.editing import Draft, edit, from_plain, to_plain, with_defaults
from stackwise_ray.config.trial.paths import trial_paths
from stackwise_ray.core.errors import ConfigError

TRIAL = TrialConfig(
    model=ModelConfig(family="bk", role="decoder", n_layers=2, d_model=64, d_ff=128, mixer=ResolventApplyMixer()),
    data=data_config(corpus="python_stdlib"),
    training=training_config(budget=Budget(tokens=1e6)),
)


def refusal(edits: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        edit(TRIAL, edits, source="x.yaml")
    return str(caught.value)


def test_an_edit_changes_what_it_names_and_nothing_else() -> None:
    edited = edit(TRIAL, {"training.lr": 1e-2, "flags": ["a"]})
    assert edited.training.lr == 1e-2
    assert edited.flags == ("a",)
    assert edit(edited, {"training.lr": TRIAL.training.lr, "flags": []}) == TRIAL


def test_a_component_mapping_is_merged_key_by_key() -> None:
    edited = edit(TRIAL, {"training": {"schedule": {"final": 0.0}, "lr": 1}})
    assert edited.training.schedule.final == 0.0
    assert edited.training.schedule.warmup == TRIAL.training.schedule.warmup
    assert edited.training.budget == TRIAL.training.budget
    assert edit(TRIAL, {"model.mixer": {"n_heads": 4}}).model.mixer == ResolventApplyMixer(n_heads=4)


@pytest.mark.parametrize(
    "edits",
    [
        {"model.mixer": {"kind": "resolvent_diagonal", "n_heads": 1}},
        {"model.mixer.kind": "resolvent_diagonal", "model.mixer.n_heads": 1},
        {"model.mixer.n_heads": 1, "model.mixer.kind": "resolvent_diagonal"},
        {"model": {"mixer": {"n_heads": 1}}, "model.mixer.kind": "resolvent_diagonal"},
    ],
)
def test_another_kind_drops_the_keys_of_the_old_one_in_whatever_order_it_is_written(edits: dict[str, Any]) -> None:
    start = edit(TRIAL, {"model.mixer": {"n_heads": 3, "d_value": 9}})
    assert edit(start, edits).model.mixer == ResolventDiagonalMixer(n_heads=1)
    assert edit(start, {"model.mixer.kind": "none"}).model.mixer == NoMixer()


def test_the_same_kind_written_again_keeps_the_other_keys() -> None:
    start = edit(TRIAL, {"model.mixer.d_value": 9})
    assert edit(start, {"model.mixer": {"kind": "resolvent_apply", "n_heads": 2}}).model.mixer == ResolventApplyMixer(
        n_heads=2, d_value=9
    )


def test_another_kind_of_schedule_starts_from_its_defaults() -> None:
    start = edit(TRIAL, {"training.schedule.warmup": 0.5})
    assert edit(start, {"training.schedule.kind": "wsd"}).training.schedule.warmup == 0.05
    assert edit(start, {"training.schedule.kind": "cosine"}).training.schedule.warmup == 0.5


@pytest.mark.parametrize(
    ("edits", "budget"),
    [
        ({"training.budget": {"flops": 1e9}}, Budget(flops=1e9)),
        ({"training.budget.steps": 5}, Budget(steps=5)),
        ({"training.max_steps": 5}, Budget(steps=5)),
        ({"training": {"max_steps": 5}}, Budget(steps=5)),
        ({"training.budget": {"tokens": None, "wall_seconds": 2}}, Budget(wall_seconds=2.0)),
    ],
)
def test_a_budget_is_replaced_as_a_whole(edits: dict[str, Any], budget: Budget) -> None:
    assert edit(TRIAL, edits).training.budget == budget


def test_unit_and_amount_of_a_budget() -> None:
    assert (Budget(steps=5).unit, Budget(steps=5).amount) == ("steps", 5.0)
    assert (Budget(wall_seconds=2.0).unit, Budget(wall_seconds=2.0).amount) == ("wall_seconds", 2.0)
    with pytest.raises(ValueError, match="exactly one"):
        _ = Budget().amount


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"training.lerning_rate": 1}, ["training.lerning_rate", "did you mean 'training.lr'?"]),
        ({"training.learning_rate": 1}, ["did you mean 'training.lr'?"]),
        ({"model.hidden_size": 1}, ["did you mean 'model.d_model'?"]),
        ({"trainig.lr": 1}, ["no 'trainig.lr'", "did you mean"]),
        ({"training.lr": "3e-4"}, ['"3e-4" is text', "write it without quotes: 3e-4"]),
        ({"training.lr": "nan"}, ['"nan" is not a finite number; it must be a number']),
        ({"training.lr": "fast"}, ["is text; it must be a number"]),
        ({"training.lr": "1e-3,3e-3"}, ["--multirun"]),
        ({"training.lr": True}, ["true is a truth value; it must be a number"]),
        ({"training.lr": None}, ["null is null; it must be a number"]),
        ({"training.lr": [1]}, ["is a list; it must be a number"]),
        ({"training.lr": 0}, ["= 0 is out of range", "above 0"]),
        ({"training.lr": float("nan")}, ["= nan is not a finite number"]),
        ({"training.lr": float("inf")}, ["= inf is not a finite number"]),
        ({"training.batch_tokens": 4e3}, ["not written as a whole number; write 4000"]),
        ({"training.batch_tokens": "64"}, ["write it without quotes: 64"]),
        ({"training.activation_checkpointing": "yes"}, ["text; it must be true or false"]),
        ({"training.precision": "bf61"}, ["did you mean 'bf16'?"]),
        ({"training.schedule": "cosine"}, ["text; it must be a mapping; write {kind: cosine}"]),
        ({"training.schedule": 3}, ["a number; it must be a mapping; its keys are kind, warmup, decay, final"]),
        ({"data.half": 2}, ["a trial has no 'data.half'", "add --plugin NAME or FILE.py"]),
        ({"training.budget": {"flops": 1, "tokens": 2}}, ["holds 2 units (flops, tokens)", "give exactly one"]),
        ({"training.budget": {"flops": 1}, "training.max_steps": 2}, ["holds 2 units"]),
        ({"training.budget": {}}, ["is empty; give exactly one"]),
        ({"training.budget": {"token": 1}}, ["did you mean 'training.budget.tokens'?"]),
        ({"training.budget": None}, ["null is null; it must be a mapping"]),
        ({"model.mixer": {"kind": "non"}}, ["model.mixer.kind = non is unknown; did you mean 'none'?"]),
        ({"model.mixer": {"kind": "none", "n_heads": 2}}, ["model.mixer.n_heads", "kind none has no such key"]),
        ({"model.mixer": {"kind": "attention", "d_value": 2}}, ["kind attention has no such key; "]),
        ({"optimizer.betas": [0.9]}, ["optimizer.betas"]),
        ({"optimizer.betas": [0.9, 0.9, 0.9]}, ["optimizer.betas"]),
        ({"flags": "a"}, ["text; it must be a list"]),
        ({"flags": ["a", 1]}, ["flags.1 = 1 is a number; it must be text", 'in quotes: "1"']),
        ({"training.lr": 1, "training": {"lr": 2}}, ["'training.lr' a second time"]),
        ({"schema_version": 2}, ["= 2 is newer than the version 1", "update stackwise_ray"]),
        ({"schema_version": 0}, ["= 0 is not the version 1"]),
        ({"seed": object()}, ["seed"]),
    ],
)
def test_a_refusal_names_file_path_value_and_fix(edits: dict[str, Any], words: list[str]) -> None:
    message = refusal(edits)
    assert message.startswith("x.yaml: ")
    for word in words:
        assert word in message


def test_a_missing_required_field_is_named_with_the_others() -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml: model\.role: is required, but it is absent; .*model\.d_ff"):
        from_plain(
            {"model": {"family": "gpt2"}, "data": {"corpus": "ptb"}, "training": {"budget": {"steps": 1}}}, "x.yaml"
        )


def test_an_unknown_key_of_a_stored_config_comes_before_what_its_misspelling_lacks() -> None:
    plain = to_plain(TRIAL)
    plain["model"]["d_modle"] = plain["model"].pop("d_model")
    with pytest.raises(ConfigError, match=r"model\.d_modle: unknown key; did you mean 'd_model'\?"):
        from_plain(plain)


def test_defaults_are_filled_in_without_validation() -> None:
    filled = with_defaults({"model": {"mixer": {"kind": "attention"}}, "training": {"budget": {"tokens": 1.0}}})
    assert filled["model"]["mixer"] == {"kind": "attention", "n_heads": 4}
    assert filled["training"]["schedule"]["kind"] == "cosine"
    assert "family" not in filled["model"]
    assert filled["optimizer"]["betas"] == [0.9, 0.95]


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**6),
    st.floats(),
    st.text(max_size=6),
    st.lists(st.integers(), max_size=2),
)
edits_of_any_kind = st.dictionaries(
    st.sampled_from(trial_paths()) | st.text(max_size=10),
    values | st.dictionaries(st.text(max_size=5), values),
    max_size=3,
)


@settings(max_examples=50)
@given(edits_of_any_kind)
def test_any_edit_gives_a_valid_trial_or_a_config_error(edits: dict[str, Any]) -> None:
    try:
        edited = edit(TRIAL, edits)
    except ConfigError:
        return
    assert from_plain(to_plain(edited)) == edited


valid_edits = st.fixed_dictionaries(
    {},
    optional={
        "training.lr": st.floats(1e-9, 1e3),
        "training.batch_tokens": st.integers(1, 10**9),
        "model.mixer": st.sampled_from(
            [{"kind": "none"}, {"kind": "attention"}, {"kind": "resolvent_diagonal", "eta": 1}]
        ),
        "training.budget": st.one_of(
            st.fixed_dictionaries({"flops": st.floats(1, 1e18)}),
            st.fixed_dictionaries({"steps": st.integers(1, 10**6)}),
        ),
        "flags": st.lists(st.text(max_size=5), max_size=3),
        "seed": st.integers(0, 2**62),
        "data.tokenizer": st.text(max_size=8),
    },
)


@settings(max_examples=50)
@given(valid_edits)
def test_editing_twice_is_editing_once_and_the_plain_form_is_lossless(edits: dict[str, Any]) -> None:
    edited = edit(TRIAL, edits)
    assert edit(edited, edits) == edited
    again = from_plain(to_plain(edited))
    assert again == edited
    assert canonical_json(again) == canonical_json(edited)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("liner", "x.yaml: training.noise.schedule = \"liner\" is unknown; did you mean 'linear'? (or give a list)"),
        ([0.9, 2], "x.yaml: training.noise.schedule.1 = 2 is out of range; it must be at most 1.0"),
        (0.3, "x.yaml: training.noise.schedule = 0.3 is a number; it must be a list"),
    ],
)
def test_a_field_that_takes_a_name_or_a_list_says_what_is_wrong_with_the_one_given(value: Any, message: str) -> None:
    assert refusal({"training.regime": "depth_time", "training.noise.schedule": value}) == message


def test_an_option_of_another_regime_is_refused_at_the_place_where_a_part_of_it_was_written() -> None:
    problem = (
        "has no effect in the regime classical; choose the regime append, classical_random_ratio, depth_time or hybrid"
    )
    assert refusal({"training.noise.schedule": "cosine"}) == (
        f"x.yaml: training.noise: {problem}, or leave it out (or the preset of training that brings it)"
    )
    with pytest.raises(ConfigError, match=r"x\.yaml: base\.overrides\.training\.noise: has no effect"):
        Draft(plain=to_plain(TRIAL)).edited(
            {"training.noise.schedule": "cosine"}, source="x.yaml", place="base.overrides"
        ).build()


def test_another_regime_keeps_common_options_and_leaves_out_those_that_said_nothing() -> None:
    grown = edit(TRIAL, {"training.regime": "depth_time", "training.lr": 0.5})
    assert set(to_plain(grown)["training"]) >= {"lora", "noise", "entry"}
    assert edit(grown, {"training.regime": "classical"}) == edit(TRIAL, {"training.lr": 0.5})
    other = edit(edit(grown, {"training.trunk": "trainable"}), {"training.regime": "append"})
    assert to_plain(other)["training"]["trunk"] == "trainable"


def test_an_option_that_somebody_wrote_is_not_lost_with_its_regime_but_refused() -> None:
    grown = edit(TRIAL, {"training.regime": "depth_time", "training.noise": {"r_last": 0.3}})
    with pytest.raises(ConfigError, match=r"training\.noise: has no effect in the regime classical"):
        edit(grown, {"training.regime": "classical"})
    assert edit(grown, {"training.regime": "classical", "training.noise": None}) == TRIAL


def test_another_corpus_asks_for_its_own_options() -> None:
    markov = edit(TRIAL, {"data.corpus": "markov", "data.markov": {"order": 1}})
    with pytest.raises(
        ConfigError,
        match=r"data\.markov: has no effect in the corpus python_stdlib; choose the corpus mar",
    ):
        edit(markov, {"data.corpus": "python_stdlib"})
    back = edit(markov, {"data.corpus": "python_stdlib", "data.markov": None})
    assert back.data.corpus == "python_stdlib"
    assert "markov" not in to_plain(back)["data"]
