"""What a tracker is: something that shows a sweep elsewhere, fed from the journal and from nothing else.

The driver starts one tracker and may `notify` it after writing to the journal. A tracker never holds a sweep up and
never decides anything; what it could not deliver, the next run of the same sweep delivers, since the journal keeps it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SweepEnding = Literal["finished", "failed", "interrupted"]
"""How the command ends: all done; done, but some trial failed; cut short (it can be run again)."""


@dataclass(frozen=True, kw_only=True)
class Undelivered:
    """What a tracker still owed when it was closed.

    Attributes:
        reports: Rows of the journal that have not arrived.
        trials: Trials whose status or final metrics have not arrived.
        problem: What stood in the way, in the words of the store; None where nothing did.
    """

    reports: int = 0
    trials: int = 0
    problem: str | None = None

    def __bool__(self) -> bool:
        return bool(self.reports or self.trials)

    def __str__(self) -> str:
        if not self:
            return "everything was delivered"
        why = f" ({self.problem})" if self.problem else ""
        return f"{self.reports} reports and the state of {self.trials} trials wait in the journal{why}"


class Tracker(ABC):
    """Shows one sweep elsewhere; all methods are called by the driver and return at once, but for `close`."""

    @abstractmethod
    def start(self) -> None:
        """Begins to deliver, first what an earlier run left undelivered."""

    @abstractmethod
    def notify(self) -> None:
        """Says that the journal has something new; without it the tracker finds out by itself a little later."""

    @abstractmethod
    def attach(self, path: Path, folder: str = "") -> None:
        """Shows a file or folder with the sweep, under `folder`; a later one of the same name replaces it."""

    @abstractmethod
    def close(self, timeout: float = 30.0, *, outcome: SweepEnding = "finished") -> Undelivered:
        """Delivers the rest, for at most `timeout` seconds, and ends; a second call returns the same answer.

        Call it before the journal is closed.
        """
