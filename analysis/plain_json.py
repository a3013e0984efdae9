"""Strict JSON of results, numpy scalars included. Called by the report, the command line and benchmarks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stackwise_ray.core.atomic import atomic_write_text


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as strict JSON (see `dump_json`), whole or not at all, and return `path`."""
    atomic_write_text(path, dump_json(value) + "\n")
    return path


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
