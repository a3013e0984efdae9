"""Plugins: entries of every registry that come from a user's own file or package.

A plugin registers by the same call as our own modules. Entry points in the groups ``stackwise_ray.<kind>`` (such as
``stackwise_ray.flags``) are listed without an import and loaded when their entry is first asked for; the commands load
what `--plugin` names at once. Nothing is ever loaded because a search-space file says so.

What has been loaded is remembered with the hash of its source: it goes into the journal and into every trial's
environment (`records`), decides who a trial is (`owner`), and travels to the workers (`to_workers`, `load_sent`).
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import re
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from stackwise_ray.core.errors import PluginError, StackwiseError, did_you_mean
from stackwise_ray.core.registry import Offer, Registry, registrations

OPTION = "--plugin"
GROUP = "stackwise_ray."
"""What the name of an entry-point group begins with; the kind of entry follows."""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plugin that has been loaded.

    Attributes:
        name: As `--plugin` names it: a file, or the name of an entry point or a module.
        module: The name of its module in this process.
        sha256: Of its source; of all ``*.py`` files where it is a package.
        entries: What it registered: kind of entry and name.
        metrics: Paths of the metrics that it registered beside its entries.
        file: Where its source was read; None where a distribution has it.
        source: Its text, where a file is the whole plugin.
        distribution: The installed distribution that it belongs to, and its version.
        version: See `distribution`.
    """

    name: str
    module: str
    sha256: str
    entries: tuple[tuple[str, str], ...] = ()
    metrics: tuple[str, ...] = ()
    file: str | None = None
    source: str | None = None
    distribution: str | None = None
    version: str | None = None

    def record(self) -> dict[str, Any]:
        """What is written down about it: ``name``, ``file`` or ``distribution`` and ``version``, ``sha256``."""
        where = {"file": self.file, "distribution": self.distribution, "version": self.version}
        return {"name": self.name, **{key: value for key, value in where.items() if value}, "sha256": self.sha256}


_loaded: dict[str, Plugin] = {}
"""By module."""
_broken: dict[str, PluginError] = {}
"""By module: an import that failed is not tried again in this process."""
_problems: dict[str, None] = {}
_told: set[str] = set()
_lock = threading.RLock()


def load_plugin(asked: str) -> Plugin:
    """Load what `--plugin` names, once.

    Args:
        asked: A file that ends in ``.py``, the name of an entry point, or the name of a module.

    Raises:
        PluginError: It cannot be found or imported, registers a taken name or nothing at all.
    """
    with _lock:
        if asked.endswith(".py"):
            return _load_file(asked, Path(asked).expanduser())
        modules = [point.module for points in _entry_points().values() for point in points if point.name == asked]
        if modules:
            first, *_ = [_load_module(asked, module) for module in dict.fromkeys(modules)]
            return first
        return _load_name(asked)


def loaded() -> tuple[Plugin, ...]:
    """Everything that has been loaded in this process."""
    return tuple(_loaded.values())


def records() -> list[dict[str, Any]]:
    """`Plugin.record` of everything that has been loaded."""
    return [plugin.record() for plugin in loaded()]


def owner(kind: str, name: str) -> Plugin | None:
    """The plugin that registered this entry; None for an entry of ours.

    Args:
        kind: As in `core.registries.BY_KIND`, such as ``flags``.
    """
    return next((plugin for plugin in loaded() if (kind, name) in plugin.entries), None)


def origin(registry: Registry[Any], name: str) -> str:
    """An entry as a message names it, with its plugin's file or distribution."""
    plugin = owner(registry.group, name)
    by = "" if plugin is None else f" of the plugin {plugin.file or f'{plugin.module} ({plugin.distribution})'}"
    return f"the {registry.kind} '{name}'{by}"


@contextmanager
def at_fault(registry: Registry[Any], name: str, what: str) -> Iterator[None]:
    """What an entry of somebody else's raises in the block becomes one line; what one of ours raises passes through.

    Args:
        what: Of the entry, as the subject of a sentence: "its `needs`".

    Raises:
        PluginError: It names the entry, its file, the line and the reason.
    """
    try:
        yield
    except StackwiseError:
        raise
    except Exception as error:
        if registry.ours(name):
            raise
        plugin = owner(registry.group, name)
        reason = _reason(error, plugin.file if plugin is not None else None)
        raise PluginError(f"{origin(registry, name)}: {what} raises {reason}") from error


def problems(said: str = "") -> tuple[str, ...]:
    """What is wrong with installed plugins that nobody has asked for by name, one sentence each, each told once.

    Args:
        said: An error that is shown anyhow; what stands in it counts as told.
    """
    with _lock:
        found = tuple(_problems)
        _told.update(found)
        _problems.clear()
        return tuple(problem for problem in found if problem not in said)


