"""The table of what can be completed, made from the commands, the schema and the registries.

Nothing here names an option, a path or an entry, with one exception: options whose type does not say what they take.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import typer
import typer.models

from stackwise_ray.completion.shell_scripts import SCRIPTS
from stackwise_ray.config.loading import shipped_search_spaces
from stackwise_ray.config.reading.presets import list_presets
from stackwise_ray.config.reading.yaml import load_yaml
from stackwise_ray.config.space.sweep_config import NOT_KEYS, SweepConfig
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.paths import (
    GROUPS,
    MAX_STEPS,
    SchemaPart,
    annotations_of,
    classes_of,
    components_in,
)
from stackwise_ray.config.trial.registered import Alternatives
from stackwise_ray.core import registries
from stackwise_ray.core.beside import analysis_module
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.metric import Direction
from stackwise_ray.core.plugins import loaded
from stackwise_ray.drafting.contests import every_word

Takes = dict[str, Any]
"""What a value can be; see `candidates._values`."""

YAML, PYTHON, ANY = [".yaml"], [".py"], [""]
_NAMED_ENTRIES = {
    "model.family": registries.FAMILIES,
    "optimizer.kind": registries.OPTIMIZERS,
    "search.sampler": registries.SAMPLERS,
    "scheduler.kind": registries.SCHEDULERS,
    "flags": registries.FLAGS,
}
"""Paths whose value names an entry, where the schema has a plain string."""
_ANALYSIS_CHOICES = {
    "fit law": ("scaling.laws", "LAWS"),
    "fit loss": ("scaling.law_losses", "LOSSES"),
    "fit variable": ("scaling.parametric_law", "VARIABLES"),
    "compare correction": ("paired.significance", "CORRECTIONS"),
    "sequential correction": ("anytime.sequential", "CORRECTIONS"),
    "compare test": ("paired.comparison", "TEST_NAMES"),
    **{f"{command} hypothesis": ("paired.hypotheses", "HYPOTHESES") for command in ("compare", "sequential", "power")},
    **{f"{command} side": ("paired.hypotheses", "SIDES") for command in ("compare", "sequential", "power")},
    "items test": ("tasks.items", "ITEM_TESTS"),
    "items correction": ("paired.significance", "CORRECTIONS"),
    "aggregate statistic": ("tasks.aggregation", "STATISTICS"),
}
"""Option of a command of the analysis → module and name of what it can be."""
_FILE_PATHS = ("data.path", "model.pretrained", "training.init_from")


def collect(app: typer.Typer) -> tuple[dict[str, Any], list[str]]:
    """The table, and the files of plugins that it depends on.

    Args:
        app: The program `stackwise`.
    """
    trial = dict(_leaves((TrialConfig,), ""))
    trial[MAX_STEPS] = {}
    groups = {group: _presets(group) for group in GROUPS}
    sweep = {path: takes for path, takes in _leaves((SweepConfig,), "") if path not in (*NOT_KEYS, "base.overrides")}
    below = {path: takes for path, takes in trial.items() if path.partition(".")[0] in (*GROUPS, "flags")}
    of_data = {path: takes for path, takes in trial.items() if path.startswith("data.")}
    table = {
        "programs": {
            "stackwise": {
                "options": _options(_callback(app), "root"),
                "commands": {_name(one): _command(one) for one in app.registered_commands},
            },
            "stackwise-analysis": {
                "options": {},
                "commands": {_name(one): _command(one) for one in _registered(analysis_module("__main__").app)},
            },
        },
        "paths": {
            "train": {**groups, **trial, "presets": {"files": ["/"]}},
            "sweep": {**sweep, **groups, **below},
            "evaluate": {"data": groups["data"], **of_data},
        },
    }
    return table, sorted(_plugin_files())


# --------------------------------------------------------------------------------------------------- the commands


def _registered(app: typer.Typer) -> Iterator[Any]:
    """The commands of an app, and of the apps that are added to it without a name."""
    yield from app.registered_commands
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from _registered(group.typer_instance)


def _name(command: Any) -> str:
    return str(command.name or command.callback.__name__)


def _callback(app: typer.Typer) -> Any:
    assert app.registered_callback is not None
    return app.registered_callback.callback


def _command(command: Any) -> dict[str, Any]:
    text = inspect.cleandoc(command.help or command.callback.__doc__ or "").partition("\n")[0]
    return {
        "help": text,
        "options": _options(command.callback, _name(command)),
        "words": _words(command.callback, _name(command)),
    }


def _parameters(callback: Any, kind: type) -> Iterator[tuple[str, Any, Any]]:
    """Name, type and typer's description of each parameter of a command that is of this kind."""
    for name, hint in typing.get_type_hints(callback, include_extras=True).items():
        for extra in typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ():
            if isinstance(extra, kind):
                yield name, typing.get_args(hint)[0], extra


def _options(callback: Any, command: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"--help": {"help": "Show this message and exit.", "takes": None}}
    for name, kind, info in _parameters(callback, typer.models.OptionInfo):
        if info.hidden:
            continue
        first = [info.default] if isinstance(info.default, str) else []  # where typer keeps it inside Annotated
        spelled = [word for declared in (*first, *(info.param_decls or ())) for word in declared.split("/")]
        for word in spelled or [f"--{name.replace('_', '-')}"]:
            takes = None if kind is bool else _taken(command, name, kind)
            found[word] = {"help": info.help or "", "takes": takes}
    return dict(sorted(found.items()))


