"""Search-space files: the grammar, the command line over them, and every mistake that is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from stackwise_ray.config.identity import plan_hash, sweep_hash
from stackwise_ray.config.loading import find_search_space, load_sweep, sweep_from_plain
from stackwise_ray.config.reading.yaml import dump_yaml
from stackwise_ray.config.space.designs import expand
from stackwise_ray.config.space.sweep_config import SweepConfig, sweep_to_plain
from stackwise_ray.core.errors import ConfigError

TEXT = """
name: x
question: Which?
base:
  model: decoder/gpt2_family/tiny
  data: markov
  overrides: {training.budget: {flops: 1.0e12}, data.seq_len: 256}
design:
  kind: arms
  arms:
    gpt2: {}
    llama: {model: decoder/llama_family/tiny}
    wsd: {training.schedule: {kind: wsd, decay: 0.3}}
  baseline: gpt2
replicates: {seeds: 3, block: seed}
objective: [{metric: validation/loss, direction: minimize}]
tune: {space: {training.lr: {log_uniform: [3e-4, 1e-2]}}, trials_per_arm: 3, budget_share: 0.2}
scheduler: null
resources: {cpus_per_trial: 1, gpus_per_trial: 0, workers: 1, max_concurrent: auto}
limits: {trials: 200, trial_minutes: 30, wall_hours: 2, flops: 1e15}
tracking: {experiment: ablation, keep_models: best}
analysis:
  - compare: {metric: validation/loss, baseline: gpt2, correction: holm, margin: 0.02}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(TEXT)
    return path


def load(file: Path, *words: str) -> SweepConfig:
    return load_sweep(file, words)


def test_a_file_that_extends_another_has_its_own_keys_whole_and_the_others_from_there(file: Path) -> None:
    larger = file.parent / "larger.yaml"
    own = {"data": "markov", "model": "decoder/gpt2_family/small", "overrides": {"training.budget": {"tokens": 1e9}}}
    larger.write_text(dump_yaml({"extends": "x.yaml", "name": "larger", "base": own}))
    sweep = load(larger, "replicates.seeds=5")
    assert (sweep.name, sweep.question, sweep.source) == ("larger", "Which?", str(larger))
    assert sweep.base.overrides == {"training.budget": {"tokens": 1e9}}
    assert sweep.replicates.seeds == 5
    assert [arm.name for arm in expand(sweep).arms] == ["gpt2", "llama", "wsd"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "extends: x.yaml",
            "extends = x.yaml, but this file has no other name, so the results of both would be mixed",
        ),
        ("extends: training_regime\nname: y", "extends = training_regime: no such file, .* did you mean 'training_reg"),
        ("extends: x.yaml\nname: x", "extends = x.yaml, but this file has no other name, so the results of both"),
        ("extends: [x.yaml]\nname: y", r"extends = \[\"x\.yaml\"\] is not the name of a search space"),
        ("extends: second.yaml\nname: y", 'extends = second.yaml extends "x.yaml" itself; write extends: x.yaml'),
        ("extends: x.yaml\nname: y\nbas: {}", "bas: unknown key; did you mean 'base'"),
    ],
)
def test_what_cannot_be_extended_is_refused_by_name(text: str, message: str, file: Path) -> None:
    (file.parent / "second.yaml").write_text("extends: x.yaml\nname: second\n")
    child = file.parent / "child.yaml"
    child.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(child)
    assert caught.value.source == str(child)


def test_what_is_inherited_means_what_it_means_in_its_own_file(file: Path) -> None:
    """Folders of presets begin where the other file lies, and a mistake is where its key stands."""
    preset = file.parent / "own/model/mine.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text("family: gpt2\nrole: decoder\nn_layers: 1\nd_model: 8\nn_heads: 2\nd_ff: 8\n")
    file.write_text(TEXT.replace("decoder/gpt2_family/tiny", "mine") + "presets: [own]\n")
    child = file.parent / "below/child.yaml"
    child.parent.mkdir()
    child.write_text("extends: ../x\nname: child\n")
    assert load(child).presets == (str(file.parent / "own"),)
    assert load(child, "replicates.seeds=5").source == str(child)
    file.write_text(file.read_text().replace("seeds: 3", "seeds: 0"))
    with pytest.raises(ConfigError, match=r"replicates\.seeds = 0") as caught:
        load(child)
    assert Path(caught.value.source or "").resolve() == file
    with pytest.raises(ConfigError, match=r"replicates\.seeds = -1") as caught:
        load(child, "replicates.seeds=-1")
    assert caught.value.source == "command line"
    child.write_text("extends: ../x\nname: child\nreplicates: {seeds: 0}\n")
    with pytest.raises(ConfigError, match=r"replicates\.seeds = 0") as caught:
        load(child)
    assert caught.value.source == str(child)


