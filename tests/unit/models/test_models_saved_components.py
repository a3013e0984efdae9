"""The components of a saved model: what its config says of them is held against what they declare."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from stackwise_ray.config.trial.registered import NamedOptions
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models.component import Attached, attached, begin_step, write_components
from stackwise_ray.models.components._early_exits import EarlyExits
from stackwise_ray.models.components.early_exit import EarlyExitOptions
from stackwise_ray.models.saved import load_saved
from stackwise_ray.training.assembly import build_training_model
from tests.small_trials import TRIAL, with_model

OPTIONS = EarlyExitOptions(exits=(1,), threshold=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of two layers with an exit."""
    place = tmp_path_factory.mktemp("saved")
    chosen = NamedOptions({"early_exit": OPTIONS})
    model = build_training_model(with_model(TRIAL, components=chosen), vocab_size=50, special_ids={"mask": 1})
    write_components(model, chosen)
    model.save_pretrained(place)
    return place


def changed(folder: Path, target: Path, changes: Any) -> Path:
    """A copy whose record of the component is another one."""
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((target / "config.json").read_text())
    changes(config["stackwise_components"])
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_a_saved_component_comes_back_with_its_options_and_state(folder: Path) -> None:
    model = load_saved(folder, "decoder", path="--model")
    exits: Any = attached(model)["early_exit"]
    assert exits._options == OPTIONS
    assert exits.state() == {"threshold": 0.5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda all: all["early_exit"]["options"].update(threshold=7), r"early_exit\.options\.threshold = 7"),
        (lambda all: all["early_exit"]["options"].update(exits="first"), r"early_exit\.options\.exits = .first."),
        (lambda all: all["early_exit"]["options"].update(treshold=0.5), r"options\.treshold.*threshold"),
        (lambda all: all["early_exit"].pop("state"), r"stackwise_components\.early_exit\.state"),
        (lambda all: all.update(early_exits=all.pop("early_exit")), r"early_exits.*'early_exits'.*early_exit"),
        (lambda all: all["early_exit"]["options"].update(exits=[99]), r"early_exit\.options\.exits = \[99\] must be"),
        (lambda all: all["early_exit"]["options"].update(exits=[]), r"early_exit\.options\.exits = \[\] must be"),
        (lambda all: all["early_exit"].update(state={}), r"early_exit\.state\.threshold: is required"),
        (lambda all: all["early_exit"].update(state={"threshold": "abc"}), r"early_exit\.state\.threshold = .abc. is"),
        (lambda all: all["early_exit"].update(state={"threshold": 7}), r"early_exit\.state\.threshold = 7 is out of"),
        (
            lambda all: all.clear(),
            r"components: does not fit the weights beside it: early_exit_norms\.0.* would be left out",
        ),
    ],
    ids=[
        "a value out of range",
        "a value of another type",
        "an unknown option",
        "no state",
        "an unknown component",
        "an exit beyond the model",
        "no exits",
        "an empty state",
        "a state of another type",
        "a state out of range",
        "no component",
    ],
)
def test_a_saved_component_that_is_not_as_declared_is_refused_with_file_and_place(
    folder: Path, tmp_path: Path, changes: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        load_saved(changed(folder, tmp_path, changes), "decoder", path="--model")
    assert str(refused.value).startswith(str(tmp_path / "config.json"))


@pytest.mark.parametrize("record", [[1, 2], "early_exit", None], ids=["a list", "text", "nothing"])
def test_a_record_of_components_that_is_no_mapping_is_refused_with_its_file(
    folder: Path, tmp_path: Path, record: Any
) -> None:
    changed(folder, tmp_path, lambda all: None)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"stackwise_components": record}))
    with pytest.raises(ConfigError, match=r"config\.json: stackwise_components = .* it must map components"):
        load_saved(tmp_path, "decoder", path="--model")


def test_weights_of_a_component_that_are_absent_or_of_another_shape_are_named(folder: Path, tmp_path: Path) -> None:
    changed(folder, tmp_path, lambda all: None)
    tensors = load_file(tmp_path / "model.safetensors")
    weight = tensors.pop("early_exit_norms.0.weight")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=rf"= {tmp_path} is not a complete .* it lacks early_exit_norms\.0\.weight"):
        load_saved(tmp_path, "decoder", path="--model")
    save_file({**tensors, "early_exit_norms.0.weight": weight[:1]}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"model\.safetensors: has early_exit_norms\.0\.weight in the shape \(1,\)"):
        load_saved(tmp_path, "decoder", path="--model")


def test_a_state_that_a_component_cannot_take_over_is_refused_also_where_the_component_does_not_look(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a component that does not look, as a plugin's may be; what is under test is who calls it
    monkeypatch.setattr(EarlyExits, "restore", lambda self, state: state["depth"])
    with pytest.raises(ConfigError, match=r"early_exit\.state = .* is not what early_exit saves \(KeyError: 'depth'\)"):
        load_saved(changed(folder, tmp_path, lambda all: None), "decoder", path="--model")


def test_what_a_steps_flops_depend_on_is_every_components_own_word() -> None:
    class Says(Attached):
        def __init__(self, word: str) -> None:
            self._word = word

        def begin_step(self, *, step: int, share: float) -> str:
            return self._word

    model = SimpleNamespace(_attached_components={"one": Says("wide:"), "two": Says(""), "three": Says("3")})
    assert begin_step(model, step=0, share=0.0) == "one:wide:,three:3"
