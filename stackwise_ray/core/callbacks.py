"""The signature of what is told how far a long piece of work is: preparing data, scoring a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

ProgressCallback: TypeAlias = Callable[[str, int, int | None], None]
"""Called with (what is being done, done so far, total or None): at the start, then about twice per second."""
