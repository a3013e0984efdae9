"""Signatures of callbacks that report how far a long piece of work is: preparing data, scoring a task, starting Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

ProgressCallback: TypeAlias = Callable[[str, int, int | None], None]
"""Called with (what is being done, done so far, total or None): at the start, then about twice per second."""


class WaitingLine(Protocol):
    """A `ProgressCallback` that shows what a command waits for, until it is cleared."""

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        """What is waited for from now on, and how far it is."""

    def clear(self) -> None:
        """Nothing is waited for any more."""


class NoWaitingLine:
    """Shows nothing."""

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        """Nothing, as `clear` does."""

    def clear(self) -> None:
        """Nothing."""