def test_a_file_extends_the_one_beside_it_by_its_bare_name_and_never_itself(file: Path) -> None:
    (file.parent / "child.yaml").write_text("extends: x\nname: child\n")
    assert load(file.parent / "child.yaml").question == "Which?"
    own = file.parent / "training_regimes.yaml"
    own.write_text("extends: training_regimes\nname: mine\nquestion: Ours?\n")
    assert load(own).question == "Ours?"  # of the shipped file of the same name


def test_the_whole_grammar_is_read(file: Path) -> None:
    sweep = load(file)
    assert (sweep.name, sweep.question, sweep.experiment, sweep.baseline) == ("x", "Which?", "ablation", "gpt2")
    assert sweep.tune is not None
    assert (sweep.tune.trials_per_arm, sweep.tune.budget_share) == (3, 0.2)
    assert (sweep.limits.flops, sweep.limits.trial_minutes) == (1e15, 30.0)
    (compare,) = sweep.comparisons
    assert (compare.margin, sweep.baseline_of(compare), compare.direction) == (0.02, "gpt2", None)
    assert sweep.source == str(file)
    assert [arm.trial.training.budget.flops for arm in expand(sweep).arms] == [1e12] * 3


def test_the_plain_form_of_a_sweep_is_read_back_equal(file: Path, tmp_path: Path) -> None:
    sweep = load(file, "replicates.seeds=[4,5]")
    stored = tmp_path / "sweep.yaml"
    stored.write_text(dump_yaml(dict(sweep_to_plain(sweep))))
    again = load_sweep(stored)
    assert dataclasses.replace(again, source=None) == dataclasses.replace(sweep, source=None)
    assert sweep_hash(again) == sweep_hash(sweep)


