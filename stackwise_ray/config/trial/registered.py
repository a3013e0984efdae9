"""Options that registered entries bring: which options a trial may hold depends on the entries that it names.

Two forms, both written as an annotation of a field of the schema:

    training: Annotated[TrainingConfig, OptionsOf("regime", registries.REGIMES)]
    components: Annotated[Mapping[str, Any], OptionsByName(registries.COMPONENTS)]

`OptionsOf`: the mapping holds one entry's options, and a field in it names the entry. An entry states them as
`options`, a frozen subclass of the annotated class; an entry without `options` has the annotated class itself.
`OptionsByName`: the mapping holds the options of several entries, each under the entry's name.

`paths`, `validation` and `editing` ask here. Entries are looked up when a value is validated, so one that a plugin
registers later is known at once. Nothing here knows what the options mean.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from stackwise_ray.core.errors import ConfigError, PluginError, did_you_mean
from stackwise_ray.core.registry import Registry

if typing.TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import CoreSchema

UNKNOWN_ENTRY = "unknown_entry"
"""Type of the validation error about a name that no entry has."""


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Options of an entry that has none."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}


class NamedOptions(Mapping[str, Any]):
    """Options of several entries by name, sorted; immutable and hashable, as all of a trial is.

    >>> NamedOptions({"early_exit": 1})["early_exit"]
    1
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._options = {name: (options or {})[name] for name in sorted(options or {})}

    def __getitem__(self, name: str) -> Any:
        return self._options[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._options)

    def __len__(self) -> int:
        return len(self._options)

    def __hash__(self) -> int:
        return hash(tuple(self._options.items()))

    def __repr__(self) -> str:
        return f"NamedOptions({self._options!r})"


@dataclass(frozen=True)
class Alternatives:
    """The option classes of which one is at a place; a field says which.

    Attributes:
        base: What all of them are; holds the common fields.
        field: Name of the field that names the entry.
        registry: Where the entries are.
        place: Dotted path of the options in what they are part of, for messages of `build_options`.
    """

    base: type
    field: str
    registry: Registry[Any]
    place: str = ""

    def of(self, name: Any) -> type | None:
        """The option class of the entry called `name`; None: there is no such entry."""
        if not isinstance(name, str) or name not in self.registry:
            return None
        found: type = getattr(self.registry.get(name), "options", None) or self.base
        return found

    def name_in(self, plain: Any) -> Any:
        """The entry that a mapping names, which is the field's default where it names none."""
        default = next(entry.default for entry in dataclasses.fields(self.base) if entry.name == self.field)
        fallback = None if default is dataclasses.MISSING else default
        return plain.get(self.field, fallback) if isinstance(plain, Mapping) else fallback

    def chosen(self, plain: Any) -> type:
        """The class of the entry that a mapping names; the base where it names none that exists."""
        return self.of(self.name_in(plain)) or self.base

    def by_entry(self) -> dict[str, type]:
        """Name to option class of every entry; a plugin that cannot be loaded has no options that anybody could set."""
        found = {}
        for name in self.registry.names():
            with contextlib.suppress(PluginError):  # `of` says it of the one entry that a trial names
                found[name] = self.of(name) or self.base
        return found

    def classes(self) -> tuple[type, ...]:
        """The base and the option classes of all entries, each once."""
        return tuple(dict.fromkeys((self.base, *self.by_entry().values())))

    def entries_with(self, option: str) -> tuple[str, ...]:
        """Names of the entries that have an option."""
        return tuple(name for name, options in self.by_entry().items() if option in field_names(options))

    def refusal(self, option: str, name: Any, value: Any) -> str | None:
        """Why an option has no effect beside this entry, and what it goes with; None where no entry has it."""
        fitting = self.entries_with(option)
        if not fitting:
            return None
        listed = ", ".join(fitting[:-1]) + (" or " if len(fitting) > 1 else "") + fitting[-1]
        chosen = f"choose the {self.field} {listed}"
        return f"{_shown(value)}has no effect in the {self.field} {name}; {chosen}, or leave it out"

    def unknown(self, name: Any) -> str:
        """What is wrong with a name that no entry has."""
        return f"= {name} is an unknown {self.field}; {did_you_mean(str(name), self.registry.names())}"


