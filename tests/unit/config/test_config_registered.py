"""Options that registered entries bring: validated by name, refused elsewhere, known as soon as they are registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Annotated, Any

import pytest

from stackwise_ray.config.trial import Positive, Strict
from stackwise_ray.config.trial.paths import annotations_of, children, chosen_component, components_in
from stackwise_ray.config.trial.registered import (
    Alternatives,
    NamedOptions,
    OptionsByName,
    OptionsOf,
    build_options,
    replace_options,
)
from stackwise_ray.config.trial.validation import validate
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Shape(Strict):
    form: str = "dot"
    colour: str = "red"


@dataclass(frozen=True, kw_only=True)
class Corner(Strict):
    radius: Positive = 1


@dataclass(frozen=True, kw_only=True)
class Box(Shape):
    form: str = "box"
    sides: tuple[Positive, ...] = (1, 1)
    corner: Corner = field(default_factory=Corner)


@dataclass(frozen=True, kw_only=True)
class Filter:
    strength: Positive
    passes: Positive = 1


SHAPES: Registry[Any] = Registry("shape")
SHAPES.register("dot")(SimpleNamespace())
SHAPES.register("box")(SimpleNamespace(options=Box))
FILTERS: Registry[Any] = Registry("filter")
FILTERS.register("blur")(SimpleNamespace(options=Filter))
FILTERS.register("invert")(SimpleNamespace())
OF_SHAPE = Alternatives(Shape, "form", SHAPES)


@dataclass(frozen=True, kw_only=True)
class Drawing(Strict):
    shape: Annotated[Shape, OptionsOf("form", SHAPES)] = field(default_factory=Shape)
    filters: Annotated[Mapping[str, Any], OptionsByName(FILTERS)] = field(default_factory=NamedOptions)


def test_the_field_decides_which_options_there_are() -> None:
    assert validate(Drawing, {"shape": {}}) == Drawing()
    box = validate(Drawing, {"shape": {"form": "box", "sides": [2, 3], "corner": {"radius": 4}}}).shape
    assert box == Box(sides=(2, 3), corner=Corner(radius=4))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            {"sides": [1, 1]},
            r"shape\.sides = \[1, 1\] has no effect in the form dot; choose the form box",
        ),
        (
            {"form": "dot", "corner": {}},
            "shape.corner: has no effect in the form dot; choose the form box",
        ),
        ({"form": "bxo"}, "shape.form = bxo is an unknown form; did you mean 'box'"),
        ({"form": 3}, "shape.form = 3 is a number; it must be text"),
        ({"form": "box", "colr": "red"}, "shape.colr: unknown key; did you mean 'colour'"),
        ({"form": "box", "sides": [0]}, "shape.sides.0 = 0 is out of range"),
        ({"form": "box", "corner": {"radus": 1}}, "shape.corner.radus: unknown key; did you mean 'radius'"),
        ({"form": "box", "sides": "11"}, 'shape.sides = "11" is text; it must be a list'),
        ([1], r"shape = \[1\] is a list; it must be a mapping"),
    ],
)
def test_what_is_wrong_is_named_at_its_place(shape: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Drawing, {"shape": shape})


def test_options_by_name_are_a_mapping_that_can_be_a_key() -> None:
    drawing = validate(Drawing, {"filters": {"invert": {}, "blur": {"strength": 2}}})
    assert list(drawing.filters) == ["blur", "invert"]
    assert drawing.filters["blur"] == Filter(strength=2)
    assert drawing == validate(Drawing, {"filters": {"blur": {"strength": 2}, "invert": {}}})
    assert len({drawing, validate(Drawing, {"filters": {"blur": {"strength": 2}, "invert": {}}})}) == 1


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"blr": {}}, "filters.blr: is an unknown filter; did you mean 'blur'"),
        ({"blur": {}}, "filters.blur.strength: is required, but it is absent"),
        ({"blur": {"strength": 1, "pases": 2}}, "filters.blur.pases: unknown key; did you mean 'passes'"),
        ({"invert": {"strength": 1}}, "filters.invert.strength: unknown key"),
        ({"blur": 3}, "filters.blur = 3 is a number; it must be a mapping"),
        ("blur", 'filters = "blur" is text; it must be a mapping'),
    ],
)
def test_what_is_wrong_with_named_options_is_named_at_its_place(filters: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Drawing, {"filters": filters})


def test_an_entry_that_is_registered_later_is_known_at_once_and_gone_when_it_is_taken_out() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Star(Shape):
        form: str = "star"
        points: Positive = 5

    for _ in range(2):
        with pytest.raises(ConfigError, match="unknown form"):
            validate(Drawing, {"shape": {"form": "star"}})
        with SHAPES.registered("star", SimpleNamespace(options=Star)):
            assert validate(Drawing, {"shape": {"form": "star", "points": 7}}).shape == Star(points=7)
            assert "points" in children(components_in(annotations_of(Drawing)["shape"]))
        assert "points" not in children((OF_SHAPE,))


def test_paths_know_the_options_of_all_entries_and_a_mapping_decides() -> None:
    assert set(children((OF_SHAPE,))) == {"form", "colour", "sides", "corner"}
    assert children((OF_SHAPE,))["corner"] == (Corner,)
    assert chosen_component((OF_SHAPE,), {"form": "box"}) is Box
    assert chosen_component((OF_SHAPE,), {}) is Shape
    assert children((OptionsByName(FILTERS),))["blur"] == (Filter,)


def test_another_entry_keeps_what_it_has_and_refuses_what_would_be_lost() -> None:
    box = build_options(OF_SHAPE, form="box", colour="blue")
    assert replace_options(OF_SHAPE, box, form="dot") == Shape(form="dot", colour="blue")
    assert replace_options(OF_SHAPE, Shape(colour="blue"), form="box", sides=(2,)) == Box(colour="blue", sides=(2,))
    with pytest.raises(ConfigError, match=r"sides = \[2\] has no effect in the form dot; choose the form box"):
        replace_options(OF_SHAPE, Box(sides=(2,)), form="dot")
    with pytest.raises(ConfigError, match="unknown form"):
        build_options(OF_SHAPE, form="bxo")