def note_problem(problem: str) -> None:
    """Keep what is wrong with an installed plugin for `problems`; a problem that has been told is not told again."""
    with _lock:
        if problem not in _told:
            _problems[problem] = None


# ------------------------------------------------------------------------------------------------------ to workers


def to_workers() -> list[dict[str, Any]]:
    """What another process, on this node or elsewhere, needs to load the same plugins: plain JSON data."""
    return [
        {key: getattr(plugin, key) for key in ("name", "module", "sha256", "file", "source")} for plugin in loaded()
    ]


def load_sent(sent: Sequence[Mapping[str, Any]]) -> None:
    """Load in a worker what `to_workers` describes; a plugin that is loaded already stays as it is.

    Raises:
        PluginError: An installed plugin is missing on this node, or is another version.
    """
    with _lock:
        for plugin in sent:
            if plugin["source"] is not None:
                _load_source(plugin["name"], plugin["file"], plugin["source"])
                continue
            here = _load_module(plugin["name"], plugin["module"])
            if here.sha256 != plugin["sha256"]:
                raise PluginError(
                    f"= {plugin['name']} has another version on this node (sha256 {here.sha256[:12]}, not "
                    f"{plugin['sha256'][:12]}); install the same version on every node",
                    path=OPTION,
                )


# ---------------------------------------------------------------------------------------------------- asking again


def ask_again(before: Sequence[Mapping[str, Any]], where: str) -> list[str]:
    """Compare what is loaded now with what was loaded when the work in `where` began.

    Args:
        before: The stored `records`.

    Returns:
        One line per plugin whose source has changed.

    Raises:
        PluginError: One is not loaded, so that its entries would be missing or be other ones.
    """
    changed: list[str] = []
    for record in before:
        known = {_short(plugin.name): plugin for plugin in loaded()}
        if any(plugin.sha256 == record["sha256"] for plugin in known.values()):
            continue
        now = known.get(_short(record["name"]))
        if now is None and "distribution" in record:
            now = load_plugin(record["name"])  # installed: it was no option then either
        if now is None:
            raise PluginError(
                f"was started with {OPTION} {record['name']} (sha256 {record['sha256'][:12]}); add {OPTION} "
                f"{record.get('file', record['name'])} to this command",
                source=where,
            )
        if now.sha256 != record["sha256"]:
            changed.append(
                f"the plugin {now.name} has changed (sha256 {record['sha256'][:12]} before, {now.sha256[:12]} now): "
                "trials that use it count as new ones"
            )
    return changed


def _short(name: str) -> str:
    return Path(name).name


# ---------------------------------------------------------------------------------------------- installed plugins


def installed(kind: str) -> Callable[[Collection[str]], dict[str, Offer]]:
    """What installed plugins offer in the group ``stackwise_ray.<kind>``, for `core.registry.Registry`."""

    def offers(taken: Collection[str]) -> dict[str, Offer]:
        found: dict[str, Offer] = {}
        for point in _entry_points().get(kind, []):
            origin = f"the installed plugin {_distribution(point)}"
            if point.name in taken or point.name in found:
                who = found[point.name].origin if point.name in found else "stackwise_ray"
                _problems[f"{origin} is left out: it offers '{point.name}' in {GROUP}{kind}, and {who} has it"] = None
                continue
            load = functools.partial(_load_offer, kind, point.name, point.module)
            found[point.name] = Offer(module=point.module, origin=origin, load=load)
        return found

    return offers


def _load_offer(kind: str, name: str, module: str) -> None:
    with _lock:
        try:
            plugin = _load_module(name, module)
            if (kind, name) not in plugin.entries:
                raise PluginError(
                    f"the plugin {module} ({plugin.distribution} {plugin.version}) declares the entry "
                    f"point '{name}' in {GROUP}{kind} but does not register such an entry; it registers "
                    f"{_names(plugin)}"
                )
        except PluginError as error:
            if error.path == OPTION:  # which nobody need have written: the plugin is installed
                error = PluginError(f"the installed plugin {error.problem.removeprefix('= ')}")
            note_problem(str(error))
            raise error from None


@functools.cache
def _entry_points() -> dict[str, list[metadata.EntryPoint]]:
    """The entry points in our groups, by kind; reading the metadata of all distributions takes some 50 ms."""
    found: dict[str, list[metadata.EntryPoint]] = {}
    points = metadata.entry_points()
    for group in sorted(points.groups):
        kind = group.removeprefix(GROUP)
        if group.startswith(GROUP) and kind != "presets":  # folders: `config.reading.presets`
            found[kind] = list(points.select(group=group))
    return found


