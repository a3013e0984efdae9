"""Files that are there whole or not at all: a temporary file in the same folder, fsync, rename.

Everything under a sweep directory that is not SQLite is written through here. A `fence` is called right before the
rename, so that a worker whose attempt was superseded meanwhile leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stackwise_ray.core.errors import DiskFullError

Fence = Callable[[], None]
"""Called right before a rename; raises (`StaleAttemptError`) where the write must not become visible."""

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextlib.contextmanager
def disk_full_is_named(path: str | Path) -> Iterator[None]:
    """Turns "no space left" and "quota exceeded" inside the block into a `DiskFullError` that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(
                f"{path}: {os.strerror(error.errno or 0).lower()}; free some space and run the same command again"
            ) from error
        raise


@contextlib.contextmanager
def atomic_path(path: str | Path, *, fence: Fence | None = None) -> Iterator[Path]:
    """A temporary path beside `path`, for a library that writes a file itself; renamed when the block ends well.

    The suffix of `path` is kept (libraries choose the format by it). Missing parent folders are made. Where the block
    or the fence raises, the temporary file is removed and `path` is as it was.

    Raises:
        DiskFullError: The disk filled up while writing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        with disk_full_is_named(path):
            yield temporary
            sync(temporary)
            if fence is not None:
                fence()
            os.replace(temporary, path)
            sync(path.parent)
    except OSError as error:
        if error.filename in (temporary, str(temporary)):
            error.filename = str(path)  # the name that a reader of the message knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: str | Path, data: bytes, *, fence: Fence | None = None) -> None:
    """Writes `data` to `path`, whole or not at all.

    Raises:
        DiskFullError: The disk is full; `path` is as it was.
    """
    with atomic_path(path, fence=fence) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: str | Path, text: str, *, fence: Fence | None = None) -> None:
    """Writes `text` as UTF-8 to `path`, whole or not at all (see `atomic_write_bytes`)."""
    atomic_write_bytes(path, text.encode(), fence=fence)


def atomic_write_json(path: str | Path, value: Any, *, fence: Fence | None = None) -> None:
    """Writes `value` as indented JSON, whole or not at all (see `atomic_write_bytes`).

    Raises:
        ValueError: `value` holds NaN or infinity, which JSON does not have.
    """
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", fence=fence)


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
