"""Runs in JSON: one object per line (JSON lines), or a list of objects. Nested objects become dotted columns.

Called by `kinds`. A line that is no whole object is refused by its number: a file that was cut off lacks runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stackwise_ray.core.errors import AnalysisError

from .foreign import flattened
from .source_kind import SourceKind, SourceRows, columns_met, without_empty

LINES = (".jsonl", ".ndjson", ".jsonlines")


def read_lines(source: str) -> SourceRows:
    """The rows of a file with one object per line.

    Raises:
        AnalysisError: Not UTF-8, no line, or a line that is no whole object.
    """
    rows = []
    for number, line in enumerate(_text(source).split("\n"), 1):
        if line.strip():
            rows.append(_object(source, number, line))
    if not rows:
        raise AnalysisError(f"{source}: the file is empty; write one JSON object per line, one line per run")
    return _as_rows(source, rows)


def read_list(source: str) -> SourceRows:
    """The rows of a file with one list of objects.

    Raises:
        AnalysisError: No JSON, or something else than a list of objects.
    """
    text = _text(source)
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except ValueError as error:
        if not isinstance(error, json.JSONDecodeError):
            raise AnalysisError(f"{source}: {error}") from error
        lines = text.strip().split("\n")
        if len(lines) > 1 and lines[0].rstrip().endswith("}"):
            raise AnalysisError(f"{source}: one object per line is JSON lines; rename the file to .jsonl") from error
        raise AnalysisError(f"{source}: no whole JSON ({error}); write or copy the file again") from error
    if not isinstance(content, list) or not content or not all(isinstance(item, dict) for item in content):
        raise AnalysisError(
            f"{source}: a table in JSON is a list of objects, one per run; pandas writes it with to_json(FILE, "
            f"orient='records')"
        )
    return _as_rows(source, content)


def _as_rows(source: str, objects: list[dict[str, Any]]) -> SourceRows:
    rows = [flattened(item) for item in objects]
    for number, (item, row) in enumerate(zip(objects, rows, strict=True), 1):
        if len(row) < _leaves(item):
            raise AnalysisError(
                f"{source}: run {number} has two values under one dotted name, as of {{a.b: …, a: {{b: …}}}}"
            )
    return SourceRows(rows=[without_empty(row) for row in rows], columns=columns_met(rows))


def _leaves(item: Mapping[str, Any]) -> int:
    """How many values an object holds, those of nested objects included."""
    values = [value for value in item.values() if value is not None]
    return sum(_leaves(value) if isinstance(value, dict) else 1 for value in values)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, refused where it names a key twice: Python would keep the last value without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{twice}' stands twice in one object; keep one")
    return found


def _object(source: str, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line, object_pairs_hook=_once)
    except ValueError as error:
        if not isinstance(error, json.JSONDecodeError):
            raise AnalysisError(f"{source}: line {number}: {error}") from error
        raise AnalysisError(
            f"{source}: line {number} is no whole JSON object ({error}); was the file cut off, or is it still being "
            f"written? Write the line whole, or remove it"
        ) from error
    if not isinstance(found, dict):
        raise AnalysisError(f"{source}: line {number} holds {line.strip()[:40]}, and a run is an object {{…}}")
    return found


def _text(source: str) -> str:
    try:
        return Path(source).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise AnalysisError(f"{source}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise AnalysisError(f"{source}: not a text file in UTF-8 ({error.reason}); save it in that encoding") from error


LINES_KIND = SourceKind(
    name="json_lines",
    described="JSON lines, one object per run (.jsonl)",
    recognises=lambda source: Path(source).suffix.lower() in LINES and Path(source).is_file(),
    read=read_lines,
)
LIST_KIND = SourceKind(
    name="json",
    described="a list of objects (.json)",
    recognises=lambda source: Path(source).suffix.lower() == ".json" and Path(source).is_file(),
    read=read_list,
)
