"""Validation by pydantic, and its errors in the words of this program.

`validate` turns plain data (what YAML gives) into a frozen dataclass, strictly: no key too many, no text where a
number is wanted, no silent conversion. Every refusal is one `ConfigError` with file, dotted path, value and fix.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

from pydantic import ValidationError

from stackwise_ray.config.trial.paths import SchemaPart, children, chosen_component, suggest_key
from stackwise_ray.config.trial.registered import UNKNOWN_ENTRY, Alternatives, OptionsByName, adapter, field_names
from stackwise_ray.core.errors import ConfigError, did_you_mean, nearest

T = TypeVar("T")


class Origin(NamedTuple):
    """Where a value was written: file (or "command line") and dotted path in it."""

    source: str | None
    path: str


Locate = Callable[[str], Origin]

_UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
"""What pydantic calls a key that a class does not have."""


def validate(kind: type[T], plain: Any, *, source: str | None = None, locate: Locate | None = None) -> T:
    """`plain` as a `kind`.

    Args:
        plain: JSON-like data. Validation runs on its JSON form, in which a list is what a tuple field wants and
            nothing else is converted.
        locate: From a dotted path of `kind` to where that value was written; the path itself if absent.

    Raises:
        ConfigError: For the first thing that is wrong; the number of others is named.
    """
    find = locate or (lambda path: Origin(source, path))
    _refuse_foreign(plain, "", find)
    try:
        valid: T = adapter(cast(Any, kind)).validate_json(json.dumps(plain))
        return valid
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # An unknown key is the likely cause of a missing one: `lerning_rate` makes `lr` absent.
        problems.sort(key=_rank)
        raise _translate(kind, plain, problems, find) from None


def _rank(problem: Any) -> int:
    """Unknown keys first; a list or number that is no literal last, since another branch of the union says more."""
    if problem["type"] in _UNKNOWN_KEY:
        return 0
    return 2 if problem["type"] == "literal_error" and not isinstance(problem["input"], str) else 1


def _refuse_foreign(plain: Any, path: str, find: Locate) -> None:
    """Refuse what JSON cannot hold (a date, an array, an infinite number) where it stands."""
    if isinstance(plain, Mapping):
        for key, value in plain.items():
            if not isinstance(key, str):
                origin = find(path)
                raise ConfigError(f"the key {key!r} is not text", path=origin.path or None, source=origin.source)
            _refuse_foreign(value, f"{path}.{key}" if path else key, find)
    elif isinstance(plain, (list, tuple)):
        for number, value in enumerate(plain):
            _refuse_foreign(value, f"{path}.{number}", find)
    elif isinstance(plain, float) and not math.isfinite(plain):
        origin = find(path)
        raise ConfigError(f"= {plain} is not a finite number", path=origin.path, source=origin.source)
    elif plain is not None and not isinstance(plain, (str, int, float, bool)):
        origin = find(path)
        problem = f"= {plain!r} is a {type(plain).__name__}; give a number, text, true, false, null, list or mapping"
        raise ConfigError(problem, path=origin.path, source=origin.source)


def _translate(kind: type, plain: Any, problems: list[Any], find: Locate) -> ConfigError:
    problem = problems[0]
    path, holder, components = _own_path(kind, plain, problem["loc"])
    registered = components[0] if len(components) == 1 else None
    if problem["type"] == "union_tag_invalid":
        path.append("kind")
    if problem["type"] == UNKNOWN_ENTRY and isinstance(registered, Alternatives):
        text = registered.unknown(registered.name_in(problem["input"]))
        path.append(registered.field)
    elif problem["type"] == UNKNOWN_ENTRY and isinstance(registered, OptionsByName):
        text = registered.unknown(problem["ctx"]["name"])
        path.append(problem["ctx"]["name"])
    else:
        text = _explain(problem, path[-1] if path else "", holder, _kinds(components), bool(components))
    origin = find(".".join(path))
    if path and path[0] == origin.path.partition(".")[0] and _of_another_entry(problem, path[-1], holder):
        text += f" (or the preset of {path[0]} that brings it)"  # written in no file's own place
    if problem["type"] == "literal_error" and any(other["type"] == "tuple_type" for other in problems[1:]):
        text += " (or give a list)"
    if len(problems) > 1:
        paths = {tuple(_own_path(kind, plain, other["loc"])[0]) for other in problems[1:]}
        others = {".".join(other) for other in paths if tuple(path[: len(other)]) != other}
        text += f" (also wrong: {', '.join(sorted(others)[:4])})" if others else ""
    return ConfigError(text, path=origin.path or None, source=origin.source)


_BRANCH = re.compile(r"(literal|tuple)\[")
"""How pydantic marks the branch of a union of plain types in a location."""


@dataclass(frozen=True)
class _Holder:
    """What holds the name at which something is wrong.

    Attributes:
        component: Its class, where the mapping says which.
        among: All that might stand there.
        name: The registered entry whose options it holds; None: no entry's.
    """

    component: SchemaPart | None
    among: tuple[SchemaPart, ...]
    name: Any = None


def _own_path(
    kind: type, plain: Any, location: tuple[int | str, ...]
) -> tuple[list[str], _Holder, tuple[SchemaPart, ...]]:
    """The location without pydantic's union tags, what holds its last name, and what may stand there."""
    components: tuple[SchemaPart, ...] = (kind,)
    path: list[str] = []
    holder = _Holder(None, ())
    for name in location:
        if len(components) > 1 and (chosen := _of_kind(components, str(name))):
            components = (chosen,)  # `name` is the tag of a union, not a key
            continue
        if _BRANCH.match(str(name)):
            continue
        only = components[0] if len(components) == 1 else None
        entry = only.name_in(plain) if isinstance(only, Alternatives) else None
        holder = _Holder(chosen_component(components, plain), components, entry)
        path.append(str(name))
        here = components if holder.component is None else (holder.component,)
        components = children(here).get(str(name), components if isinstance(name, int) else ())
        plain = _below(plain, name)
    return path, holder, components


