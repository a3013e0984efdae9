"""Design generators, replicates, tuning: from a sweep to its arms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stackwise_ray.config.loading import load_trial, sweep_from_plain, sweep_from_words
from stackwise_ray.config.space import designs
from stackwise_ray.config.space.designs import (
    Design,
    arm_resolve,
    expand,
    tuned,
)
from stackwise_ray.config.space.domains import LogUniform
from stackwise_ray.config.space.seeds import replicate_seeds, tuning_seeds, with_seed
from stackwise_ray.config.space.sweep_config import SweepConfig
from stackwise_ray.config.space.sweep_rules import planned_trials
from stackwise_ray.config.trial.flag_answers import flatten
from stackwise_ray.core.errors import ConfigError

BASE = {"model": "decoder/gpt2_family/tiny", "data": "markov", "overrides": {"training.max_steps": 10}}


def sweep(design: dict[str, Any], **keys: Any) -> SweepConfig:
    return sweep_from_plain({"name": "x", "base": BASE, "design": design, **keys}, source="x.yaml")


def arms(design: dict[str, Any], **keys: Any) -> Design:
    return expand(sweep(design, **keys))


def refusal(design: dict[str, Any], **keys: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        arms(design, **keys)
    return str(caught.value)


def test_named_arms_take_presets_dotted_paths_and_component_mappings() -> None:
    design = arms(
        {
            "kind": "arms",
            "arms": {
                "base": None,
                "llama": {"model": "decoder/llama_family/tiny", "training.lr": 1e-2},
                "wsd": {"training.schedule": {"kind": "wsd"}, "training": {"accumulation": 2}},
            },
        }
    )
    assert [arm.name for arm in design.arms] == ["base", "llama", "wsd"]
    base, llama, wsd = design.arms
    assert base.trial == load_trial(["model=decoder/gpt2_family/tiny", "data=markov", "training.max_steps=10"])
    assert (llama.trial.model.family, llama.trial.training.lr, llama.trial.training.budget.steps) == ("llama", 1e-2, 10)
    assert wsd.trial.training.schedule.kind == "wsd"
    assert wsd.parameters == {"training.schedule.kind": "wsd", "training.accumulation": 2}
    assert all(arm.trial.seed == 0 for arm in design.arms)


def test_two_arms_that_are_one_trial_are_refused_with_both_names() -> None:
    message = refusal({"kind": "arms", "arms": {"one": {}, "two": {"training.lr": 3e-3}}})
    assert message == "x.yaml: design.arms.two: is the same trial as arm 'one'; change or remove one of them"


def test_an_arm_that_contradicts_itself_is_an_error_that_names_the_key() -> None:
    message = refusal({"kind": "arms", "arms": {"seven": {"model.n_heads": 7}}})
    assert message == "x.yaml: design.arms.seven.model.n_heads = 7 does not divide d_model = 64; choose 4, 8 or 16"


def test_a_grid_has_an_arm_for_every_combination() -> None:
    design = arms({"kind": "grid", "factors": {"training.lr": [1e-3, 1e-2], "model.n_layers": [2, 4]}})
    assert [arm.name for arm in design.arms] == [
        "lr=0.001,n_layers=2",
        "lr=0.001,n_layers=4",
        "lr=0.01,n_layers=2",
        "lr=0.01,n_layers=4",
    ]
    assert design.arms[2].parameters == {"training.lr": 1e-2, "model.n_layers": 2}
    assert (design.arms[2].trial.training.lr, design.arms[2].trial.model.n_layers) == (1e-2, 2)


def test_a_grid_over_preset_groups_and_components() -> None:
    design = arms(
        {
            "kind": "grid",
            "factors": {
                "model": ["decoder/gpt2_family/tiny", "decoder/llama_family/tiny"],
                "training.schedule": [{"kind": "wsd"}, {"kind": "linear"}],
            },
        }
    )
    assert [arm.name for arm in design.arms] == [
        "model=gpt2_family-tiny,schedule=wsd",
        "model=gpt2_family-tiny,schedule=linear",
        "model=llama_family-tiny,schedule=wsd",
        "model=llama_family-tiny,schedule=linear",
    ]
    assert design.arms[3].trial.model.family == "llama"
    assert design.arms[3].parameters == {"model": "decoder/llama_family/tiny", "training.schedule.kind": "linear"}


def test_contradictory_cells_are_refused_with_the_reason_and_excluded_ones_with_the_constraint() -> None:
    design = arms({"kind": "grid", "factors": {"model.n_heads": [2, 3, 4, 8]}, "require": ["model.n_heads < 8"]})
    assert [arm.name for arm in design.arms] == ["n_heads=2", "n_heads=4"]
    (refused,) = design.refused
    assert refused.name == "n_heads=3"
    assert "= 3 does not divide d_model = 64" in refused.reason
    (excluded,) = design.excluded
    assert excluded.reason == "breaks 'model.n_heads < 8'"


def test_a_design_that_leaves_nothing_is_an_error() -> None:
    assert "excludes every arm" in refusal({"kind": "grid", "factors": {"model.n_heads": [3, 7]}})


def test_a_wrong_type_in_a_factor_is_an_error_at_the_factor() -> None:
    message = refusal({"kind": "grid", "factors": {"training.lr": [1e-3, "1e-2"]}})
    assert message.startswith('x.yaml: design.factors.training.lr = "1e-2" is text; it must be a number')


def test_one_at_a_time_changes_the_base_in_one_value_each_and_does_not_repeat_it() -> None:
    design = arms({"kind": "one_at_a_time", "factors": {"training.lr": [1e-3, 3e-3], "model.n_layers": [2, 4]}})
    assert [arm.name for arm in design.arms] == ["base", "lr=0.001", "n_layers=2"]  # 3e-3 and 4 are the base's own
    assert sweep({"kind": "one_at_a_time", "factors": {"training.lr": [1e-3]}}).baseline == "base"


def test_a_factorial_needs_two_levels_of_each_factor() -> None:
    assert (
        len(arms({"kind": "factorial", "factors": {"training.lr": [1, 2], "flags": [[], ["mixed_precision"]]}}).arms)
        == 4
    )
    assert "fewer than two levels" in refusal(
        {"kind": "factorial", "factors": {"training.lr": [1], "model.n_layers": [1, 2]}}
    )


def test_a_fraction_keeps_half_of_the_runs_and_says_what_is_aliased() -> None:
    factors = {
        "training.lr": [1, 2],
        "model.n_layers": [1, 2],
        "data.seq_len": [64, 128],
        "training.accumulation": [1, 2],
    }
    design = arms({"kind": "fractional_factorial", "factors": factors})
    assert len(design.arms) == 8
    for path, values in factors.items():
        assert sorted(arm.parameters[path] for arm in design.arms) == sorted(values * 4)
    assert design.notes == ("8 of 16 runs, resolution 4; defining relation I = lr × n_layers × seq_len × accumulation",)
    assert "exactly two of each factor" in refusal(
        {"kind": "fractional_factorial", "factors": {**factors, "training.lr": [1, 2, 3]}}
    )
    assert "a fraction takes 2 to 15" in refusal({"kind": "fractional_factorial", "factors": {"training.lr": [1, 2]}})


def test_replicates_are_seeds_from_zero_or_those_listed() -> None:
    design = {"kind": "arms", "arms": {"a": {}}}
    assert replicate_seeds(sweep(design)) == (0, 1, 2)
    assert replicate_seeds(sweep(design, replicates={"seeds": 2})) == (0, 1)
    assert replicate_seeds(sweep(design, replicates={"seeds": [7, 3]})) == (7, 3)
    trial = expand(sweep(design)).arms[0].trial
    assert with_seed(trial, 5).seed == 5
    assert with_seed(with_seed(trial, 5), 0) == trial


def test_tuning_seeds_are_no_replicate_seeds_and_depend_on_the_root_alone() -> None:
    tune = {"space": {"training.lr": {"log_uniform": [1e-3, 1e-2]}}}
    design = {"kind": "arms", "arms": {"a": {}}}
    seeds = tuning_seeds(sweep(design, tune=tune))
    assert len(set(seeds)) == 3
    assert seeds == tuning_seeds(sweep(design, tune=tune, replicates={"seeds": 2}))
    assert seeds != tuning_seeds(sweep(design, tune=tune, seed=1))
    taken = sweep(design, tune=tune, replicates={"seeds": [seeds[0]]})
    assert not set(tuning_seeds(taken)) & set(replicate_seeds(taken))


def test_an_arm_is_tuned_in_what_it_does_not_set_itself() -> None:
    tuned_sweep = sweep(
        {"kind": "arms", "arms": {"free": {}, "fixed": {"training": {"lr": 1e-2}}}},
        tune={"space": {"training.lr": {"log_uniform": [1e-3, 1e-2]}}, "trials_per_arm": 4},
    )
    free, fixed = expand(tuned_sweep).arms
    (factor,) = expand(tuned_sweep).tuning_space(free).factors
    assert factor.domain == LogUniform(1e-3, 1e-2)
    assert expand(tuned_sweep).tuning_space(fixed).factors == ()
    assert tuned(free, {"training.lr": 5e-3}).training.lr == 5e-3
    assert arm_resolve(free)({"training.lr": 5e-3})["training"]["lr"] == 5e-3
    assert planned_trials(tuned_sweep, expand(tuned_sweep)) == {"tuning": 4, "replicate": 6}


def test_a_search_has_a_space_and_no_arms() -> None:
    searching = sweep(
        {"kind": "search"}, search={"trials": 7, "space": {"training.lr": {"log_uniform": [1e-3, 1e-2]}}, "winners": 2}
    )
    assert expand(searching).arms == ()
    assert expand(searching).search_space.paths == ("training.lr",)
    assert planned_trials(searching, expand(searching)) == {"search": 7, "replicate": 6}
    inside = sweep({"kind": "search", "search": {"trials": 7, "space": {"training.lr": [1, 2]}}})
    assert inside.search is not None
    assert inside.search.trials == 7


def test_a_sweep_is_expanded_once_and_a_changed_copy_again(monkeypatch: pytest.MonkeyPatch) -> None:
    expanded = []  # looks on; the function itself runs
    monkeypatch.setattr(designs, "_cells", lambda sweep, make=designs._cells: expanded.append(sweep) or make(sweep))
    loaded = sweep({"kind": "arms", "arms": {"a": {}, "b": {"training.lr": 1e-3}}})
    assert expand(loaded) is expand(loaded)
    assert len(expanded) == 1, "when it was checked"
    fewer = replace(loaded, design=replace(loaded.design, arms={"a": {}}))
    assert [arm.name for arm in expand(fewer).arms] == ["a"]
    assert len(expand(loaded).arms) == 2


def test_flattening_reaches_every_leaf() -> None:
    assert flatten({"model.mixer": {"kind": "none"}, "training": {"schedule": {"final": 0}}, "flags": []}) == {
        "model.mixer.kind": "none",
        "training.schedule.final": 0,
        "flags": [],
    }


def test_multirun_is_the_same_trials_as_a_grid() -> None:
    words = ["model=decoder/gpt2_family/tiny", "data=markov", "training.max_steps=10"]
    multirun = sweep_from_words([*words, "training.lr=1e-3,1e-2", "model.n_layers=2,4"])
    grid = arms({"kind": "grid", "factors": {"training.lr": [1e-3, 1e-2], "model.n_layers": [2, 4]}})
    assert expand(multirun).arms == grid.arms
    assert replicate_seeds(multirun) == (0,)
    single = load_trial([*words, "training.lr=1e-2", "model.n_layers=4"])
    assert expand(multirun).arms[-1].trial == single


def test_multirun_over_seeds_presets_and_lists() -> None:
    seeds = sweep_from_words(["model=decoder/gpt2_family/tiny", "seed=3,4", "name=two"])
    assert (seeds.name, replicate_seeds(seeds), len(expand(seeds).arms)) == ("two", (3, 4), 1)
    models = sweep_from_words(
        ["model=decoder/gpt2_family/tiny,decoder/llama_family/tiny", "optimizer.betas=[0.9,0.95]"]
    )
    assert [arm.trial.model.family for arm in expand(models).arms] == ["gpt2", "llama"]
    with pytest.raises(ConfigError, match="needs a word with several values"):
        sweep_from_words(["model=decoder/gpt2_family/tiny"])
