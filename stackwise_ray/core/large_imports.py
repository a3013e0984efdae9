"""Loading large libraries: the garbage collector waits meanwhile."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """For imports of torch and what is as large.

    They make millions of objects that stay, which the collector would go through again and again: an eighth of the time
    that a worker takes to start.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
