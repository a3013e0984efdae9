"""The set-up of a sweep in words: what all arms share, the few values that differ, ranges of many."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic_sweeps import BUDGET, JournalBuilder, final_metrics

from analysis.report.setup_words import differences, measured_range, setup_facts
from analysis.table.sweep_directory import Sweep, read_sweep

MODEL = {"family": "gpt2", "role": "decoder", "n_layers": 4, "d_model": 64}


def config(rate: float = 0.003, model: dict[str, Any] | None = None, **training: Any) -> dict[str, Any]:
    budget = {"budget": {"flops": BUDGET}, "lr": rate}
    return {"model": MODEL | (model or {}), "training": budget | training, "optimizer": {"kind": "adamw"}}


def written(journal: JournalBuilder, arms: dict[str, dict[str, Any]], seeds: int = 2, **file: Any) -> Sweep:
    """A sweep of these arms, each with its configuration."""
    for arm, configuration in arms.items():
        for seed in range(seeds):
            metrics = final_metrics(2.0 + 0.1 * seed) | {"steps/total": 100 * len(arm)}
            own = {} if arm == next(iter(arms)) else {"model.d_model": configuration["model"]["d_model"]}
            journal.trial(arm, seed, metrics, config=configuration, parameters=own)
    journal.meta(sweep={"name": "x", "design": {"baseline": next(iter(arms))}} | file)
    return read_sweep(journal.close())


def facts(sweep: Sweep) -> dict[str, str]:
    return {fact.name: fact.text for fact in setup_facts(sweep)}


def test_few_values_are_listed_in_order_and_many_are_a_range(journal: JournalBuilder) -> None:
    arms = {f"a{n}": config(model={"d_model": 64 * n, "n_layers": 9 - n % 3}, precision="bf16") for n in (3, 1, 4, 2)}
    shown = facts(written(journal, arms))
    assert shown["model"] == "decoder of the gpt2 family, 7, 8 or 9 layers × width 64 to 256"
    assert shown["budget"] == "1.00T training FLOPs per run, in bf16"
    assert shown["batch and optimizer"] == "adamw"
    assert shown["spent per run"] == "2.00M tokens, 200 steps"
    assert shown["parameters"] == "230k, 198k without embeddings"
    assert "base" not in shown
    assert "search" not in shown


def test_many_names_are_said_to_differ_by_arm(journal: JournalBuilder) -> None:
    arms = {name: config(model={"pretrained": name}) for name in ("a", "bb", "ccc", "dddd")}
    shown = facts(written(journal, arms))
    assert shown["model"] == "decoder of the gpt2 family, 4 layers × width 64, pretrained differs by arm"
    assert shown["spent per run"] == "2.00M tokens, 100 to 400 steps"


def test_families_and_roles_are_named_in_the_plural(journal: JournalBuilder) -> None:
    arms = {"g": config(), "b": config(model={"family": "bert", "role": "encoder"})}
    shown = facts(written(journal, arms, seeds=1))
    assert shown["model"] == "decoder and encoders of the families gpt2 and bert, 4 layers × width 64"
    assert shown["seeds"] == "1 finished per arm, the same for every arm (paired); no run was repeated"


@pytest.mark.parametrize(("unit", "words"), [("tokens", "tokens"), ("steps", "steps"), ("wall_seconds", "s")])
def test_a_budget_has_its_unit(journal: JournalBuilder, unit: str, words: str) -> None:
    arms = {name: config(budget={unit: 5e6}, regime="classical") for name in "ab"}
    assert facts(written(journal, arms))["budget"] == f"5.00M {words} per run, regime classical"


def test_a_tuned_rate_says_by_how_many_trials_of_which_budget(journal: JournalBuilder) -> None:
    tune = {"space": {"training.lr": {"log_uniform": [1e-3, 1e-2]}}, "trials_per_arm": 5, "budget_share": 0.25}
    arms = {"a": config(0.001), "b": config(0.01)}
    sweep = written(journal, arms, tune=tune, base={"model": "tiny", "data": "markov", "training": None})
    shown = facts(sweep)
    assert shown["learning rate"] == "0.001 or 0.01 (tuned for each arm by 5 trials of 25% of the budget)"
    assert shown["base"] == "model tiny, data markov"


def test_a_search_says_what_was_drawn_from_what(journal: JournalBuilder) -> None:
    for point in range(4):
        own = {"training.lr": 0.001 * (point + 1)}
        journal.trial(
            f"p{point}", 9, final_metrics(2.5), role="search", config=config(own["training.lr"]), parameters=own
        )
    space = {"training.lr": {"log_uniform": [0.001, 0.1]}, "model.d_model": [64, 128]}
    search = {"sampler": "tpe", "trials": 4, "space": space}
    journal.meta(sweep={"name": "s", "design": {"kind": "search"}, "search": search})
    sweep = read_sweep(journal.close())
    shown = facts(sweep)
    drawn = "training.lr in log_uniform [0.001, 0.1], model.d_model in [64, 128]"
    assert shown["search"] == f"4 points by tpe, none trained again; {drawn}"
    assert shown["learning rate"] == "0.001 to 0.004 (searched)"
    assert shown["seeds"] == "one per point"
    assert differences(sweep) is None


def test_winners_of_a_search_are_trained_again_on_seeds_of_their_own(journal: JournalBuilder) -> None:
    own = {"training.lr": 0.001}
    for point in range(2):
        journal.trial(f"p{point}", 9, final_metrics(2.5), role="search", config=config(), parameters=own)
    for seed in range(3):
        journal.trial("p1", seed, final_metrics(2.4 + 0.1 * seed), config=config(), parameters=own)
    search = {"sampler": "random", "trials": 2, "space": {"training.lr": [0.001]}, "winners": 1}
    journal.meta(sweep={"name": "s", "design": {"kind": "search"}, "search": search})
    shown = facts(read_sweep(journal.close()))
    assert shown["search"].startswith("2 points by random, one then trained on fresh seeds; training.lr in [0.001]")
    assert shown["seeds"] == "1 per point of the search; 3 finished per winner, which the search did not use"


def test_what_no_run_recorded_is_left_out(journal: JournalBuilder) -> None:
    journal.trial("a", 0, status="failed", reason="NaN")
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}})
    sweep = read_sweep(journal.close())
    shown = facts(sweep)
    assert shown["seeds"] == "0 finished per arm"
    assert not {"parameters", "spent per run", "model", "learning rate"} & set(shown)
    assert measured_range(sweep, "no such column") == ""
    assert differences(sweep) is None
