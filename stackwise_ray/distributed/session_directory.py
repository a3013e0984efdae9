"""The private directory of a local Ray session: `session` makes it, the driver removes an abandoned one.

This module does not import Ray: the driver calls it first, and a sweep that is already done needs no Ray.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

_PREFIX = "stackwise-ray-"
_LONGEST_PARENT = 20  # bytes; Ray puts Unix sockets up to 87 bytes deeper, and the kernel allows 107


def private_directory() -> Path:
    """A new empty directory whose path is short enough for Ray's sockets."""
    parent = tempfile.gettempdir()
    if len(parent.encode()) > _LONGEST_PARENT:
        parent = "/tmp"  # a longer path would break Ray's sockets
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))


def remove_stale_directory(path: str | None) -> None:
    """Removes what a killed driver's session left; only a directory that a session of ours made."""
    if path and Path(path).name.startswith(_PREFIX):
        shutil.rmtree(path, ignore_errors=True)
