"""The table of what can be completed, kept in the user's cache.

The file's name contains the version and where Python looks for packages. The file contains the table, and the state of
every file and folder that the table was made of: our own files, those of the plugins, and the folders in which packages
are installed. A table is used while all of them are unchanged. A stale or damaged one is made again.

The state of a file is its size and its time of change. Hashing more than 400 files would cost more than a TAB may take,
and a change that keeps both shows a stale list of candidates at worst. What a trial or a sweep records of a plugin is
its hash.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stackwise_ray.core.cache_place import cache_directory
from stackwise_ray.core.version import VERSION

Collect = Callable[[], tuple[dict[str, Any], list[str]]]
FORMAT = 1
"""Raised when the table changes its form."""
_PLACE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_OURS = ("stackwise_ray", "analysis", "search_spaces")


def completion_table(collect: Collect) -> dict[str, Any]:
    """The kept table where it is still true, else one that is made now and kept.

    Args:
        collect: Makes a table, and names the files of plugins that it was made of.
    """
    file = table_file()
    kept = _kept(file)
    if kept is not None:
        return kept
    state = _state(_our_files())  # before it is made: what changes meanwhile makes it stale
    table, plugin_files = collect()
    _keep(file, {"state": state | _state(plugin_files), "table": table})
    return table


def table_file() -> str:
    """Where the table of this installation is kept."""
    told = "\0".join((VERSION, str(FORMAT), _PLACE, sys.prefix, *_package_folders()))
    return str(cache_directory() / f"completion-{VERSION}-{zlib.crc32(told.encode()):08x}.json")


def _kept(file: str) -> dict[str, Any] | None:
    """A table that was kept and is true; None where there is none."""
    try:
        with open(file, encoding="utf-8") as stream:
            content = json.load(stream)
        state, table = content["state"], content["table"]
        true = isinstance(table, dict) and {"programs", "paths"} <= table.keys() and state == _state(state)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return table if true else None


def _keep(file: str, content: dict[str, Any]) -> None:
    """Keep a table, whole or not at all; where the cache cannot be written, each TAB makes it again."""
    from stackwise_ray.core.atomic import atomic_write_text  # here alone: a TAB that finds its table does without it
    from stackwise_ray.core.errors import DiskFullError

    with contextlib.suppress(OSError, DiskFullError):
        atomic_write_text(file, json.dumps(content))


def _state(paths: Iterable[str]) -> dict[str, list[int] | None]:
    """Time of change and size of each file or folder; None for one that is not there."""
    found: dict[str, list[int] | None] = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            found[path] = None
        else:
            found[path] = [status.st_mtime_ns, status.st_size]
    return found


def _our_files() -> Iterator[str]:
    """Our own sources and presets with their folders, and the folders in which packages are installed."""
    yield from _package_folders()
    for name in _OURS:
        for folder, folders, files in os.walk(os.path.join(_PLACE, name)):
            folders[:] = [one for one in folders if one != "__pycache__"]
            if os.path.basename(folder) != "__pycache__":
                yield folder
            yield from (os.path.join(folder, file) for file in files if file.endswith((".py", ".yaml")))


def _package_folders() -> Iterator[str]:
    """Where Python looks for packages, but for the folder of the script that was started."""
    return (path for path in sys.path[1:] if path)