def test_the_plan_hash_changes_with_the_declared_analysis_and_with_nothing_else(file: Path) -> None:
    declared = plan_hash(load(file))
    same = ["training.lr=1e-3", "question=other", "limits.trials=100", "resources.cpus_per_trial=2"]
    assert {plan_hash(load(file, word)) for word in same} == {declared}
    amended = ["analysis.0.compare.margin=0.1", "replicates.seeds=4", "analysis.0.compare.baseline=llama"]
    assert len({plan_hash(load(file, word)) for word in amended} | {declared}) == 4


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("replicates.seeds=2", lambda sweep: sweep.replicates.seeds == 2),
        ("base.data=python_stdlib", lambda sweep: sweep.base.data == "python_stdlib"),
        ("data=python_stdlib", lambda sweep: sweep.base.data == "python_stdlib"),
        ("training.lr=1e-3", lambda sweep: sweep.base.overrides.get("training.lr") == 1e-3),
        ("base.overrides.training.lr=1e-3", lambda sweep: sweep.base.overrides.get("training.lr") == 1e-3),
        ("training.max_steps=5", lambda sweep: expand(sweep).arms[0].trial.training.budget.steps == 5),
        ("training.budget.tokens=5e4", lambda sweep: expand(sweep).arms[0].trial.training.budget.tokens == 5e4),
        ("training.budget={tokens: 5e4}", lambda sweep: expand(sweep).arms[0].trial.training.budget.tokens == 5e4),
        ("design.arms.gpt2.training.lr=1e-3", lambda sweep: expand(sweep).arms[0].trial.training.lr == 1e-3),
        (
            "design.arms.wsd.training.schedule.decay=0.4",
            lambda s: expand(s).arms[2].trial.training.schedule.decay == 0.4,
        ),
        ("design.arms.new={training.lr: 1}", lambda sweep: [arm.name for arm in expand(sweep).arms][-1] == "new"),
        ("tune.space.training.lr=[1e-3, 1e-2]", lambda sweep: sweep.tune.space["training.lr"] == [1e-3, 1e-2]),
        ("tune.space.training.lr.uniform=[0.1, 1]", lambda s: s.tune.space["training.lr"] == {"uniform": [0.1, 1]}),
        ("tune.space.optimizer.weight_decay=[0, 1]", lambda sweep: len(sweep.tune.space) == 2),
        ("tune=null", lambda sweep: sweep.tune is None),
        ("analysis.0.compare.margin=0.1", lambda sweep: sweep.comparisons[0].margin == 0.1),
        ("flags=[mixed_precision]", lambda sweep: expand(sweep).arms[0].trial.flags == ("mixed_precision",)),
        ("tracking.experiment=mine", lambda sweep: sweep.experiment == "mine"),
    ],
)
def test_a_word_addresses_the_file(file: Path, word: str, read: Any) -> None:
    assert not read(load(file))
    assert read(load(file, word))
    assert file.read_text() == TEXT


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("replicates.sees=2", ["replicates.sees: unknown key", "did you mean 'seeds'?"]),
        ("replicate.seeds=2", ["replicate: unknown key", "did you mean 'replicates'?"]),
        ("training.learning_rate=1", ["did you mean 'training.lr'?"]),
        ("design.arms.gpt3.training.lr=1", ["there is no arm 'gpt3'; did you mean 'gpt2'?"]),
        ("design.arms.gpt2.training.rl=1", ["design.arms.gpt2.training.rl"]),
        (
            "base.model=decoder/gtp2_family/tiny",
            ["base.model = decoder/gtp2_family/tiny is not a preset of the group model; did you mean"],
        ),
        ("base.data=markof", ["is not a preset of the group data; did you mean 'markov'?"]),
        ("base.model=../../etc/passwd", ["is not the name of a preset"]),
        ("base.model=3", ["base.model = 3 is a number; it must be text"]),
        ('training.lr="3e-4"', ["write it without quotes: 3e-4"]),
        ("training.lr=fast", ["is text; it must be a number"]),
        ("training.budget={flops: 1, tokens: 2}", ["give exactly one of"]),
        (
            "design.arms.llama.training.budget={flops: 1, tokens: 2}",
            ["design.arms.llama.training.budget", "exactly one"],
        ),
        ("design.arms.llama.training.budget.flops=9e12", ["gpt2 has flops: 1e+12 and llama has flops: 9e+12"]),
        ("design.arms.llama.training.max_steps=9", ["llama has steps: 9", "give every arm one budget"]),
        ("design.arms.copy={}", ["design.arms.copy: is the same trial as arm 'gpt2'"]),
        ("design.arms={}", ["design.arms: is empty"]),
        ("design={kind: grid, factors: {}}", ["design.factors: is empty"]),
        ("design={kind: grid, factors: {training.lr: []}}", ["design.factors.training.lr: is empty"]),
        ("design.kind=arm", ["design.kind = arm is unknown; did you mean 'arms'?"]),
        ("design.factors={training.lr: [1]}", ["design.factors", "kind arms has no such key"]),
        ("design.baseline=gpt3", ["design.baseline = gpt3 is not an arm; did you mean 'gpt2'?"]),
        ("analysis.0.compare.baseline=lama", ["did you mean 'llama'?"]),
        ("analysis.0.compare.metric=validation/los", ["is not a metric of any trial; did you mean 'validation/loss'?"]),
        ("objective.0.metric=loss", ["is not a metric of any trial; did you mean 'validation/loss'?"]),
        (
            "analysis.0.compare.metric=wikitext2/perplexity_word",
            ["belongs to the task wikitext2", "evaluate --run DIR --tasks wikitext2"],
        ),
        ("objective.0.metric=ptb/perplexity_wrd", ["objective.0.metric", "a sweep does not run tasks"]),
        ("objective.1.metric=loss", ["'1' is not an entry of this list of 1"]),
        ("objective=[]", ["objective: is empty"]),
        ("analysis=[{scaling_law: {law: data_constrained}}]", ["needs unique_tokens of each run", "choose chinchilla"]),
        ("analysis=[{isoflop: {}}]", ["needs at least 4 sizes at a budget"]),
        ("analysis=[{compere: {}}]", ["did you mean 'compare'?"]),
        ("analysis=[{}]", ["exactly one of compare, isoflop, scaling_law"]),
        ("scheduler={kind: asha}", ["trials are stopped early in design.kind: search alone"]),
        ("scheduler={kind: asah}", ["did you mean 'asha'?"]),
        ("search={space: {training.lr: [1]}}", ["or write design.kind: search"]),
        ("replicates.seeds={min: 3, max: 3}", ["seeds.max = 3 is not above min = 3", "write seeds: 3"]),
        ("replicates.seeds={min: 3, max: 20000}", ["replicates.seeds.max", "more than 10,000"]),
        ("replicates.seeds={min: 3, mux: 20}", ["replicates.seeds.mux", "did you mean 'max'?"]),
        ("replicates.seeds=0", ["give their number (1 or more)"]),
        ("replicates.seeds=[1, 1]", ["contains 1 twice"]),
        ("replicates.seeds=[-1]", ["seeds are 0 or above"]),
        ("replicates.seeds=[a]", ["seeds are whole numbers"]),
        ("replicates.seeds=[]", ["contains no seed"]),
        ("base.overrides.seed=1", ["give replicates.seeds"]),
        ("tune.space.training.budget.flops={uniform: [1, 2]}", ["is part of what defines an arm"]),
        (
            "tune.space.training.batch_tokens=[4096, x]",
            ["tune.space.training.batch_tokens", "text; it must be a whole number"],
        ),
        ("tune.budget_share=0", ["tune.budget_share = 0 is out of range"]),
        ("resources.max_concurrent=all", ["is neither auto nor a number of trials"]),
        ("limits.trials=17", ["= 17 is below the 18 trials planned (9 tuning + 9 replicate)"]),
        ("tracking.keep_models=bets", ["did you mean 'best'?"]),
        ("schema_version=2", ["= 2 is newer than the version 1", "update stackwise_ray"]),
        ("source=other", ["source: unknown key"]),
        ("name=a/b", ["cannot be a name, because names are also file names"]),
        ("presets=[nowhere]", ["is not a folder"]),
        ("model.n_heads=7", ["base.overrides.model.n_heads = 7 does not divide d_model = 64; choose 4, 8 or 16"]),
        ("flags=[mixed_precisoin]", ["is an unknown flag; did you mean 'mixed_precision'?"]),
    ],
)
def test_a_mistake_is_one_message_with_place_value_and_fix(file: Path, word: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file, word)
    message = str(caught.value)
    assert message.startswith(("command line: ", f"{file}: "))
    assert "\n" not in message
    for part in words:
        assert part in message


