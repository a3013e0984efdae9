"""Edited copies of a trial: how presets, overrides, arms, tuning, searchers and flags change a configuration.

The rules are those of a search-space file's mappings. A mapping given for a component is merged key by key; one
that changes `kind` drops the other keys of the old kind; one that names another registered entry (`training.regime`)
keeps what that entry has too, and leaves out what is at its default; `training.budget` is replaced as a whole; and
`training.max_steps: N` is `training.budget: {steps: N}`. A `Draft` remembers where each value was written, so that an
error found at the end still names the file and the key at which to fix it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stackwise_ray.config.trial import SCHEMA_VERSION, Budget, TrialConfig, paths
from stackwise_ray.config.trial.registered import Alternatives, NamedOptions, OptionsByName, carried, field_names
from stackwise_ray.config.trial.validation import Origin, describe, show, validate
from stackwise_ray.core.errors import ConfigError

_BUDGET_UNITS = tuple(entry.name for entry in dataclasses.fields(Budget))


def to_plain(trial: TrialConfig) -> dict[str, Any]:
    """The trial as JSON data: every field, defaults included, tuples as lists."""
    return {entry.name: plain_data(getattr(trial, entry.name)) for entry in dataclasses.fields(trial)}


def plain_data(value: Any) -> Any:
    """Dataclasses as mappings, tuples as lists, the rest as it is."""
    if dataclasses.is_dataclass(value):
        return {entry.name: plain_data(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, NamedOptions):
        return {name: plain_data(options) for name, options in value.items()}
    return [plain_data(entry) for entry in value] if isinstance(value, (tuple, list)) else value


def with_defaults(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's plain data with every absent field at its default, not validated; required fields stay absent."""
    filled: dict[str, Any] = _filled(plain, (TrialConfig,))
    return filled


def _filled(value: Any, components: tuple[paths.SchemaPart, ...]) -> Any:
    if not isinstance(value, Mapping) or not components:
        return value
    chosen = paths.chosen_component(components, value)
    filled = dict(value)
    if chosen is None:
        return filled
    for name, annotation in paths.annotations_of(chosen).items():
        if name in filled:
            filled[name] = _filled(filled[name], paths.components_in(annotation))
    if isinstance(chosen, OptionsByName):
        return filled
    for entry in dataclasses.fields(chosen):
        if entry.name in filled:
            continue
        if entry.default is not dataclasses.MISSING:
            filled[entry.name] = plain_data(entry.default)
        elif entry.default_factory is not dataclasses.MISSING:
            filled[entry.name] = plain_data(entry.default_factory())
    return filled


def from_plain(plain: Mapping[str, Any], source: str | None = None) -> TrialConfig:
    """A validated trial from plain data, such as a stored ``config.yaml``.

    Raises:
        ConfigError: Unknown key, wrong type, a budget with none or several units, a newer schema version.
    """
    return Draft(plain=dict(plain), source=source).build()


def edit(trial: TrialConfig, edits: Mapping[str, Any], *, source: str | None = None) -> TrialConfig:
    """A copy of `trial` with values changed at dotted paths.

    Args:
        edits: Dotted path to value; a mapping given for a component is merged key by key.
        source: File of the edits, for messages.

    Raises:
        ConfigError: Unknown path (with the nearest), wrong type, one field given twice, several budget units.

    >>> from stackwise_ray.config.loading import load_trial
    >>> trial = load_trial(["model=decoder/gpt2_family/tiny"])
    >>> faster = edit(trial, {"training.lr": 1e-2, "training.max_steps": 10})
    >>> faster.training.lr, faster.training.budget.steps
    (0.01, 10)
    """
    return Draft(plain=to_plain(trial)).edited(edits, source=source).build()


