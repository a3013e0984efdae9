"""Domains, conditions and constraints of a space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.space.designs import draw
from stackwise_ray.config.space.domains import (
    DOMAIN_NAMES,
    Choice,
    Domain,
    IntRange,
    LogIntRange,
    LogUniform,
    Normal,
    Space,
    Subsets,
    Uniform,
    enumerate_grid,
    levels,
    parse_space,
)
from stackwise_ray.config.trial.editing import edit, to_plain
from stackwise_ray.core.errors import ConfigError

BASE = load_trial(["model=decoder/llama_family/tiny"])


def resolve(point: Mapping[str, Any]) -> Mapping[str, Any]:
    return to_plain(edit(BASE, point))


def space(raw: Any, require: tuple[str, ...] = ()) -> Space:
    return parse_space(raw, require=require, source="x.yaml", place="search.space")


@pytest.mark.parametrize(
    ("path", "written", "domain"),
    [
        ("training.lr", [1e-3, 1e-2], Choice((1e-3, 1e-2))),
        ("data.corpus", {"choice": ["ptb", "markov"]}, Choice(("ptb", "markov"))),
        ("training.lr", {"uniform": [0, 1]}, Uniform(0.0, 1.0)),
        ("training.lr", {"log_uniform": [3e-4, 1e-2]}, LogUniform(3e-4, 1e-2)),
        ("model.n_layers", {"int": [2, 8]}, IntRange(2, 8)),
        ("training.max_steps", {"log_int": [10, 1000]}, LogIntRange(10, 1000)),
        ("training.lr", {"normal": [0.01, 0.001]}, Normal(0.01, 0.001)),
        ("flags", {"subsets_of": ["a", "b"]}, Subsets(("a", "b"))),
        ("model", ["decoder/gpt2_family/tiny", "decoder/llama_family/tiny"], None),
    ],
)
def test_each_domain_of_the_grammar_is_read(path: str, written: Any, domain: Domain | None) -> None:
    (factor,) = space({path: written}).factors
    assert factor.path == path
    assert domain is None or factor.domain == domain


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({}, "search.space: is empty"),
        ([], "is a list; give path: domain"),
        ({"training.lrr": [1]}, "did you mean 'training.lr'?"),
        ({"training.lr": []}, "is empty; give at least one value"),
        ({"training.lr": [1e-3, 1e-3]}, "contains 0.001 twice"),
        ({"training.lr": 1e-3}, "is not a domain; give a list"),
        ({"training.lr": {}}, "must have exactly one of"),
        ({"training.lr": {"uniform": [1, 2], "choice": [1]}}, "must have exactly one of"),
        ({"training.lr": {"unifrom": [1, 2]}}, "did you mean 'uniform'?"),
        ({"training.lr": {"uniform": [2, 1]}}, "the first limit must be below the second"),
        ({"training.lr": {"uniform": [1, 1]}}, "the first limit must be below the second"),
        ({"training.lr": {"uniform": [1]}}, "is not two numbers"),
        ({"training.lr": {"uniform": ["1e-3", "1e-2"]}}, "write numbers without quotes"),
        ({"training.lr": {"uniform": 3}}, "is a number; it must be a list"),
        ({"training.lr": {"uniform": [True, 2]}}, "is not two numbers"),
        ({"training.lr": {"uniform": [0, math.inf]}}, "is not finite"),
        ({"training.lr": {"log_uniform": [0, 1]}}, "has a limit of 0 or below"),
        ({"training.lr": {"normal": [1, 0]}}, "it must be above 0"),
        ({"model.n_layers": {"int": [1.5, 3]}}, "is not two whole numbers"),
        ({"model.n_layers": {"uniform": [1, 3]}}, "write {int: [low, high]}"),
        ({"model.n_heads": {"log_uniform": [1, 3]}}, "write {int: [low, high]}"),
        ({"seed": [1, 2]}, "give seeds in replicates.seeds"),
        ({"training.budget": [1], "training.budget.flops": [2]}, "overlaps with 'training.budget'"),
        ({"training.lr": {"choice": [1], "when": {}}}, "is not a condition"),
        ({"training.lr": {"choice": [1], "when": {"model.mixer.knd": 1}}}, "did you mean 'model.mixer.kind'?"),
        ({"training.lr": {"choice": [1], "when": {"model.mixer": 1}}}, "is a component"),
        (
            {
                "training.lr": {"choice": [1], "when": {"model.d_ff": 1}},
                "model.d_ff": {"choice": [1], "when": {"training.lr": 1}},
            },
            "depend on each other",
        ),
    ],
)
def test_a_wrong_domain_is_refused_with_its_place_and_the_fix(raw: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=r"^x\.yaml: search\.space") as caught:
        space(raw)
    assert words in str(caught.value)


def test_levels_are_all_values_of_a_finite_domain_in_order() -> None:
    assert levels(IntRange(2, 4)) == (2, 3, 4)
    assert levels(Subsets(("a", "b"))) == ([], ["a"], ["b"], ["a", "b"])
    assert levels(Uniform(0, 1)) is None
    assert levels(Subsets(tuple(range(30)))) is None
    assert levels(IntRange(0, 10**9)) is None


def test_a_grid_is_the_product_of_the_levels_in_the_order_written() -> None:
    points = [
        point for point, _ in enumerate_grid(space({"training.lr": [1, 2], "data.seq_len": [8, 16]}), resolve=resolve)
    ]
    assert points == [{"training.lr": lr, "data.seq_len": length} for lr in (1, 2) for length in (8, 16)]


def test_a_conditional_factor_is_drawn_where_its_condition_holds_and_nowhere_else() -> None:
    conditional = space(
        {
            "training.schedule.decay": {"choice": [0.1, 0.2], "when": {"training.schedule.kind": ["wsd", "linear"]}},
            "training.schedule.kind": ["cosine", "wsd"],
        }
    )
    assert conditional.paths == (
        "training.schedule.kind",
        "training.schedule.decay",
    )  # what a condition reads comes first
    points = [point for point, _ in enumerate_grid(conditional, resolve=resolve)]
    assert points == [
        {"training.schedule.kind": "cosine"},
        {"training.schedule.kind": "wsd", "training.schedule.decay": 0.1},
        {"training.schedule.kind": "wsd", "training.schedule.decay": 0.2},
    ]


def test_a_condition_may_read_the_base() -> None:
    for family, expected in (("llama", 2), ("gpt2", 0)):
        raw = {"training.lr": {"choice": [1, 2], "when": {"model.family": family}}}
        points = [point for point, _ in enumerate_grid(space(raw), resolve=resolve) if point]
        assert len(points) == expected


def test_a_point_that_breaks_a_constraint_is_marked_with_it() -> None:
    constrained = space({"model.n_heads": [3, 4, 8]}, ("model.d_model % model.n_heads == 0",))
    assert [broken for _, broken in enumerate_grid(constrained, resolve=resolve)] == [
        "model.d_model % model.n_heads == 0",
        None,
        None,
    ]


def test_endless_and_enormous_grids_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"search\.space\.training\.lr: is a range, and a grid cannot try all of its values"
    ):
        list(enumerate_grid(space({"training.lr": {"uniform": [0, 1]}}), resolve=resolve, source="x.yaml"))
    many = {"model.d_ff": {"int": [1, 200]}, "training.batch_tokens": {"int": [1, 200]}}
    with pytest.raises(ConfigError, match="larger than 20,000 points"):
        list(enumerate_grid(space(many), resolve=resolve))


def test_a_draw_asks_for_active_factors_alone_and_names_what_a_point_breaks() -> None:
    asked: list[str] = []

    def suggest(value: Any) -> Any:
        def one(factor: Any) -> Any:
            asked.append(factor.path)
            return value[factor.path]

        return one

    conditional = space(
        {"model.n_heads": [3, 4], "training.lr": {"choice": [1, 2], "when": {"model.n_heads": 4}}},
        ("training.lr < 2",),
    )
    assert draw(conditional, suggest({"model.n_heads": 4, "training.lr": 1}), resolve) == (
        {"model.n_heads": 4, "training.lr": 1},
        None,
    )
    assert draw(conditional, suggest({"model.n_heads": 4, "training.lr": 2}), resolve)[1] == "training.lr < 2"
    point, broken = draw(conditional, suggest({"model.n_heads": 3}), resolve)
    assert point == {"model.n_heads": 3}
    assert broken is not None
    assert "does not divide d_model = 64" in broken
    assert asked == ["model.n_heads", "training.lr"] * 2 + ["model.n_heads"]


def test_the_normal_domain_is_the_quantile_function() -> None:
    assert Normal(2.0, 3.0).at(0.5) == pytest.approx(2.0)
    assert Normal(2.0, 3.0).at(0.975) == pytest.approx(2.0 + 3.0 * 1.959964, abs=1e-5)  # the normal table


def test_a_space_less_what_an_arm_sets() -> None:
    both = space({"training.lr": [1, 2], "training.schedule.decay": [0.1]})
    assert both.without(["training.lr"]).paths == ("training.schedule.decay",)
    assert both.without(["training.schedule"]).paths == ("training.lr",)
    assert both.without(["training.l"]).paths == both.paths


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.floats(), st.sampled_from(["", "a", "1", "model.n_heads"])
)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.sampled_from(["model.n_heads", "x"]), scalars)
numbers = st.lists(st.integers(-2, 9) | st.floats(0, 1), min_size=2, max_size=2)  # limits in order and out of it
names = st.sampled_from([*DOMAIN_NAMES, "unifrom"])
written = st.one_of(
    values, st.dictionaries(names, numbers | values, max_size=1), st.fixed_dictionaries({"when": values})
)


def is_sound(domain: Domain) -> bool:
    """Whether a point can be drawn from a domain."""
    match domain:
        case Choice(items) | Subsets(items):
            return len(items) > 0
        case Normal(mean, deviation):
            return math.isfinite(mean) and 0 < deviation < math.inf
        case LogUniform(low, high) | LogIntRange(low, high):
            return 0 < low < high < math.inf
        case Uniform(low, high) | IntRange(low, high):
            return -math.inf < low < high < math.inf


@settings(deadline=None)  # the first space loads what validates it
@given(st.dictionaries(st.sampled_from(["training.lr", "model.n_heads", "flags", "model", "x"]), written, max_size=2))
def test_any_mapping_gives_sound_domains_or_an_error_that_says_where(raw: dict[str, Any]) -> None:
    try:
        parsed = space(raw)
    except ConfigError as error:
        place = error.path or ""
    else:
        place = "search.space"
        assert set(parsed.paths) == set(raw)
        assert all(is_sound(factor.domain) for factor in parsed.factors)
    assert place.startswith("search.space")


@given(
    st.dictionaries(
        st.sampled_from(["training.lr", "data.seq_len", "model.d_ff", "training.evaluations"]),
        st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True),
        min_size=1,
    )
)
def test_a_grid_has_every_combination_once(raw: dict[str, list[int]]) -> None:
    points = [tuple(point.items()) for point, _ in enumerate_grid(space(raw), resolve=resolve)]
    assert len(points) == len(set(points)) == math.prod(map(len, raw.values()))
