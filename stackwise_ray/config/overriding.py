"""Command-line words over a search-space file.

`path=value` addresses the file: `replicates.seeds=2`, `base.model=decoder/gpt2_family/tiny`,
`design.arms.attention.training.lr=1e-3`. A path that begins with a trial group (`model.`, `data.`, `training.`,
`optimizer.`) is short for the same key in `base.overrides`, as is `flags`; a bare group chooses the base's preset.
Inside mappings of dotted trial paths (overrides, arms, spaces) a word replaces what it covers, so that
`training.budget.tokens=1e6` takes the place of a budget of FLOPs.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from stackwise_ray.config.space.domains import DOMAIN_NAMES
from stackwise_ray.config.space.sweep_config import NOT_KEYS, SweepConfig
from stackwise_ray.config.trial import paths
from stackwise_ray.config.trial.paths import overlap
from stackwise_ray.core.errors import ConfigError, did_you_mean

COMMAND_LINE = "command line"

_KEYS = tuple(entry.name for entry in dataclasses.fields(SweepConfig) if entry.name not in NOT_KEYS)
_NAMED = ("design.arms", "design.sizes")
_SPACES = ("design.factors", "tune.space", "search.space")


def apply_overrides(document: Mapping[str, Any], words: Sequence[tuple[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """The document with each word's value at its path.

    Args:
        words: (path, parsed value) in order.

    Returns:
        The changed copy, and the paths in it that the words wrote (for the source of an error).

    Raises:
        ConfigError: A path leads through a value that is no mapping, an arm is unknown, or two words give one budget.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(document))
    written: list[str] = []
    budgets: dict[str, str] = {}
    for word, value in words:
        path = _full_path(word)
        _refuse_second_budget(path, word, budgets)
        _set(changed, path, value)
        written.append(path)
    return changed, written


def _full_path(path: str) -> str:
    if path == "flags":
        return "base.overrides.flags"
    group, _, rest = path.partition(".")
    if group not in paths.GROUPS:
        if group not in _KEYS:
            known = (*_KEYS, *paths.GROUPS)
            raise ConfigError(f"unknown key; {did_you_mean(group, known)}", path=group, source=COMMAND_LINE)
        return path
    return f"base.overrides.{path}" if rest else f"base.{path}"


def _refuse_second_budget(path: str, word: str, budgets: dict[str, str]) -> None:
    for name in (paths.BUDGET, paths.MAX_STEPS):
        head, found, rest = path.partition(name)
        if found and rest[:1] in ("", "."):
            other = budgets.setdefault(head, word)
            if other != word:
                problem = f"and {other} both give the budget; give exactly one of flops, tokens, steps, wall_seconds"
                raise ConfigError(problem, path=word, source=COMMAND_LINE)


def _set(document: dict[str, Any], path: str, value: Any) -> None:
    if path.startswith("base.overrides."):
        edits = _mapping(document, "base.overrides")
        return _set_edit(edits, path.removeprefix("base.overrides."), value)
    for place in _NAMED:
        if path.startswith(f"{place}."):
            return _set_arm(_mapping(document, place), path.removeprefix(f"{place}."), value, place)
    for space in _SPACES:
        if path.startswith(f"{space}."):
            return _set_domain(_mapping(document, space), path.removeprefix(f"{space}."), value)
    parent, _, name = path.rpartition(".")
    holder = _walk(document, parent, path) if parent else document
    if isinstance(holder, list):
        holder[_index(holder, name, path)] = value
    else:
        holder[name] = value
    return None


def _set_arm(arms: dict[str, Any], rest: str, value: Any, place: str) -> None:
    names = sorted((name for name in arms if rest == name or rest.startswith(f"{name}.")), key=len)
    if not names:
        if "." in rest:
            name = rest.partition(".")[0]
            problem = f"there is no {place.removeprefix('design.')[:-1]} '{name}'; {did_you_mean(name, arms)}"
            raise ConfigError(problem, path=f"{place}.{rest}", source=COMMAND_LINE)
        arms[rest] = value
        return
    name = names[-1]
    if rest == name:
        arms[name] = value
        return
    if arms[name] is None:
        arms[name] = {}
    _set_edit(arms[name], rest.removeprefix(f"{name}."), value)


def _set_edit(edits: dict[str, Any], path: str, value: Any) -> None:
    """Set one dotted path in a mapping of dotted paths, in place of what it covers there."""
    if path.startswith((paths.BUDGET, paths.MAX_STEPS)):
        for key in [key for key in edits if key == paths.MAX_STEPS or overlap(key, paths.BUDGET)]:
            if key != "training":
                del edits[key]
        if isinstance(edits.get("training"), dict):
            edits["training"].pop("budget", None)
            edits["training"].pop("max_steps", None)
        edits[path] = value
        return
    for key in [key for key in edits if key == path or key.startswith(f"{path}.")]:
        del edits[key]
    for key, below in edits.items():
        if path.startswith(f"{key}.") and isinstance(below, dict):
            _set_edit(below, path.removeprefix(f"{key}."), value)
            return
    edits[path] = value


def _set_domain(space: dict[str, Any], path: str, value: Any) -> None:
    """Set a factor's whole domain (`training.lr=[…]`) or a part of it (`training.lr.log_uniform=[…]`)."""
    names = path.split(".")
    for length in range(len(names), 0, -1):
        key = ".".join(names[:length])
        rest = ".".join(names[length:])
        if key in space or _may_be_factor(key, names[length:]):
            if not rest:
                space[key] = value
            elif isinstance(space.get(key), dict):
                if rest.partition(".")[0] != "when":
                    space[key] = {"when": space[key]["when"]} if "when" in space[key] else {}
                _set(space[key], rest, value)
            else:
                space[key] = {rest: value}
            return
    space[path] = value


def _may_be_factor(key: str, rest: list[str]) -> bool:
    """Whether `key` ends where a factor's path ends: at a leaf or group of a trial, or before a part of a domain."""
    if rest and rest[0] in (*DOMAIN_NAMES, "when"):
        return True
    return not rest and (key in paths.GROUPS or paths.is_trial_path(key))


def _mapping(document: dict[str, Any], path: str) -> dict[str, Any]:
    found = _walk(document, path, path)
    assert isinstance(found, dict)
    return found


def _walk(document: dict[str, Any], path: str, word: str) -> Any:
    """The mapping or list at `path`, made where it is absent or null."""
    here: Any = document
    for name in path.split("."):
        if isinstance(here, list):
            here = here[_index(here, name, word)]
            continue
        if here.get(name) is None:
            here[name] = {}
        here = here[name]
        if not isinstance(here, (dict, list)):
            problem = f"'{name}' is {here!r}, which has no keys of its own; set '{name}' itself"
            raise ConfigError(problem, path=word, source=COMMAND_LINE)
    return here


def _index(entries: list[Any], name: str, word: str) -> int:
    if not name.isdecimal() or int(name) >= len(entries):
        problem = f"'{name}' is not an entry of this list of {len(entries)}; the first entry is 0"
        raise ConfigError(problem, path=word, source=COMMAND_LINE)
    return int(name)