def value_at(plain: Mapping[str, Any], path: str) -> Any:
    """The value at an existing dotted path; None where a component is absent or its kind lacks the key."""
    value: Any = plain
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Plain data on its way to a trial, with the place at which each value was written.

    Attributes:
        plain: Nested mappings in the form of `TrialConfig`; need not be complete.
        source: File of everything that `origins` does not know.
        origins: Dotted path of the trial to where its value was written last.
    """

    plain: Mapping[str, Any]
    source: str | None = None
    origins: Mapping[str, Origin] = field(default_factory=dict)

    def edited(self, edits: Mapping[str, Any], *, source: str | None = None, place: str = "") -> Draft:
        """This draft with `edits` merged in.

        Args:
            place: Dotted path of the mapping `edits` in its file, e.g. ``design.arms.llama``.
        """
        origins: dict[str, Origin] = {}
        tree = _nest(edits, source, place, origins)
        merged = _merge(self.plain, tree, (TrialConfig,), "")
        return Draft(plain=merged, source=self.source, origins={**self.origins, **origins})

    def locate(self, path: str) -> Origin:
        """Where the value at `path` was written: itself, else a part of it, else what holds it."""
        below = next((place for place in self.origins if place.startswith(f"{path}.")), None)
        if path not in self.origins and below is not None:
            part = self.origins[below]
            return Origin(part.source, part.path.removesuffix(below.removeprefix(path)))
        names = path.split(".")
        for length in range(len(names), 0, -1):
            origin = self.origins.get(".".join(names[:length]))
            if origin is not None:
                rest = names[length:]
                return Origin(origin.source, ".".join([*([origin.path] if origin.path else []), *rest]))
        return Origin(self.source, path)

    def build(self) -> TrialConfig:
        """The trial, its fields validated; rules across fields are `config.trial.rules`.

        Raises:
            ConfigError: See `from_plain`.
        """
        _refuse_other_version(self.plain, self.locate)
        plain = _with_budget(self.plain)
        _require_one_budget(plain, self.locate)
        return validate(TrialConfig, plain, locate=self.locate)


def _nest(edits: Mapping[str, Any], source: str | None, place: str, origins: dict[str, Origin]) -> dict[str, Any]:
    """Dotted edits as one tree; refuses unknown paths and fields given twice."""
    tree: dict[str, Any] = {}

    def put(path: str, value: Any, written: str) -> None:
        path = "training.budget.steps" if path == paths.MAX_STEPS else path
        paths.require_trial_path(path, place=written, source=source)
        components = paths.components_at(path)
        if components and isinstance(value, Mapping):
            below = _put(tree, path, {}, merge=True, written=written, source=source)
            origins.setdefault(path, Origin(source, written))
            for key, part in value.items():
                if part is None and any(isinstance(one, OptionsByName) for one in components):
                    problem = f"= null has no meaning here; write {key}: {{}} for the defaults, or leave the key out"
                    raise ConfigError(problem, path=f"{written}.{key}", source=source)
                put(f"{path}.{key}", part, f"{written}.{key}")
            if not value and not below:
                _put(tree, path, {}, merge=True, written=written, source=source)
            return
        if components and value is not None:
            problem = f"= {show(value)} is {describe(value)}; it must be a mapping"
            if keys := paths.children(components):
                text = isinstance(value, str) and "kind" in keys
                problem += f"; write {{kind: {value}}}" if text else f"; its keys are {', '.join(keys)}"
            raise ConfigError(problem, path=written, source=source)
        _put(tree, path, value, merge=False, written=written, source=source)
        origins[path] = Origin(source, written)
        if path.startswith(f"{paths.BUDGET}."):
            origins[paths.BUDGET] = Origin(source, written.rpartition(".")[0] if ".budget." in written else written)

    for path, value in edits.items():
        put(path, value, f"{place}.{path}" if place else path)
    return tree


def _put(tree: dict[str, Any], path: str, value: Any, *, merge: bool, written: str, source: str | None) -> Any:
    *parents, name = path.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(
                f"'{path}' is set, but the group that it belongs to is set to null; keep one of the two",
                path=written,
                source=source,
            )
    if name in tree and not (merge and isinstance(tree[name], dict)) and tree[name] != value:
        raise ConfigError(
            f"sets '{path}' a second time, to another value; keep one of the two", path=written, source=source
        )
    return tree.setdefault(name, value)


def _merge(old: Any, new: Any, components: tuple[paths.SchemaPart, ...], path: str) -> Any:
    """`new` over `old` by the rules of the module docstring; neither is changed."""
    if not components or not isinstance(new, Mapping):
        return new
    if path == paths.BUDGET:
        return {unit: amount for unit, amount in new.items() if amount is not None} or dict(new)
    kept = dict(old) if isinstance(old, Mapping) else {}
    if "kind" in new and new["kind"] != kept.get("kind", _default_kind(components)):
        kept = {}
    registered = components[0] if len(components) == 1 else None
    if isinstance(registered, Alternatives) and registered.field in new:
        kept = _of_entry(registered, kept, new[registered.field])
    below = paths.children(components)
    for name, value in new.items():
        place = f"{path}.{name}" if path else name
        kept[name] = _merge(kept.get(name), value, below.get(name, ()), place)
    if isinstance(registered, Alternatives):  # null takes out what another entry's options had
        absent = set(kept) - field_names(registered.chosen(kept))
        kept = {name: value for name, value in kept.items() if name not in absent or value is not None}
    if isinstance(registered, OptionsByName):
        kept = {name: value for name, value in kept.items() if value is not None}
    return kept


def _of_entry(registered: Alternatives, plain: Mapping[str, Any], name: Any) -> dict[str, Any]:
    """What stays of an entry's options when `name` takes its place; see `registered.carried`."""
    before = registered.chosen(plain)
    filled = {
        option: _filled(value, paths.components_in(annotation))
        for option, annotation in paths.annotations_of(before).items()
        if (value := plain.get(option)) is not None or option in plain
    }
    staying = carried(registered, {**plain, **filled}, name, plain_default=plain_data)
    return {option: value for option, value in plain.items() if option in staying}


