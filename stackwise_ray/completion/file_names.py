"""Files and folders as candidates of a completion."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence


def file_candidates(begun: str, endings: Sequence[str] = ()) -> Iterator[str]:
    """Files with one of the endings (any, where none is given) and folders, which end in ``/``.

    Args:
        begun: What is typed of the path, which may begin with ``~``.
    """
    folder, name = os.path.split(begun)
    try:
        entries = sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if not entry.name.startswith(name) or (entry.name.startswith(".") and not name.startswith(".")):
            continue
        path = os.path.join(folder, entry.name)
        if entry.is_dir():
            yield f"{path}/"
        elif not endings or entry.name.endswith(tuple(endings)):
            yield path
