"""One file brings a regime, or a corpus, with options of its own: everything else finds them by itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stackwise_ray.config.identity import trial_id
from stackwise_ray.config.loading import load_trial, sweep_from_plain
from stackwise_ray.config.space.designs import expand
from stackwise_ray.config.trial import (
    DATA,
    TRAINING,
    DataConfig,
    Positive,
    Share,
    TrainingConfig,
    TrialConfig,
    replace_training,
)
from stackwise_ray.config.trial.editing import edit, from_plain, to_plain, with_defaults
from stackwise_ray.config.trial.paths import is_trial_path
from stackwise_ray.config.trial.registered import field_names
from stackwise_ray.config.trial.rules import Found, check_trial
from stackwise_ray.config.trial.trial_config import AbsentOptions
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.records import loss_kind
from stackwise_ray.core.registries import CORPORA, FAMILIES, OPTIMIZERS, REGIMES
from stackwise_ray.data import prepare
from stackwise_ray.data.corpus import SPLITS, Corpus, Document
from stackwise_ray.training.stage import Stage, StagePlan, Trainable
from stackwise_ray.training.stages import Regime, stage_plan

SMALL = ["model=decoder/gpt2_family/tiny", "training.budget={steps: 4}"]
SMALL_TRIAL = load_trial(SMALL)
WHOLE = [pytest.param(TRAINING, name, id=name) for name in REGIMES.names()]
WHOLE += [pytest.param(DATA, name, id=name) for name in CORPORA.names()]


# ------------------------------------------------------------------------------------- a regime that comes from outside


@dataclass(frozen=True, kw_only=True)
class WidenedTraining(TrainingConfig):
    my_width: Positive = 4
    my_depth: Positive = 2


def widened(trial: TrialConfig) -> StagePlan:
    assert isinstance(trial.training, WidenedTraining)
    depth = trial.training.my_depth
    blocks = tuple(range(trial.model.n_layers))
    stage = Stage(name="w", active_blocks=blocks, trainable=Trainable(blocks=blocks), objective="next_token")
    return StagePlan(stages=tuple(dataclasses.replace(stage, share=1 / depth) for _ in range(depth)))


def not_wider(trial: TrialConfig) -> Found:
    assert isinstance(trial.training, WidenedTraining)
    if trial.training.my_width <= trial.model.d_model:
        return None
    return "training.my_width", f"= {trial.training.my_width} is wider than the model; choose {trial.model.d_model}"


@pytest.fixture
def own_regime() -> Iterator[None]:
    entry = Regime(plan=widened, options=WidenedTraining, rules=(not_wider,))
    with REGIMES.registered("widened", entry):
        yield


@pytest.mark.usefixtures("own_regime")
def test_the_options_of_a_new_regime_are_validated_planned_and_part_of_the_identity() -> None:
    trial = load_trial([*SMALL, "training.regime=widened", "training.my_depth=3"])
    assert trial.training == replace_training(trial.training, my_width=4, my_depth=3)
    assert [stage.share for stage in stage_plan(trial).stages] == [1 / 3] * 3
    assert from_plain(json.loads(json.dumps(to_plain(trial)))) == trial
    assert trial_id(edit(trial, {"training.my_width": 8}), "data") != trial_id(trial, "data")
    assert with_defaults({"training": {"regime": "widened"}})["training"]["my_depth"] == 2
    assert loss_kind({**to_plain(trial), "model": {"role": "encoder"}}) == "masks of widened"
    with pytest.raises(ConfigError, match=r"training\.my_width = 0 is out of range"):
        edit(trial, {"training.my_width": 0})
    with pytest.raises(ConfigError, match=r"training\.my_width = 1000 is wider than the model; choose 64"):
        check_trial(edit(trial, {"training.my_width": 1000}))
    with pytest.raises(ConfigError, match=r"did you mean 'training\.my_width'"):
        edit(trial, {"training.my_widht": 1})


@pytest.mark.usefixtures("own_regime")
@pytest.mark.parametrize("regime", [name for name in REGIMES.names() if name != "widened"])
def test_the_options_of_a_new_regime_are_refused_in_every_other_with_its_name(regime: str) -> None:
    problem = rf"training\.my_width = 4 has no effect in the regime {regime}; choose the regime widened"
    with pytest.raises(ConfigError, match=problem):
        load_trial([*SMALL, f"training.regime={regime}", "training.my_width=4"])


@pytest.mark.usefixtures("own_regime")
def test_a_search_space_varies_the_options_of_a_new_regime() -> None:
    base = {"model": "decoder/gpt2_family/tiny", "overrides": {"training.regime": "widened"}}
    factors = {"training.my_width": [2, 4], "training.my_depth": [1, 3]}
    require = ["training.my_width > training.my_depth"]
    design = {"kind": "grid", "factors": factors, "require": require}
    arms = expand(sweep_from_plain({"name": "x", "base": base, "design": design})).arms
    assert [(arm.trial.training.my_width, arm.trial.training.my_depth) for arm in arms] == [(2, 1), (4, 1), (4, 3)]  # type: ignore[attr-defined]


def test_a_regime_that_is_gone_is_unknown_with_its_options() -> None:
    with REGIMES.registered("widened", Regime(plan=widened, options=WidenedTraining)):
        assert is_trial_path("training.my_width")
    assert not is_trial_path("training.my_width")
    with pytest.raises(ConfigError, match=r"training\.regime = widened is an unknown regime"):
        load_trial([*SMALL, "training.regime=widened"])


# ------------------------------------------------------------------------------------- a corpus that comes from outside


@dataclass(frozen=True, kw_only=True)
class CountedData(DataConfig):
    my_first: Positive = 1
    my_share: Share = 0.5


class CountedCorpus(Corpus):
    """Numbers from `my_first` on, as text."""

    options = CountedData

    def __init__(self, config: CountedData) -> None:
        super().__init__(config)
        self.first = config.my_first

    @classmethod
    def check(cls, config: DataConfig) -> None:
        super().check(config)
        assert isinstance(config, CountedData)
        if config.my_first > 10**6:
            raise ConfigError(f"= {config.my_first} is too far; choose at most {10**6}", path="data.my_first")

    def recipe(self) -> Mapping[str, Any]:
        return {"corpus": "counted", "first": self.first}

    def signature(self) -> Mapping[str, Any]:
        return {}

    def documents(self) -> Iterator[Document]:
        for number, split in enumerate(SPLITS):
            start = self.first + 1000 * number
            yield Document(split, " ".join(map(str, range(start, start + 1000))), split)


def test_the_options_of_a_new_corpus_are_validated_prepared_and_refused_elsewhere(tmp_path: Path) -> None:
    with CORPORA.registered("counted", CountedCorpus):
        words = [*SMALL, "data.corpus=counted", "data.my_first=7"]
        trial = load_trial(words)
        assert trial.data == CountedData(corpus="counted", my_first=7)
        assert from_plain(to_plain(trial)) == trial
        assert trial_id(edit(trial, {"data.my_first": 8}), "data") != trial_id(trial, "data")
        one, other = (prepare(edit(trial, {"data.my_first": n}).data, cache_directory=tmp_path) for n in (7, 8))
        assert one.fingerprint != other.fingerprint
        with pytest.raises(ConfigError, match=r"data\.my_first = 2000000 is too far; choose at most 1000000"):
            load_trial([*words[:-1], "data.my_first=2000000"])
        for corpus in set(CORPORA.names()) - {"counted"}:
            with pytest.raises(ConfigError, match=rf"data\.my_first = 7 has no effect in the corpus {corpus}; choose"):
                load_trial([*SMALL, f"data.corpus={corpus}", "data.my_first=7"])
    with pytest.raises(ConfigError, match=r"data\.corpus = counted is an unknown corpus"):
        load_trial([*SMALL, "data.corpus=counted"])


# ---------------------------------------------------------------------------------------------------- every own entry


@pytest.mark.parametrize(("alternatives", "name"), WHOLE)
def test_options_are_a_frozen_class_of_their_own_which_names_its_entry(alternatives: Any, name: str) -> None:
    options = alternatives.of(name)
    assert issubclass(options, alternatives.base)
    assert options.__dataclass_params__.frozen
    assert set(field_names(alternatives.base)) <= set(field_names(options))


@pytest.mark.parametrize(("alternatives", "name"), WHOLE)
def test_every_option_is_refused_where_it_has_no_effect_with_the_entries_that_have_it(
    alternatives: Any, name: str
) -> None:
    for option in field_names(alternatives.of(name)) - field_names(alternatives.base):
        fitting = alternatives.entries_with(option)
        assert name in fitting
        for other in set(alternatives.registry.names()) - set(fitting):
            edits = {alternatives.field: other, option: _some_value(alternatives, option)}
            problem = rf"{option}.* has no effect in the {alternatives.field} {other}; choose"
            with pytest.raises(ConfigError, match=problem):
                edit(SMALL_TRIAL, {alternatives.place: edits})


def _some_value(alternatives: Any, option: str) -> Any:
    options = alternatives.of(alternatives.entries_with(option)[0])
    entry = next(entry for entry in dataclasses.fields(options) if entry.name == option)
    return {} if entry.default is dataclasses.MISSING else "x" if entry.default is None else entry.default


def test_what_an_absent_option_means_is_its_default_where_it_is_there() -> None:
    neutral = {name: value for name, value in vars(AbsentOptions).items() if not name.startswith("_")}
    for option, value in neutral.items():
        assert TRAINING.entries_with(option), f"no regime has {option}"
        for name in TRAINING.entries_with(option):
            assert next(e.default for e in dataclasses.fields(TRAINING.of(name)) if e.name == option) == value  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FAMILIES.names())
def test_a_family_is_asked_what_it_takes_when_a_trial_is_checked(name: str) -> None:
    family = FAMILIES.get(name)
    trial = load_trial(SMALL)
    trial = edit(trial, {"model": {"family": name, "role": family.roles[0]}})
    if family.takes_mixer:
        trial = edit(trial, {"model": {"mixer": {"kind": "none"}, "n_heads": None}})
    check_trial(trial)
    for field, fact in (("n_kv_heads", family.takes_n_kv_heads), ("max_positions", family.has_position_table)):
        if not fact:
            with pytest.raises(
                ConfigError, match=rf"model\.{field} = 2, but the family {name} has no such option; leave"
            ):
                check_trial(edit(trial, {f"model.{field}": 2}))


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_an_optimizer_states_its_rules(name: str) -> None:
    assert all(callable(rule) for rule in OPTIMIZERS.get(name).rules)