@pytest.mark.parametrize(
    "words", [["training.max_steps=2", "training.budget.tokens=3"], ["training.lr=1", "training.lr=2"]]
)
def test_words_that_contradict_each_other_are_refused(file: Path, words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"command line: .*(both give the budget|is given twice)"):
        load(file, *words)


@pytest.mark.parametrize("word", ["training.lr", "=3", "training.lr=", "+training.lr=3", "~training.lr=3"])
def test_a_word_of_another_form_is_refused(file: Path, word: str) -> None:
    with pytest.raises(ConfigError, match=r"^command line: "):
        load(file, word)


def test_a_mistake_in_the_file_names_the_file_and_the_path_in_it(file: Path) -> None:
    file.write_text(TEXT.replace("kind: wsd, decay: 0.3", "kind: wsd, decy: 0.3"))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: design.arms.wsd.training.schedule.decy: ")


def test_an_arm_written_twice_is_refused_with_its_lines(file: Path) -> None:
    file.write_text(TEXT.replace("    gpt2: {}\n", "    gpt2: {}\n    gpt2: {}\n"))
    with pytest.raises(ConfigError, match=r"x\.yaml:12: the key 'gpt2' is given twice, in lines 11 and 12"):
        load(file)


def test_early_stopping_goes_with_a_search_that_compares_nothing() -> None:
    document = {
        "name": "x",
        "base": {"model": "decoder/gpt2_family/tiny"},
        "design": {"kind": "search"},
        "search": {"space": {"training.lr": {"uniform": [1e-3, 1e-2]}}, "trials": 4},
        "scheduler": {"kind": "asha"},
    }
    scheduler = sweep_from_plain(document).scheduler
    assert scheduler is not None
    assert scheduler.kind == "asha"
    with pytest.raises(ConfigError, match=r"analysis\.0\.compare: compares arms, and a search has none"):
        sweep_from_plain({**document, "analysis": [{"compare": {}}]})
    with pytest.raises(ConfigError, match=r"tune: does not go with design\.kind: search"):
        sweep_from_plain({**document, "tune": {"space": {"training.lr": [1]}}})
    with pytest.raises(ConfigError, match=r"search\.space\.training\.lr.*is text; it must be a number"):
        sweep_from_plain({**document, "search": {"space": {"training.lr": [1, "fast"]}}})
    with pytest.raises(ConfigError, match=r"scheduler\.reduction: has no effect with scheduler.kind: median"):
        sweep_from_plain({**document, "scheduler": {"kind": "median", "reduction": 3}})
    with pytest.raises(ConfigError, match=r"search\.sampler.*'tep'; did you mean 'tpe'"):
        sweep_from_plain({**document, "search": {"space": {"training.lr": [1]}, "sampler": "tep"}})
    goals = [{"metric": "validation/loss"}, {"metric": "flops/total"}]
    search = {"space": {"training.lr": {"uniform": [1e-3, 1e-2]}}, "sampler": "gp"}
    with pytest.raises(ConfigError, match="the sampler gp takes one"):
        sweep_from_plain({**document, "scheduler": None, "objective": goals, "search": search})


