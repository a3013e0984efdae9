"""The dotted paths of a `TrialConfig`, read off its dataclasses and the options of registered entries.

Editing, domains and the expression evaluator ask here whether a path exists, what stands at it, and which name is
nearest to a mistyped one. It holds no list of fields of its own: a field added to `config.trial.trial_config` is known
at once.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Union

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.registered import Alternatives, OptionsByName, marker_in
from stackwise_ray.core import registries
from stackwise_ray.core.errors import ConfigError, did_you_mean, nearest

MAX_STEPS = "training.max_steps"
"""Short for `training.budget: {steps: N}`; not a field, so that a stored config has one form."""

BUDGET = "training.budget"

GROUPS = ("model", "data", "training", "optimizer")
"""Preset groups that make up a trial; each is also a component of `TrialConfig`."""

OTHER_NAMES = {
    "learning_rate": "lr",
    "batch_size": "batch_tokens",
    "hidden_size": "d_model",
    "n_embd": "d_model",
    "num_layers": "n_layers",
    "n_layer": "n_layers",
    "num_hidden_layers": "n_layers",
    "num_heads": "n_heads",
    "n_head": "n_heads",
    "num_attention_heads": "n_heads",
    "intermediate_size": "d_ff",
    "max_position_embeddings": "max_positions",
    "block_size": "seq_len",
    "sequence_length": "seq_len",
    "max_length": "seq_len",
    "grad_clip": "gradient_clip",
    "max_grad_norm": "gradient_clip",
    "wd": "weight_decay",
    "warmup_ratio": "warmup",
    "dataset": "corpus",
    "optimizer": "kind",
}
"""What other libraries call a field: asked for by hand, these are farther than any spelling distance."""


SchemaPart = type | Alternatives | OptionsByName
"""What has fields of its own: a dataclass, one of several that registered entries bring, or a mapping of those."""


def components_in(annotation: Any) -> tuple[SchemaPart, ...]:
    """The components that may stand where `annotation` is declared: none for a leaf, several for a union, those of
    its entries for a tuple."""
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return (annotation,)
    marker = marker_in(annotation)
    if marker is not None:
        return (marker,)
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return components_in(typing.get_args(annotation)[0])
    if origin in (Union, types.UnionType, tuple):
        return tuple(kind for part in typing.get_args(annotation) for kind in components_in(part))
    return ()


def annotations_of(component: SchemaPart) -> Mapping[str, Any]:
    """Field name to resolved annotation; of registered options, those of any entry, one of a name."""
    if isinstance(component, OptionsByName):
        return component.annotations()
    if isinstance(component, Alternatives):
        return {name: kind for one in component.classes() for name, kind in _annotations_of(one).items()}
    return _annotations_of(component)


@functools.cache
def _annotations_of(component: type) -> Mapping[str, Any]:
    hints = typing.get_type_hints(component, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(component)}


@functools.cache
def _parts_of(component: type) -> Mapping[str, tuple[SchemaPart, ...]]:
    return {name: components_in(annotation) for name, annotation in _annotations_of(component).items()}


def classes_of(components: tuple[SchemaPart, ...]) -> tuple[type | OptionsByName, ...]:
    """The same with each set of alternatives as its classes."""
    parts = (one.classes() if isinstance(one, Alternatives) else (one,) for one in components)
    return tuple(part for group in parts for part in group)


def chosen_component(components: tuple[SchemaPart, ...], plain: Any) -> type | OptionsByName | None:
    """The one component that a mapping is: by the entry that it names, or by its `kind`; None where it does not say."""
    if len(components) == 1:
        (one,) = components
        return one.chosen(plain) if isinstance(one, Alternatives) else one
    kind = plain.get("kind") if isinstance(plain, Mapping) else None
    return next((one for one in classes_of(components) if getattr(one, "kind", None) == kind), None)


def children(components: tuple[SchemaPart, ...]) -> dict[str, tuple[SchemaPart, ...]]:
    """Key to the components that may stand under it, over all `components` of a union."""
    found: dict[str, tuple[SchemaPart, ...]] = {}
    for component in classes_of(components):
        if isinstance(component, OptionsByName):
            parts: Mapping[str, tuple[SchemaPart, ...]] = {
                name: components_in(annotation) for name, annotation in component.annotations().items()
            }
        else:
            parts = _parts_of(component)
        for name, below in parts.items():
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *below)))
    return found


def components_at(path: str, root: tuple[SchemaPart, ...] = (TrialConfig,)) -> tuple[SchemaPart, ...]:
    """The components that may stand at an existing dotted path; () for a leaf.

    Raises:
        KeyError: The path does not exist.
    """
    components = root
    for name in path.split("."):
        components = children(components)[name]
    return components


def trial_paths() -> tuple[str, ...]:
    """Every path of a `TrialConfig`, components and leaves, in the order of declaration."""
    return _trial_paths(tuple(registry.revision for registry in registries.BY_KIND.values()))


@functools.lru_cache(maxsize=1)
def _trial_paths(revisions: tuple[int, ...]) -> tuple[str, ...]:
    """Args: revisions: Of the registries, whose entries bring paths."""
    return tuple(dict.fromkeys(_walk((TrialConfig,), "")))


def _walk(components: tuple[SchemaPart, ...], prefix: str) -> Iterator[str]:
    for name, below in children(components).items():
        yield prefix + name
        yield from _walk(below, f"{prefix}{name}.")


def is_trial_path(path: str) -> bool:
    """Whether `path` names a field or a component of a trial (`training.max_steps` included)."""
    return path == MAX_STEPS or path in trial_paths()


def overlap(one: str, other: str) -> bool:
    """Whether two dotted paths are equal, or one holds the other."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def require_trial_path(path: str, *, place: str | None = None, source: str | None = None) -> None:
    """Refuse a dotted path that no trial has.

    Args:
        place: Where the path is written, for the message; `path` itself if absent.

    Raises:
        ConfigError: With the nearest path.
    """
    if not is_trial_path(path):
        fix = suggest_path(path)
        if path.partition(".")[0] in GROUPS and not fix.startswith("did you mean"):
            fix += " (for an option of a plugin add --plugin NAME or FILE.py)"
        raise ConfigError(f"a trial has no '{path}'; {fix}", path=place or path, source=source)