@dataclass(frozen=True)
class OptionsOf:
    """Annotation marker: options of the entry that the field `field` names; see the module."""

    field: str
    registry: Registry[Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        from pydantic_core import PydanticCustomError, core_schema

        alternatives = Alternatives(source, self.field, self.registry)

        def validated(value: Any) -> Any:
            if isinstance(value, alternatives.base):
                return value
            name = alternatives.name_in(value)
            options = alternatives.base if name is None else alternatives.of(name)
            if options is None and isinstance(name, str):
                raise PydanticCustomError(UNKNOWN_ENTRY, "unknown entry")
            # Its own validation error is taken over by the outer one, with the place in front of each location.
            return adapter(options or alternatives.base).validate_json(json.dumps(value))

        return core_schema.no_info_plain_validator_function(validated)


@dataclass(frozen=True)
class OptionsByName:
    """Annotation marker: a mapping from names of entries to their options; see the module."""

    registry: Registry[Any]

    def annotations(self) -> dict[str, Any]:
        """Name of each entry to the class of its options; without plugins that cannot be loaded."""
        found = {}
        for name in self.registry.names():
            with contextlib.suppress(PluginError):
                found[name] = self.options(name)
        return found

    def options(self, name: str) -> type:
        """The class of one entry's options."""
        return getattr(self.registry.get(name), "options", None) or NoOptions

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        from pydantic_core import PydanticCustomError, core_schema

        def validated(value: Any) -> NamedOptions:
            if isinstance(value, NamedOptions):
                return value
            if not isinstance(value, Mapping):
                raise PydanticCustomError("dict_type", "a mapping is wanted")
            unknown = next((name for name in value if name not in self.registry), None)
            if unknown is not None:
                raise PydanticCustomError(UNKNOWN_ENTRY, "unknown entry", {"name": unknown})
            chosen = tuple((name, self.options(name)) for name in value)
            held = adapter(_holder(chosen)).validate_json(json.dumps(value))
            return NamedOptions({name: getattr(held, name) for name, _ in chosen})

        return core_schema.no_info_plain_validator_function(validated)

    def unknown(self, name: str) -> str:
        """What is wrong with a name that no entry has."""
        return f"is an unknown {self.registry.kind}; {did_you_mean(name, self.registry.names())}"


def _shown(value: Any) -> str:
    """A value in front of what is wrong with it; mappings and null say nothing there."""
    if value is None or isinstance(value, Mapping) or dataclasses.is_dataclass(value):
        return ""
    return f"= {value if isinstance(value, str) else json.dumps(value)} "


@functools.cache  # keyed on the class itself: a class does not change, whatever is registered later
def adapter(kind: Any) -> TypeAdapter[Any]:
    """What validates values of a type; building one takes about 30 ms."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


@functools.cache
def _holder(chosen: tuple[tuple[str, type], ...]) -> type:
    """A dataclass with one field for each of the entries, so that errors name the entry."""
    return dataclasses.make_dataclass(
        "Options", list(chosen), namespace={"__pydantic_config__": {"extra": "forbid", "strict": True}}, kw_only=True
    )


def marker_in(annotation: Any) -> Alternatives | OptionsByName | None:
    """What an annotation says about registered options; None: nothing."""
    if typing.get_origin(annotation) is not typing.Annotated:
        return None
    declared, *metadata = typing.get_args(annotation)
    for marker in metadata:
        if isinstance(marker, OptionsOf):
            return Alternatives(declared, marker.field, marker.registry)
        if isinstance(marker, OptionsByName):
            return marker
    return None


def field_names(options: type) -> frozenset[str]:
    """The fields of a dataclass."""
    return frozenset(entry.name for entry in dataclasses.fields(options))


def carried(
    alternatives: Alternatives, old: Mapping[str, Any], name: Any, *, plain_default: Any = lambda value: value
) -> dict[str, Any]:
    """What stays of one entry's values when another entry takes its place.

    The fields that the new entry has stay. Of the others those go that are at their default, since they say nothing;
    any other stays and is refused by the new entry, as a value that somebody wrote and that would have no effect.

    Args:
        old: Field to value, as it was.
        name: The new entry.
        plain_default: From a field's default to the form that `old` holds.
    """
    new = alternatives.of(name)
    if new is None:
        return dict(old)
    before = {entry.name: entry for entry in dataclasses.fields(alternatives.chosen(old))}
    kept = field_names(new)

    def says_nothing(option: str, value: Any) -> bool:
        entry = before.get(option)
        if option in kept or entry is None:
            return False
        if entry.default_factory is not dataclasses.MISSING:
            return bool(value == plain_default(entry.default_factory()))
        return entry.default is not dataclasses.MISSING and bool(value == plain_default(entry.default))

    return {option: value for option, value in old.items() if not says_nothing(option, value)}


def build_options(alternatives: Alternatives, /, **values: Any) -> Any:
    """Options as a value, of the class that the named entry has; for code, which does not go through YAML.

    Raises:
        ConfigError: There is no such entry, or it lacks one of the options.
    """
    name = alternatives.name_in(values)
    options = alternatives.of(name)
    if options is None:
        raise ConfigError(alternatives.unknown(name), path=_joined(alternatives.place, alternatives.field))
    for option, value in values.items():
        if option not in field_names(options) and (problem := alternatives.refusal(option, name, value)):
            raise ConfigError(problem, path=_joined(alternatives.place, option))
    for entry in dataclasses.fields(options):
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and entry.name not in values:
            path = _joined(alternatives.place, entry.name)
            raise ConfigError(f"is required with {alternatives.field}: {name}", path=path)
    return options(**values)


def _joined(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def replace_options(alternatives: Alternatives, options: Any, /, **changes: Any) -> Any:
    """A copy with changes, of another class where they name another entry.

    Raises:
        ConfigError: As `build_options`; also where a value that is not at its default would be lost.
    """
    old = {entry.name: getattr(options, entry.name) for entry in dataclasses.fields(options)}
    name = changes.get(alternatives.field, old[alternatives.field])
    return build_options(alternatives, **{**carried(alternatives, old, name), **changes})
