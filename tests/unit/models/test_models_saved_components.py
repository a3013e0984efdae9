"""The components of a saved model: what its config says of them is held against what they declare."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stackwise_ray.config.trial.registered import NamedOptions
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models.component import Attached, attached, begin_step, write_components
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
    ],
    ids=["a value out of range", "a value of another type", "an unknown option", "no state", "an unknown component"],
)
def test_a_saved_component_that_is_not_as_declared_is_refused_with_file_and_place(
    folder: Path, tmp_path: Path, changes: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        load_saved(changed(folder, tmp_path, changes), "decoder", path="--model")
    assert str(refused.value).startswith(str(tmp_path / "config.json"))


def test_what_a_steps_flops_depend_on_is_every_components_own_word() -> None:
    class Says(Attached):
        def __init__(self, word: str) -> None:
            self._word = word

        def begin_step(self, *, step: int, share: float) -> str:
            return self._word

    model = SimpleNamespace(_attached_components={"one": Says("wide:"), "two": Says(""), "three": Says("3")})
    assert begin_step(model, step=0, share=0.0) == "one:wide:,three:3"
