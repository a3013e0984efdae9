"""What a flag answers: its lack in a sentence, its edits in a mapping; anything else is a message that names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from stackwise_ray.config.trial.flag_answers import components_selected, edits_of, flatten, lack_of
from stackwise_ray.core.errors import ConfigError, PluginError
from stackwise_ray.core.registries import FLAGS
from stackwise_ray.flags import Flag
from tests.small_trials import TRIAL


def answering(needs: Any = None, edits: Any = None) -> Flag:
    """A flag that answers this, whatever it is asked about."""
    return Flag(
        name="mine",
        summary="Answers.",
        claim="None.",
        measured_by=(),
        needs=lambda trial: needs,
        edits=lambda trial: {} if edits is None else edits,
    )


def test_a_lack_is_a_sentence_or_nothing() -> None:
    for answer in (None, "", "it has no mixer"):
        with FLAGS.registered("mine", answering(needs=answer)):
            assert lack_of("mine", TRIAL) == answer
    with FLAGS.registered("mine", answering(needs=False)), pytest.raises(PluginError) as refused:
        lack_of("mine", TRIAL)
    assert str(refused.value).endswith(
        "the flag 'mine': its `needs` gives False; return a sentence, or None where nothing is lacking"
    )


@pytest.mark.parametrize("edits", [[("training.lr", 1.0)], {1: 2}, {"training": {"budget": {3: 4}}}])
def test_edits_that_are_no_mapping_by_path_are_refused(edits: Any) -> None:
    with FLAGS.registered("mine", answering(edits=edits)), pytest.raises(PluginError) as refused:
        edits_of("mine", TRIAL)
    assert str(refused.value).endswith(
        f"the flag 'mine': its `edits` gives {edits!r}; return a mapping from dotted paths to values"
    )


@pytest.mark.parametrize(
    ("edits", "twice"),
    [
        ({"training.lr": 1.0, "training": {"lr": 2.0}}, "training.lr"),
        ({"model.mixer.kind": "x", "model.mixer": None}, "model.mixer"),
    ],
)
def test_a_field_that_is_set_twice_is_named_by_its_shorter_path(edits: dict[str, Any], twice: str) -> None:
    with FLAGS.registered("mine", answering(edits=edits)), pytest.raises(PluginError) as refused:
        edits_of("mine", TRIAL)
    assert f"its `edits` sets {twice} twice, in a mapping and by its dotted path" in str(refused.value)


def test_edits_are_flat_and_an_empty_mapping_is_a_value() -> None:
    nested = {"training": {"lr": 1.0, "budget": {"steps": 3}}, "model.components": {}}
    flat = {"training.lr": 1.0, "training.budget.steps": 3, "model.components": {}}
    assert flatten(nested) == flat
    with FLAGS.registered("mine", answering(edits=nested)):
        assert edits_of("mine", TRIAL) == flat


@pytest.mark.parametrize("ask", [lack_of, edits_of])
def test_what_a_flag_raises_is_a_message_and_an_unknown_flag_is_a_mistake(ask: Callable[..., Any]) -> None:
    def broken(trial: object) -> Any:
        raise KeyError("nothing")

    flag = replace(answering(), needs=broken, edits=broken)
    with (
        FLAGS.registered("mine", flag),
        pytest.raises(PluginError, match=r"'mine': its `\w+` raises KeyError"),
    ):
        ask("mine", TRIAL)
    with pytest.raises(ConfigError, match="unknown flag 'mixed_precison'; did you mean 'mixed_precision'"):
        ask("mixed_precison", TRIAL)


def test_components_are_those_of_the_words_and_of_the_flags() -> None:
    edits = {"model.components": {"early_exit": {"threshold": 0.5}}, "model.components.other.size": 1, "training.lr": 1}
    assert list(components_selected(TRIAL)) == []
    with FLAGS.registered("mine", answering(edits=edits)):
        assert list(components_selected(replace(TRIAL, flags=("mine",)))) == ["early_exit", "other"]
