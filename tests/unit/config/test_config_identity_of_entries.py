"""A trial is another one when the source of a plugin changes that registered something which the trial names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from stackwise_ray.config.identity import trial_id
from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.registered import NamedOptions
from stackwise_ray.core import plugins
from stackwise_ray.core.plugins import Plugin
from stackwise_ray.core.registries import BY_KIND, FLAGS, REGIMES
from stackwise_ray.flags import Flag

NEVER_IN_A_TRIAL = {"tasks", "laws", "samplers", "schedulers", "analyses"}
NAMING: dict[str, Callable[[TrialConfig], TrialConfig]] = {
    "families": lambda trial: replace(trial, model=replace(trial.model, family="mine")),
    "corpora": lambda trial: replace(trial, data=replace(trial.data, corpus="mine")),
    "regimes": lambda trial: replace(trial, training=replace(trial.training, regime="mine")),
    "objectives": lambda trial: replace(trial, training=replace(trial.training, regime="by_mine")),
    "optimizers": lambda trial: replace(trial, optimizer=replace(trial.optimizer, kind="mine")),
    "components": lambda trial: replace(trial, model=replace(trial.model, components=NamedOptions({"mine": ()}))),
    "flags": lambda trial: replace(trial, flags=("mine",)),
}
SETTING: dict[str, dict[str, Any]] = {
    "families": {"model.family": "mine"},
    "corpora": {"data.corpus": "mine"},
    "regimes": {"training.regime": "mine"},
    "optimizers": {"optimizer.kind": "mine"},
    "families of a mapping": {"model": {"family": "mine"}},
    "regimes of a mapping": {"training": {"regime": "mine"}},
    "components": {"model.components.mine": {}},
    "components of a mapping": {"model.components": {"mine": {}}},
    "components by an option": {"model.components.mine.size": 3},
}
"""What a flag of another plugin may set so that the trial uses the entry."""


def plugin(kind: str, name: str, sha256: str) -> Plugin:
    return Plugin(name=f"{name}.py", module=f"of_{kind}_{name}", sha256=sha256, entries=((kind, name),))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    def load(kind: str, name: str, sha256: str) -> None:
        monkeypatch.setitem(plugins._loaded, f"of_{kind}_{name}", plugin(kind, name, sha256))

    return load


def small() -> TrialConfig:
    return load_trial(["model=decoder/gpt2_family/tiny", "data=markov"])


def flag(edits: dict[str, Any]) -> Flag:
    return Flag(name="other", summary="", claim="", measured_by=(), needs=lambda trial: None, edits=lambda trial: edits)


@pytest.mark.parametrize("kind", [kind for kind in BY_KIND if kind not in NEVER_IN_A_TRIAL])
def test_a_changed_plugin_makes_a_trial_that_names_its_entry_another_one(
    kind: str, loaded: Callable[[str, str, str], None]
) -> None:
    plain, ours = small(), next(iter(BY_KIND[kind].items()))[1]
    stages = [SimpleNamespace(objective="mine")]
    by_mine = SimpleNamespace(plan=lambda trial: SimpleNamespace(stages=stages), options=object, rules=(), masks=None)
    loaded("regimes", "by_mine", "1" * 64)
    if kind == "regimes":
        ours = REGIMES.get("classical")
    with BY_KIND[kind].registered("mine", ours), REGIMES.registered("by_mine", by_mine):
        ids = []
        for sha256 in ("a" * 64, "b" * 64):
            loaded(kind, "mine", sha256)
            ids.append((trial_id(plain, "data"), trial_id(NAMING[kind](plain), "data")))
    (before, with_it), (after, changed) = ids
    assert before == after
    assert with_it != changed


@pytest.mark.parametrize("case", SETTING)
def test_a_changed_plugin_makes_a_trial_whose_flag_selects_its_entry_another_one(
    case: str, loaded: Callable[[str, str, str], None]
) -> None:
    kind = case.partition(" ")[0]
    ours = REGIMES.get("classical") if kind == "regimes" else next(iter(BY_KIND[kind].items()))[1]
    trial = replace(small(), flags=("other",))
    with BY_KIND[kind].registered("mine", ours), FLAGS.registered("other", flag(SETTING[case])):
        ids = []
        for sha256 in ("a" * 64, "b" * 64):
            loaded(kind, "mine", sha256)
            ids.append(trial_id(trial, "data"))
    assert ids[0] != ids[1]