def test_a_file_is_found_by_path_by_name_and_by_the_path_it_has_in_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = find_search_space("smoke")
    assert shipped.name == "smoke.yaml"
    assert find_search_space("smoke.yaml") == find_search_space("search_spaces/smoke.yaml") == shipped
    (tmp_path / "search_spaces").mkdir()
    own = tmp_path / "search_spaces" / "smoke.yaml"
    own.write_text(TEXT)
    assert find_search_space("search_spaces/smoke.yaml").resolve() == own
    assert find_search_space("smoke") == shipped
    for missing in ("smok", "search_spaces/smok.yaml", "elsewhere/smoke.yaml"):
        with pytest.raises(ConfigError, match=r"no such file.*did you mean 'smoke'\?"):
            find_search_space(missing)
    with pytest.raises(ConfigError, match=r"is a folder; give .* for example search_spaces/smoke\.yaml$"):
        find_search_space("search_spaces")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"for example empty/FILE\.yaml$"):
        find_search_space("empty")


def test_presets_of_a_user_stand_beside_the_file(tmp_path: Path) -> None:
    model = tmp_path / "presets" / "model" / "mine" / "wide.yaml"
    model.parent.mkdir(parents=True)
    model.write_text("defaults: [/model/decoder/gpt2_family/tiny@_here_, _self_]\nd_ff: 512\n")
    file = tmp_path / "x.yaml"
    file.write_text("name: x\npresets: [presets]\nbase: {model: mine/wide}\ndesign: {kind: arms, arms: {a: {}}}\n")
    (arm,) = expand(load_sweep(file)).arms
    assert (arm.trial.model.d_ff, arm.trial.model.family) == (512, "gpt2")
    model.write_text("family: gpt2\nrole: decoder\nn_layers: 1\nd_model: 8\nn_heads: 2\nd_ff: wide\n")
    with pytest.raises(ConfigError, match=r'wide\.yaml: d_ff = "wide" is text; it must be a whole number'):
        load_sweep(file)


SEARCHES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "nothing else": ({}, {}, "gp"),
    "two hundred trials": ({"trials": 200}, {}, "gp"),
    "more trials": ({"trials": 201}, {}, "tpe"),
    "a scheduler": ({}, {"scheduler": {"kind": "asha"}}, "tpe"),
    "several objectives": ({}, {"objective": [{"metric": "validation/loss"}, {"metric": "flops/total"}]}, "tpe"),
    "a condition": (
        {"space": {"optimizer.betas": {"choice": [[0.9, 0.95]], "when": {"optimizer.kind": "adamw"}}}},
        {},
        "tpe",
    ),
    "one that is written": ({"sampler": "random"}, {}, "random"),
}


@pytest.mark.parametrize(("search", "rest", "sampler"), SEARCHES.values(), ids=SEARCHES.keys())
def test_a_search_that_names_no_sampler_takes_the_one_that_needs_fewest_trials_where_it_can(
    search: dict[str, Any], rest: dict[str, Any], sampler: str
) -> None:
    document = {
        "name": "x",
        "base": {"model": "decoder/gpt2_family/tiny"},
        "design": {"kind": "search"},
        "search": {"space": {"training.lr": {"uniform": [1e-3, 1e-2]}}} | search,
    }
    assert sweep_from_plain(document | rest).sampler == sampler