def suggest_path(path: str) -> str:
    """The end of an "unknown path" message: the nearest path, siblings first, then the same name elsewhere.

    >>> suggest_path("training.warmup")
    "did you mean 'training.schedule.warmup'?"
    """
    parent, _, name = path.rpartition(".")
    known = [*trial_paths(), MAX_STEPS]
    siblings = [other for other in known if other.rpartition(".")[0] == parent]
    if not siblings:
        return did_you_mean(path, known)
    ending = suggest_key(name, [other.rpartition(".")[2] for other in siblings])
    if ending.startswith("did you mean '") and parent:
        return ending.replace("did you mean '", f"did you mean '{parent}.", 1)
    elsewhere = [other for other in known if other.rpartition(".")[2] == OTHER_NAMES.get(name, name)]
    if len(elsewhere) == 1 and not ending.startswith("did you mean '"):
        return f"did you mean '{elsewhere[0]}'?"
    return ending


def suggest_key(name: str, keys: list[str]) -> str:
    """`did_you_mean` that also knows what other libraries call a field.

    >>> suggest_key("learning_rate", ["lr", "regime"])
    "did you mean 'lr'?"
    """
    elsewhere = {other: own for other, own in OTHER_NAMES.items() if own in keys}
    near = nearest(name, [*keys, *elsewhere])
    if near is not None:
        return f"did you mean '{elsewhere.get(near, near)}'?"
    return did_you_mean(name, keys)
