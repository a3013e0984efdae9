"""Named seams: one file and one registration add a model family, a flag, a corpus, a sampler.

A registry refuses duplicates and suggests near names. It may be given a package whose modules are the
registrations: the names can then be listed without importing anything (a config is validated without torch), and
a module is imported when its entry is first asked for.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import Generic, TypeVar

from stackwise_ray.core.errors import ConfigError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Entries of one kind by name.

    Args:
        kind: What an entry is, as a message says it: "model family".
        package: Dotted name of a package in which every public module registers the entry of its own name.
        besides: Public modules of that package that register nothing.
        ending: What the module names of entries end in and their own names do not: where the same name is an entry of
            another kind too, the modules are still told apart. Modules without it register nothing.

    >>> shapes = Registry[int]("shape")
    >>> @shapes.register("triangle")
    ... def triangle(): return 3
    >>> shapes.get("triangle")()
    3
    """

    def __init__(self, kind: str, *, package: str | None = None, besides: Iterable[str] = (), ending: str = "") -> None:
        self.kind = kind
        self._package = package
        self._ending = ending
        self._besides = frozenset(besides)
        self._entries: dict[str, T] = {}
        self._revision = 0

    @property
    def revision(self) -> int:
        """Changes whenever an entry comes from outside the package, or goes: what was derived before is then stale."""
        return self._revision

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator (or call) that adds an entry; a second entry of the same name is an error."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._entries[name] = entry
            self._revision += name not in self._module_names  # the package's own are listed before they are imported
            return entry

        return add

    def unregister(self, name: str) -> None:
        """Takes an entry out again: a plugin that failed its contract, or an entry that a test brought."""
        del self._entries[name]
        self._revision += 1

    @contextlib.contextmanager
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
        """
        if name not in self._entries and name in self._module_names:
            importlib.import_module(f"{self._package}.{name}{self._ending}")
        try:
            return self._entries[name]
        except KeyError:
            raise ConfigError(f"unknown {self.kind} '{name}'; {did_you_mean(name, self.names())}") from None

    def names(self) -> tuple[str, ...]:
        """All names, sorted; imports nothing."""
        return tuple(sorted({*self._entries, *self._module_names}))

    def items(self) -> Iterator[tuple[str, T]]:
        """All entries by name; imports every module of the package."""
        return ((name, self.get(name)) for name in self.names())

    def __contains__(self, name: str) -> bool:
        return name in self._entries or name in self._module_names

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