def _below(plain: Any, name: int | str) -> Any:
    if isinstance(plain, Mapping):
        return plain.get(name)
    return plain[name] if isinstance(plain, (list, tuple)) and isinstance(name, int) and name < len(plain) else None


def _kinds(components: tuple[SchemaPart, ...]) -> list[str]:
    return [kind for component in components if isinstance(kind := getattr(component, "kind", None), str)]


def _of_kind(components: tuple[SchemaPart, ...], tag: str) -> SchemaPart | None:
    for component in components:
        if getattr(component, "kind", None) == tag or tag == getattr(component, "__name__", None):
            return component
    return None


def _explain(problem: Any, name: str, holder: _Holder, kinds: list[str], is_component: bool) -> str:
    """One of pydantic's errors in our words: value first where there is one, the fix last."""
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind in _UNKNOWN_KEY:
        return _of_another_entry(problem, name, holder) or _explain_unknown_key(name, holder)
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        registered = holder.among[0] if len(holder.among) == 1 else None
        if isinstance(registered, Alternatives) and name not in field_names(registered.base):
            fix = "; give its options, or {} for their defaults" if is_component else ""
            return f"is required with {registered.field}: {holder.name}, but it is absent{fix}"
        return "is required, but it is absent; add it"
    if kind == "union_tag_not_found":
        return f"needs a kind; choose one of {', '.join(kinds)}"
    if kind == "union_tag_invalid":
        tag = str(context.get("tag"))
        return f"= {tag} is unknown; {did_you_mean(tag, kinds)}"
    if kind == "literal_error":
        allowed = [part.strip("'") for part in context["expected"].replace(" or ", ", ").split(", ")]
        return f"= {show(value)} is unknown; {did_you_mean(str(value), allowed)}"
    if kind in ("float_type", "int_type"):
        return _explain_number(kind, value)
    if kind == "string_type" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return f'= {show(value)} is a number; it must be text: write it in quotes: "{value}"'
    wanted = _WANTED.get(kind)
    if wanted is not None:
        return f"= {show(value)} is {describe(value)}; it must be {wanted}"
    for key, words in (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most")):
        if key in context:
            return f"= {show(value)} is out of range; it must be {words} {show(context[key])}"
    if kind == "string_pattern_mismatch":
        return (
            f"= {show(value)} cannot be a name, because names are also file names; use letters, digits and _ . "
            "+ = , ~ -"
        )
    if kind == "too_short":
        return f"= {show(value)} has too few entries; it needs {context['min_length']}"
    if kind == "too_long":
        return f"= {show(value)} has too many entries; it may have {context['max_length']}"
    return f"= {show(value)}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def _of_another_entry(problem: Any, name: str, holder: _Holder) -> str | None:
    """Why a key has no effect beside the registered entry that is chosen; None where it is no other entry's."""
    registered = holder.among[0] if len(holder.among) == 1 else None
    if problem["type"] in _UNKNOWN_KEY and isinstance(registered, Alternatives):
        return registered.refusal(name, holder.name, problem["input"])
    return None


def _explain_unknown_key(name: str, holder: _Holder) -> str:
    here = holder.among if holder.component is None else (holder.component,)
    keys = [key for key in children(here) if key != "kind"]
    if len(holder.among) == 1 and isinstance(holder.among[0], Alternatives):
        keys += [key for key in children(holder.among) if key not in keys and nearest(name, keys) is None]
    kind_here = "".join(_kinds(here)) if len(here) == 1 else ""
    head = f"kind {kind_here} has no such key" if kind_here else "unknown key"
    return f"{head}; {suggest_key(name, keys) if keys else 'leave it out'}"


_WANTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
    "dataclass_exact_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def _explain_number(kind: str, value: Any) -> str:
    wanted = "a whole number" if kind == "int_type" else "a number"
    if isinstance(value, float) and value.is_integer():
        return f"= {show(value)} is not written as a whole number; write {int(value)}"
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            listed = "," in value and all(_is_number(part) for part in value.split(","))
            hint = "; to try several values, use design.kind: grid, or --multirun" if listed else ""
            return f"= {show(value)} is text; it must be {wanted}{hint}"
        if not math.isfinite(number):
            return f"= {show(value)} is not a finite number; it must be {wanted}"
        plain = str(int(number)) if kind == "int_type" and number.is_integer() else value.strip()
        return f"= {show(value)} is text; it must be {wanted}: write it without quotes: {plain}"
    return f"= {show(value)} is {describe(value)}; it must be {wanted}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def show(value: Any, *, longest: int = 80) -> str:
    """A value as a message shows it: YAML-like, text in quotes, never more than a line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def describe(value: Any) -> str:
    """What a value is, in the words of a YAML file."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a mapping" if isinstance(value, Mapping) else "a list"