@functools.cache
def _default_kind(components: tuple[paths.SchemaPart, ...]) -> str | None:
    if len(components) != 1:
        return None  # in a union the kind is always written
    (component,) = components
    if not isinstance(component, type):
        return None
    kinds = [entry.default for entry in dataclasses.fields(component) if entry.name == "kind"]
    return kinds[0] if kinds and isinstance(kinds[0], str) else None


def _with_budget(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """`training.max_steps` written in a preset or a stored config, as a budget of steps."""
    training = plain.get("training")
    if not isinstance(training, Mapping) or "max_steps" not in training:
        return plain
    budget = training.get("budget") or {}
    if not isinstance(budget, Mapping):
        return plain
    rest = {key: value for key, value in training.items() if key != "max_steps"}
    return {**plain, "training": {**rest, "budget": {**budget, "steps": training["max_steps"]}}}


def _require_one_budget(plain: Mapping[str, Any], locate: Any) -> None:
    training = plain.get("training")
    budget = training.get("budget") if isinstance(training, Mapping) else None
    if not isinstance(budget, Mapping) or not set(budget) <= set(_BUDGET_UNITS):
        return  # absent, of a wrong type or with an unknown key: the validation says so better
    given = {unit: amount for unit, amount in budget.items() if amount is not None}
    if len(given) != 1:
        origin = locate(paths.BUDGET)
        units = ", ".join(_BUDGET_UNITS)
        said = f"holds {len(given)} units ({', '.join(given)})" if given else "is empty"
        raise ConfigError(
            f"= {show(budget)} {said}; give exactly one of {units}", path=origin.path, source=origin.source
        )


def _refuse_other_version(plain: Mapping[str, Any], locate: Any) -> None:
    version = plain.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and not isinstance(version, bool) and version != SCHEMA_VERSION:
        origin = locate("schema_version")
        fix = "update stackwise_ray to read it" if version > SCHEMA_VERSION else "there is no such version"
        side = "newer than" if version > SCHEMA_VERSION else "not"
        problem = f"= {version} is {side} the version {SCHEMA_VERSION} that this program reads; {fix}"
        raise ConfigError(problem, path=origin.path, source=origin.source)
