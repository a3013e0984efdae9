"""Files that are there whole or not at all: written beside their place, then renamed. Called by `report`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> Path:
    """Write `text` (UTF-8) to `path` atomically, making its folder where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as strict JSON (no NaN, no Infinity) atomically."""
    return write_text(path, dump_json(value) + "\n")


def dump_json(value: Any) -> str:
    """Strict JSON of plain data, numpy scalars included; a number that is not finite becomes its name as text.

    >>> dump_json({"a": float("inf")})
    '{\\n  "a": "inf"\\n}'
    """
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def file_name(text: str) -> str:
    """`text` with everything that a file name should not hold replaced by "_".

    >>> file_name("lr=3e-4/wide")
    'lr=3e-4_wide'
    """
    kept = "".join(c if c.isalnum() or c in "-_.=+," else "_" for c in text).lstrip(".")
    return kept or "_"
