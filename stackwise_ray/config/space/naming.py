"""Names of generated arms: short, readable, unique, and fit to be a file name."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_UNFIT = re.compile(r"[^A-Za-z0-9_.+=,~-]+")


def short_keys(paths: Iterable[str]) -> dict[str, str]:
    """Each dotted path by the shortest of its endings that no other path shares.

    >>> short_keys(["training.lr", "model.mixer.n_heads", "model.n_heads"])
    {'training.lr': 'lr', 'model.mixer.n_heads': 'mixer.n_heads', 'model.n_heads': 'model.n_heads'}
    """
    return _shortest_endings(list(paths), ".")


def level_labels(values: Sequence[Any]) -> list[str]:
    """A label for each level of one factor, all different.

    >>> level_labels([0.001, None, ["a", "b"], {"kind": "none"}])
    ['0.001', 'null', 'a+b', 'none']
    """
    texts = [value for value in values if isinstance(value, str)]
    short = _shortest_endings(texts, "/")
    labels: list[str] = []
    for value in values:
        label = _UNFIT.sub("-", short[value] if isinstance(value, str) else _label(value)).strip("-") or "empty"
        numbered = itertools.chain([label], (f"{label}~{number}" for number in itertools.count(2)))
        labels.append(next(name for name in numbered if name not in labels))
    return labels


def point_name(point: Mapping[str, str], keys: Mapping[str, str]) -> str:
    """The name of a point from its labels by path, e.g. ``lr=0.001,n_layers=4``."""
    return ",".join(f"{keys[path]}={label}" for path, label in point.items()) or "base"


def _label(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value["kind"]) if set(value) == {"kind"} else _join(f"{k}.{_label(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return _join(_label(entry) for entry in value) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def _join(parts: Iterable[str]) -> str:
    return "+".join(parts)


def _shortest_endings(texts: Sequence[str], separator: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        parts = text.split(separator)
        for length in range(1, len(parts) + 1):
            ending = separator.join(parts[-length:])
            clashes = [other for other in texts if other != text and f"{separator}{other}".endswith(separator + ending)]
            if not clashes:
                break
        found[text] = ending
    return found
