"""Registries: one file and one registration add a model family, a flag, a corpus, a sampler.

A registry refuses duplicates and suggests near names. It may be given a package whose modules are the
registrations: the names can then be listed without importing anything (a config is validated without torch), and
a module is imported when its entry is first asked for. Entries that installed plugins offer are listed and loaded in
the same way (`core.plugins`).
"""

from __future__ import annotations

import functools
import importlib
import keyword
import pkgutil
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

from stackwise_ray.core.errors import ConfigError, EntryError, NameTakenError, PluginError, did_you_mean

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """An entry that another distribution has, which is not loaded yet.

    Attributes:
        module: The module that registers it.
        origin: Who offers it, as a message says it: "the plugin my_package 1.0".
        load: Imports the module as a plugin.
    """

    module: str
    origin: str
    load: Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Follower(Generic[T]):
    """What is done beside registering and unregistering an entry."""

    added: Callable[[T], None]
    removed: Callable[[T], None]


class Registry(Generic[T]):
    """Entries of one kind by name.

    Args:
        kind: What an entry is, as a message says it: "model family".
        package: Dotted name of a package in which every public module registers the entry of its own name; or a
            function that finds the name.
        besides: Public modules of that package that register nothing.
        ending: What the module names of entries end in and their own names do not: where the same name is an entry of
            another kind too, the modules are still told apart. Modules without it register nothing.
        protocol: Attributes that every entry has; one that lacks any is refused when it is registered.

    >>> shapes = Registry[int]("shape")
    >>> @shapes.register("triangle")
    ... def triangle(): return 3
    >>> shapes.get("triangle")()
    3
    """

    def __init__(
        self,
        kind: str,
        *,
        package: str | Callable[[], str] | None = None,
        besides: Iterable[str] = (),
        ending: str = "",
        protocol: Iterable[str] = (),
    ) -> None:
        self.kind = kind
        self._where = package
        self._ending = ending
        self._besides = frozenset(besides)
        self._protocol = tuple(protocol)
        self._ask_offers: Callable[[Collection[str]], Mapping[str, Offer]] | None = None
        self.group = kind
        self._entries: dict[str, T] = {}
        self._followers: list[Follower[T]] = []
        self._revision = 0

    @property
    def revision(self) -> int:
        """Changes whenever an entry comes from outside the package, or goes: what was derived before is then stale."""
        return self._revision

    def accept(self, group: str, offers: Callable[[Collection[str]], Mapping[str, Offer]]) -> None:
        """List what installed plugins offer, too.

        Args:
            group: Kind of entry, as the name of an entry-point group has it: ``flags``.
            offers: Given the names of our own entries, the offers by name; asked at the first use.
        """
        self.group, self._ask_offers = group, offers

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator (or call) that adds an entry.

        Raises:
            EntryError: The name cannot be a key in YAML, or the entry is not what is registered here.
            NameTakenError: There is an entry of this name, loaded or not.
        """

        def add(entry: T) -> T:
            self._refuse_name(name)
            self._refuse_shape(name, entry)
            owner = self._owner(name)
            if owner is not None:
                raise NameTakenError(f"{self.kind} '{name}' is registered twice: {owner} has it; choose another name")
            self._put_in(name, entry)
            if name not in self._module_names:  # the package's own are listed before they are imported
                self._revision += 1
                for seen in watching():
                    seen.entries.append((self, name))
                    seen.undo.callback(self._take_out, name)
            return entry

        return add

    def _refuse_name(self, name: str) -> None:
        if not isinstance(name, str):
            raise EntryError(
                f"{self.kind} {name!r}: a name must be text, not a {type(name).__name__}; give a word in quotes"
            )
        if not _NAME.fullmatch(name) or keyword.iskeyword(name) or name.lower() in _YAML_WORDS:
            near = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_")
            near = near if _NAME.fullmatch(near) and near != name else f"my_{near}"
            raise EntryError(
                f"{self.kind} '{name}': a name is a key in YAML and a part of dotted paths. It must "
                "consist of letters, digits and underscores, begin with a letter, and not be a word of YAML or "
                f"Python; write '{near}'"
            )

    def _refuse_shape(self, name: str, entry: T) -> None:
        lacking = [attribute for attribute in self._protocol if not hasattr(entry, attribute)]
        if lacking:
            what = f"the class {entry.__name__}" if isinstance(entry, type) else f"a {type(entry).__name__}"
            raise EntryError(
                f"{self.kind} '{name}' is {what}, which lacks {', '.join(lacking)}; every {self.kind} has "
                f"{', '.join(self._protocol)}"
            )

    def ours(self, name: str) -> bool:
        """Whether a module of the registry's own package has this entry."""
        return name in self._module_names

    def unregister(self, name: str) -> None:
        """Takes an entry out again: a plugin that failed its contract, or an entry that a test brought."""
        entry = self._take_out(name)
        for seen in watching():
            seen.entries[:] = [one for one in seen.entries if one != (self, name)]
            seen.undo.callback(self._put_in, name, entry)

    def _put_in(self, name: str, entry: T) -> None:
        for follower in self._followers:
            follower.added(entry)
        self._entries[name] = entry

    def _take_out(self, name: str) -> T:
        entry = self._entries.pop(name)
        self._revision += 1
        for follower in self._followers:
            follower.removed(entry)
        return entry

    def follow(self, follower: Follower[T]) -> None:
        """Tell `follower` of every entry that is there, comes or goes; one that it refuses is not registered."""
        for entry in self._entries.values():
            follower.added(entry)
        self._followers.append(follower)

    @contextmanager
    def registered(self, name: str, entry: T) -> Iterator[T]:
        """An entry that is there inside the `with` block alone."""
        self.register(name)(entry)
        try:
            yield entry
        finally:
            self.unregister(name)

    def get(self, name: str) -> T:
        """The entry called `name`.

        Raises:
            ConfigError: There is none; the message suggests the nearest name.
            PluginError: An installed plugin offers it and cannot be loaded.
        """
        if name not in self._entries:
            if name in self._module_names:
                importlib.import_module(f"{self._package}.{name}{self._ending}")
            elif name in self._offers:
                self._offers[name].load()
        try:
            return self._entries[name]
        except KeyError:
            raise ConfigError(f"unknown {self.kind} '{name}'; {did_you_mean(name, self.names())}") from None

    def names(self) -> tuple[str, ...]:
        """All names, sorted; imports nothing."""
        return tuple(sorted({*self._entries, *self._module_names, *self._offers}))

    def items(self) -> Iterator[tuple[str, T]]:
        """All entries by name; imports every module of the package, and leaves out what a broken plugin offers."""
        for name in self.names():
            try:
                yield name, self.get(name)
            except PluginError:  # `core.plugins.problems` names it
                continue

    def offered(self, name: str) -> bool:
        """Whether an installed plugin offers this entry."""
        return name in self._offers

    def __contains__(self, name: str) -> bool:
        return name in self._entries or name in self._module_names or name in self._offers

    def _owner(self, name: str) -> str | None:
        """Who has this name already; a module that is being imported registers its own."""
        if name in self._entries:
            return "another module"
        if name in self._module_names and f"{self._package}.{name}{self._ending}" not in sys.modules:
            return "stackwise_ray"
        if name in self._offers and self._offers[name].module not in sys.modules:
            return self._offers[name].origin
        return None

    @functools.cached_property
    def _package(self) -> str | None:
        return self._where() if callable(self._where) else self._where

    @functools.cached_property  # the folder is read once: kernels ask at every call of an op
    def _module_names(self) -> set[str]:
        if self._package is None:
            return set()
        spec = find_spec(self._package)
        if spec is None or spec.submodule_search_locations is None:
            return set()
        modules = pkgutil.iter_modules(list(spec.submodule_search_locations))
        names = {module.name for module in modules if not module.name.startswith("_")} - self._besides
        return {name.removesuffix(self._ending) for name in names if name.endswith(self._ending)}

    @functools.cached_property
    def _offers(self) -> Mapping[str, Offer]:
        return {} if self._ask_offers is None else self._ask_offers(self._module_names)


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_YAML_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
"""What YAML reads as something else than text."""


@dataclass(frozen=True)
class Witness:
    """What is registered while somebody watches.

    Attributes:
        entries: Those of other packages than ours, with their registry.
        metrics: Paths of metrics that no entry brings.
        undo: The opposite of every change, of one that took something out too.
    """

    entries: list[tuple[Registry[Any], str]] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    undo: ExitStack = field(default_factory=ExitStack)

    def withdraw(self) -> None:
        """Everything as it was before: undoes the last change first, and all of them even where one cannot be."""
        self.undo.close()


_witnesses: list[Witness] = []


def watching() -> Iterator[Witness]:
    """Whoever watches what is registered now: one or nobody."""
    yield from _witnesses[-1:]


@contextmanager
def registrations() -> Iterator[Witness]:
    """What is registered while the block lasts."""
    seen = Witness()
    _witnesses.append(seen)
    try:
        yield seen
    finally:
        _witnesses.pop()
