"""Every shipped search space loads, expands, is fair, and says what it is; every shipped preset makes a trial."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from stackwise_ray.config.identity import canonical_json, trial_id
from stackwise_ray.config.loading import load_sweep, load_trial, shipped_search_spaces
from stackwise_ray.config.reading.presets import list_presets
from stackwise_ray.config.reading.yaml import dump_yaml
from stackwise_ray.config.space.designs import Design, arm_resolve, expand, tuned
from stackwise_ray.config.space.domains import levels
from stackwise_ray.config.space.seeds import replicate_seeds
from stackwise_ray.config.space.sweep_config import (
    IsoflopDesign,
    LadderDesign,
    SearchDesign,
    SweepConfig,
    sweep_to_plain,
)
from stackwise_ray.config.space.sweep_rules import planned_trials
from stackwise_ray.config.trial.editing import from_plain, to_plain
from stackwise_ray.config.trial.rules import check_trial
from stackwise_ray.plugin_checkup import HEAVY
from tests.golden import Golden
from tests.heavy_modules import NUMERIC, run_and_list

SHIPPED = shipped_search_spaces()
REPOSITORY = Path(__file__).resolve().parents[2]


@cache
def sweep_of(name: str) -> SweepConfig:
    return load_sweep(name)


@cache
def design_of(name: str) -> Design:
    return expand(sweep_of(name))


def test_the_files_that_every_version_ships_are_there() -> None:
    shipped = {"ablation", "smoke", "lr_sweep", "gpt2_small_wikitext", "wikitext2_benchmark", "associative_recall"}
    assert shipped | {"scaling_study", "compute_equalized_scaling"} <= set(SHIPPED)
    assert {file.stem for file in (REPOSITORY / "search_spaces").glob("*.yaml")} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_loads_expands_and_asks_its_question(name: str) -> None:
    sweep = sweep_of(name)
    assert sweep.name == name
    assert sweep.question.endswith("?")
    design = design_of(name)
    assert not design.refused
    assert not design.excluded
    assert bool(design.arms) is not isinstance(sweep.design, SearchDesign)
    assert SHIPPED[name].read_text().startswith("# ")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_arms_of_a_shipped_file_are_as_on_file(name: str, golden: Golden) -> None:
    """Their identities, too: with others, a sweep that is run again would not find its finished trials."""
    arms = design_of(name).arms
    found = {arm.name: {"identity": trial_id(arm.trial, "data"), "sets": dict(arm.parameters)} for arm in arms}
    resolved = to_plain(arms[0].trial if arms else sweep_of(name).base)
    golden.check_json(f"arms/{name}.json", {"arms": found, "first": resolved})


@pytest.mark.parametrize("name", SHIPPED)
def test_the_trials_of_a_shipped_file_have_identities_of_their_own(name: str) -> None:
    sweep = sweep_of(name)
    for arm in design_of(name).arms:
        assert from_plain(to_plain(arm.trial)) == arm.trial
    ids = [trial_id(arm.trial, "data") for arm in design_of(name).arms]
    assert len(set(ids)) == len(ids)
    assert sum(planned_trials(sweep, design_of(name)).values()) <= (sweep.limits.trials or 10**9)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_arms_of_a_shipped_file_have_equal_budgets_data_and_evaluation(name: str) -> None:
    trials = [arm.trial for arm in design_of(name).arms]
    sized = isinstance(sweep_of(name).design, IsoflopDesign | LadderDesign)  # their budgets are what varies
    for trial in trials[1:]:
        assert trial.data == trials[0].data
        assert sized or trial.training.budget == trials[0].training.budget
        assert trial.training.batch_tokens == trials[0].training.batch_tokens
        assert trial.optimizer == trials[0].optimizer


@pytest.mark.parametrize("name", SHIPPED)
def test_both_ends_of_every_domain_of_a_shipped_file_are_valid(name: str) -> None:
    sweep = sweep_of(name)
    if sweep.tune is not None:
        for arm in design_of(name).arms:
            space = design_of(name).tuning_space(arm)
            for factor in space.factors:
                ends = levels(factor.domain) or (factor.domain.low, factor.domain.high)  # type: ignore[union-attr]
                for value in ends:
                    assert arm_resolve(arm)({factor.path: value}) == to_plain(tuned(arm, {factor.path: value}))
    if isinstance(sweep.design, SearchDesign):
        assert design_of(name).search_space.factors


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_stored_beside_its_results_is_read_back_equal(name: str, tmp_path: Path) -> None:
    sweep = sweep_of(name)
    stored = tmp_path / "sweep.yaml"
    stored.write_text(dump_yaml(dict(sweep_to_plain(sweep))))
    again = load_sweep(stored)
    assert sweep_to_plain(again) == sweep_to_plain(sweep)
    assert [canonical_json(arm.trial) for arm in expand(again).arms] == [
        canonical_json(arm.trial) for arm in design_of(name).arms
    ]


def test_the_ablation_and_the_smoke_run_have_the_same_five_arms() -> None:
    ablation, smoke = (design_of(name) for name in ("ablation", "smoke"))
    assert [arm.name for arm in ablation.arms] == ["attention", "llama", "resolvent", "bk_original", "token_local"]
    assert [(arm.name, arm.trial.model) for arm in smoke.arms] == [(arm.name, arm.trial.model) for arm in ablation.arms]
    kinds = [arm.trial.model.mixer and arm.trial.model.mixer.kind for arm in ablation.arms]
    assert kinds == [None, None, "resolvent_apply", "resolvent_diagonal", "none"]
    original = ablation.arms[3].trial.model.mixer
    assert (original.n_heads, original.base, original.eta, original.learn) == (1, -2.0, 1.0, ("potential",))  # type: ignore[union-attr]
    assert len(replicate_seeds(sweep_of("ablation"))) == 3
    assert len(replicate_seeds(sweep_of("smoke"))) == 2
    assert {arm.trial.data.corpus for arm in smoke.arms} == {"markov"}


@pytest.mark.parametrize("preset", list_presets("model"))
def test_every_model_preset_makes_a_valid_trial(preset: str) -> None:
    trial = load_trial([f"model={preset}"])
    check_trial(trial)
    assert trial.model.dropout == 0.0
    assert preset.startswith(f"{trial.model.role}/{trial.model.family}_family/")


@pytest.mark.parametrize("preset", list_presets("data"))
def test_every_data_preset_makes_a_valid_trial(preset: str) -> None:
    words = ["data.path=texts"] if preset == "text_files" else []
    assert load_trial(["model=decoder/gpt2_family/tiny", f"data={preset}", *words]).data.corpus == preset


@pytest.mark.parametrize("group", ["training", "optimizer"])
def test_every_preset_of_training_and_optimizer_makes_a_valid_trial(group: str) -> None:
    for preset in list_presets(group):
        words = ["training.pretraining_share=0.5"] if preset == "hybrid" else []
        load_trial(["model=decoder/gpt2_family/tiny", f"{group}={preset}", *words])


@pytest.mark.parametrize(
    "program",
    [
        "from stackwise_ray.config.loading import load_sweep; load_sweep('ablation')",
        "from stackwise_ray.config.loading import load_sweep; load_sweep('lr_sweep', ['search.trials=3'])",
        "from stackwise_ray.config.loading import load_trial; load_trial(['model=decoder/gpt2_family/tiny'])",
        "import stackwise_ray.config.space.designs, stackwise_ray.config.space.sweep_rules",
        "import stackwise_ray.config.identity",
    ],
)
def test_reading_a_configuration_loads_nothing_heavy(program: str) -> None:
    _, loaded = run_and_list(program, (*HEAVY, *NUMERIC), cwd=REPOSITORY)
    assert loaded == []
