"""The folder of prepared token streams: written once, shared by all processes of a machine, checked when read.

An entry is a folder named by the hash of everything that decides its content. It is built beside its place and
renamed into it, under a lock, so that a reader sees a whole entry or none and two preparers do the work once. What
an entry holds is the business of `stackwise_ray.data.preparing`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stackwise_ray.core.errors import ConfigError, DiskFullError

_BLOCK_BYTES, _N_BLOCKS = 4096, 32


def key_of(description: Mapping[str, Any]) -> str:
    """32 hex digits that name an entry by JSON data."""
    return hashlib.sha256(canonical(description)).hexdigest()[:32]


def canonical(data: Any) -> bytes:
    """One byte string for each JSON value, whatever the order of its keys."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def entry(root: Path, key: str, *, intact: Callable[[Path], bool], build: Callable[[Path], None]) -> tuple[Path, bool]:
    """The folder of an entry, built first where there is none or it is damaged.

    Args:
        root: Folder of all entries of one kind; made where it is missing.
        key: Name of the entry.
        intact: Whether a folder holds a whole entry.
        build: Fills an empty folder; what it raises is passed on and leaves nothing behind.

    Returns:
        The folder, and whether a damaged one stood in its place.

    Raises:
        ConfigError: The cache cannot be written.
        DiskFullError: The disk is full; nothing half-written is left.
    """
    place = root / key
    if intact(place):
        return place, False
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".{key}.lock"):
            if intact(place):  # another process has built it while this one waited
                return place, False
            # Nobody else builds this entry now, so what lies about is of processes that were killed.
            for left in root.glob(f".{key}.*.partial"):
                shutil.rmtree(left, ignore_errors=True)
            partial = root / f".{key}.{uuid.uuid4().hex[:8]}.partial"
            try:
                partial.mkdir()
                build(partial)
                damaged = place.exists()
                if damaged:
                    place.rename(root / f".{key}.{uuid.uuid4().hex[:8]}.partial")
                partial.rename(place)
            finally:
                for left in root.glob(f".{key}.*.partial"):
                    shutil.rmtree(left, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # full, beyond a quota, beyond a file's limit
            raise DiskFullError(
                f"there is no room for prepared data in {root} ({error.strerror}); free some space, or set "
                "STACKWISE_CACHE to another folder"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise ConfigError(
                f"prepared data cannot be written to {root} ({error.strerror}); set STACKWISE_CACHE to a writable "
                "folder"
            ) from error
        raise
    return place, damaged


def sample_digest(path: Path) -> str:
    """A hash over blocks spread evenly through a file: read in milliseconds whatever its size."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for i in range(_N_BLOCKS):
            file.seek(max(0, size - _BLOCK_BYTES) * i // (_N_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Exclusive use of an entry; the kernel ends it with its process, so none is ever left over."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
