"""What readers of other programs' records share: nested settings as columns, a library on use, one object of JSON.

Called by the modules beside it. It knows no format.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

from stackwise_ray.core.errors import AnalysisError

from .source_kind import SourceRows, columns_met, without_empty


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names; lists as JSON text, and what is None left out.

    >>> flattened({"optimizer": {"name": "adam", "betas": [0.9, 0.95]}, "seed": 0, "notes": None})
    {'optimizer.name': 'adam', 'optimizer.betas': '[0.9, 0.95]', 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{name}.")
        elif isinstance(value, (list, tuple)):
            flat[name] = json.dumps(value, default=str)
        elif value is not None:
            flat[name] = value
    return flat


def beside(row: dict[str, Any], settings: Mapping[str, Any], prefix: str) -> None:
    """Add settings to a row under their names where these are free, else as `prefix/name`.

    >>> row = {"loss": 2.0}
    >>> beside(row, {"loss": "huber", "lr": 0.1}, "parameters")
    >>> row
    {'loss': 2.0, 'parameters/loss': 'huber', 'lr': 0.1}
    """
    for key, value in settings.items():
        row[key if key not in row else f"{prefix}/{key}"] = value


def place_in(folder: Path, inside: Path) -> dict[str, str]:
    """The name of a run by its folder: the path below the source, and its parts as `path/1`, `path/2` …

    >>> place_in(Path("runs"), Path("runs/adam/seed_0"))
    {'run_name': 'adam/seed_0', 'path/1': 'adam', 'path/2': 'seed_0'}
    """
    parts = PurePath(inside.relative_to(folder)).parts
    if len(parts) < 2:
        return {"run_name": parts[0] if parts else folder.resolve().name}
    return {"run_name": "/".join(parts), **{f"path/{level}": part for level, part in enumerate(parts, 1)}}


def parted(source: str) -> tuple[str, str | None]:
    """A source without what is named after its '#', and that; a '#' in the name of a file is part of it.

    >>> parted("results#items"), parted("results")
    (('results', 'items'), ('results', None))
    """
    if "#" not in source or Path(source).exists():
        return source, None
    where, _, part = source.rpartition("#")
    return where, part


def sqlite_tables(path: Path) -> frozenset[str]:
    """The names of the tables of an SQLite file; none where it is another file, or not there."""
    if not path.is_file():
        return frozenset()
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except sqlite3.DatabaseError:
        return frozenset()
    return frozenset(name for (name,) in found)


def as_source(rows: list[dict[str, Any]], notes: list[str], directions: Mapping[str, str] | None = None) -> SourceRows:
    """Rows of a source that has no heading."""
    filled = [without_empty(row) for row in rows]
    return SourceRows(rows=filled, columns=columns_met(rows), notes=notes, directions=directions or {})


def library(module: str, package: str, what: str) -> Any:
    """The module of a library that reads `what`, imported on use.

    Raises:
        AnalysisError: It is not installed; the message has the command.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise AnalysisError(
            f"{what} are read with {package}, which cannot be imported ({error}); pip install {package}"
        ) from error


def json_object(path: Path, what: str) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        AnalysisError: The file cannot be read, is no JSON, or holds no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # a JSON or an encoding error is a ValueError
        raise AnalysisError(f"{path}: cannot be read as {what} ({error}); write or copy this file again") from error
    if not isinstance(content, dict):
        raise AnalysisError(f"{path}: {what} is an object {{…}}, and this file holds a {type(content).__name__}")
    return content