def _distribution(point: metadata.EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


# ------------------------------------------------------------------------------------------------------- loading


def _load_file(asked: str, path: Path) -> Plugin:
    try:
        source = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise PluginError(f"= {asked} cannot be read ({error.strerror}); give a Python file", path=OPTION) from None
    except UnicodeDecodeError:
        raise PluginError(f"= {asked} is not UTF-8 text; give a Python file", path=OPTION) from None
    return _load_source(asked, str(path.resolve()), source)


def _load_source(asked: str, file: str, source: str) -> Plugin:
    """Execute the text of a file as a module of a private name, the same in every process."""
    sha256 = hashlib.sha256(source.encode()).hexdigest()
    stem = re.sub(r"\W", "_", Path(file).stem)
    name = f"_stackwise_plugin_{stem}_{sha256[:12]}"

    def execute() -> Plugin:
        module = ModuleType(name)
        module.__file__ = file
        sys.modules[name] = module
        exec(compile(source, file, "exec"), module.__dict__)
        return Plugin(name=asked, module=name, sha256=sha256, file=file, source=source)

    return _load(name, execute, asked, file)


def _load_name(asked: str) -> Plugin:
    """Load a module by its name: from its file where a file is all of it, so that other nodes get its text."""
    spec = _spec(asked.partition(".")[0])
    if spec is None:
        names = {point.name for points in _entry_points().values() for point in points}
        hint = f"; {did_you_mean(asked, names)}" if names else ""
        raise PluginError(
            f"= {asked} is neither a .py file, nor an entry point of an installed plugin, nor a module "
            f"that can be imported{hint}",
            path=OPTION,
        )
    if "." not in asked and spec.origin and not spec.submodule_search_locations and not _belongs_to(asked):
        return _load_file(asked, Path(spec.origin))
    return _load_module(asked, asked)


def _load_module(asked: str, module: str) -> Plugin:
    root = module.partition(".")[0]
    distribution = _belongs_to(root)
    version = metadata.version(distribution) if distribution else None

    def execute() -> Plugin:
        importlib.import_module(module)
        spec = _spec(root)
        assert spec is not None  # it has just been imported
        return Plugin(
            name=asked,
            module=module,
            sha256=_hash(spec.origin, spec.submodule_search_locations),
            file=None if distribution else spec.origin,
            distribution=distribution,
            version=version,
        )

    return _load(module, execute, f"{asked} ({module}{f' of {distribution} {version}' if distribution else ''})")


def _load(module: str, execute: Callable[[], Plugin], where: str, file: str | None = None) -> Plugin:
    """Run the module and note what it registers; what a failed one registered is withdrawn."""
    if module in _loaded:
        return _loaded[module]
    if module in _broken:
        raise _broken[module]
    with registrations() as seen:
        try:
            plugin = execute()
            if not (seen.entries or seen.metrics):
                raise PluginError(
                    f'= {where} registers nothing; a plugin calls, for example, FLAGS.register("name")(flag) when it '
                    "is imported, and must not have been imported before",
                    path=OPTION,
                )
        except BaseException as error:
            sys.modules.pop(module, None)
            seen.withdraw()
            if isinstance(error, KeyboardInterrupt):
                raise
            _broken[module] = error if isinstance(error, PluginError) else _failure(where, error, file)
            raise _broken[module] from None
    entries = tuple((registry.group, name) for registry, name in seen.entries)
    _loaded[module] = replace(plugin, entries=entries, metrics=tuple(seen.metrics))
    return _loaded[module]


def _failure(where: str, error: BaseException, file: str | None) -> PluginError:
    """The reason in one line, with the line of the plugin at which it was."""
    return PluginError(f"= {where} cannot be loaded: {_reason(error, file)}", path=OPTION)


def _reason(error: BaseException, file: str | None) -> str:
    """Kind of error, the plugin's line and the message."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    frames = [f for f in frames if f.filename == file] or [f for f in frames if not f.filename.startswith(_OURS)]
    line = f" at line {frames[-1].lineno} of {frames[-1].filename}" if frames else ""
    return f"{type(error).__name__}{line}: {' '.join(str(error).split())}"


_OURS = str(Path(__file__).resolve().parent)


def _spec(root: str) -> ModuleSpec | None:
    """Where a top-level module is, without executing anything."""
    try:
        return importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return None


def _names(plugin: Plugin) -> str:
    entries = (f"'{name}' in {GROUP}{kind}" for kind, name in plugin.entries)
    return ", ".join((*entries, *(f"the metric '{path}'" for path in plugin.metrics)))


def _belongs_to(module: str) -> str | None:
    """The distribution that a module belongs to, by its top-level name."""
    found = metadata.packages_distributions().get(module.partition(".")[0])
    return found[0] if found else None


def _hash(origin: str | None, folders: Sequence[str] | None) -> str:
    """SHA-256 of a module's file, or of all ``*.py`` files of a package with their names."""
    if not folders:
        return hashlib.sha256(Path(origin).read_bytes() if origin is not None else b"").hexdigest()
    whole = hashlib.sha256()
    for folder in folders:
        for file in sorted(Path(folder).rglob("*.py")):
            whole.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return whole.hexdigest()