def _words(callback: Any, command: str) -> list[Takes]:
    """What each argument takes; the last one may be repeated."""
    return [_taken(command, name, kind) for name, kind, _ in _parameters(callback, typer.models.ArgumentInfo)]


def _taken(command: str, name: str, kind: Any) -> Takes:
    """What an option or an argument of a command takes: where its type does not say it, by its name."""
    if name == "words":
        return {"paths": command}
    by_name: dict[str, Callable[[], Takes]] = {
        "new model": lambda: _presets("model"),
        "new data": lambda: {**_presets("data"), "files": ANY},
        "new against": lambda: {"values": every_word(), "paths": "train"},
        "root shell": lambda: {"values": dict.fromkeys(SCRIPTS, "")},
        "file": search_spaces,
        "source": lambda: {"files": ANY},
        "other": lambda: {"files": ANY},
        "plugin": lambda: {"files": PYTHON},
        "tasks": lambda: {**_entries(registries.TASKS), "list": True},
        "direction": lambda: _of_type(Direction),
        "equal": lambda: {"values": {**_of_analysis("table.blocks", "BUDGETS")["values"], "none": ""}},
        **{words: partial(_of_analysis, *place) for words, place in _ANALYSIS_CHOICES.items()},
    }
    found = by_name.get(f"{command} {name}") or by_name.get(name)
    if found is not None:
        return found()
    takes = _of_type(kind)
    return {"files": ANY} if not takes and _holds(kind, Path) else takes


def _of_analysis(module: str, name: str) -> Takes:
    """Choices that the analysis lists itself: its commands take text, so that a mistake is answered in its words."""
    return {"values": dict.fromkeys(getattr(analysis_module(module), name), "")}


def _presets(group: str) -> Takes:
    return {"values": dict.fromkeys(list_presets(group), "")}


def _holds(kind: Any, wanted: type) -> bool:
    return kind is wanted or any(_holds(part, wanted) for part in typing.get_args(kind))


def search_spaces() -> Takes:
    """The shipped search spaces with their questions, and files."""
    values = {}
    for name, file in shipped_search_spaces().items():
        try:
            values[name] = str(load_yaml(file).get("question", ""))
        except ConfigError:  # a file that somebody is writing has a name all the same
            values[name] = ""
    return {"values": values, "files": YAML}


# ------------------------------------------------------------------------------------------------- the dotted paths


def _leaves(components: tuple[SchemaPart, ...], prefix: str) -> Iterator[tuple[str, Takes]]:
    """Every path that has a value, with what it can be; over all alternatives."""
    found: dict[str, Takes] = {}
    below: dict[str, dict[SchemaPart, None]] = {}
    for component in (one for part in components for one in (part, *_alternatives(part))):
        for name, annotation in annotations_of(component).items():
            parts = () if _repeats(annotation) else components_in(annotation)
            below.setdefault(name, {}).update(dict.fromkeys(parts))
            if not parts or _holds(annotation, int):
                _add(found.setdefault(name, {}), _of_type(annotation))
        if isinstance(component, Alternatives):
            _add(found.setdefault(component.field, {}), _entries(component.registry))
    for name, deeper in below.items():
        path = f"{prefix}{name}"
        if deeper:
            yield from _leaves(tuple(deeper), f"{path}.")
        if name not in found:
            continue
        if path in _NAMED_ENTRIES:
            yield path, {**found[name], **_entries(_NAMED_ENTRIES[path])}
        else:
            yield path, {"files": ANY} if path in _FILE_PATHS else found[name]


def _repeats(annotation: Any) -> bool:
    """Whether a file lists things here, to which no path leads."""
    return typing.get_origin(annotation) is tuple and bool(components_in(annotation))


def _alternatives(part: SchemaPart) -> tuple[Any, ...]:
    return classes_of((part,)) if isinstance(part, Alternatives) else ()


def _add(found: Takes, more: Takes) -> None:
    found.setdefault("values", {}).update(more.get("values", {}))
    found["list"] = found.get("list", False) or more.get("list", False)


def _entries(registry: Any) -> Takes:
    return {"values": dict.fromkeys(registry.names(), "")}


def _of_type(annotation: Any) -> Takes:
    """The values that a type lists."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is bool:
        return {"values": {"true": "", "false": ""}}
    if origin is Literal:
        return {"values": {str(value): "" for value in arguments}}
    if origin is typing.Annotated:
        return _of_type(arguments[0])
    parts = [_of_type(part) for part in arguments]
    if origin in (tuple, list) and (annotation == tuple[str, ...] or any(parts)):
        return {"values": _merged(parts), "list": True}
    return {"values": _merged(parts)} if origin in (typing.Union, types.UnionType) and any(parts) else {}


def _merged(parts: list[Takes]) -> Mapping[str, str]:
    return {value: text for part in parts for value, text in part.get("values", {}).items()}


def _plugin_files() -> Iterator[str]:
    """The sources of the plugins that the table was made with."""
    for plugin in loaded():
        file = getattr(sys.modules.get(plugin.module), "__file__", None)
        if file is not None:
            folder = Path(file).parent
            yield from map(str, folder.glob("*.py") if Path(file).name == "__init__.py" else [Path(file)])
