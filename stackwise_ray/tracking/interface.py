"""What a tracker is: something that shows a sweep elsewhere, fed from the journal and from nothing else.

The driver starts one tracker and may `notify` it after writing to the journal. A sweep never waits for its tracker, and
a tracker decides nothing. The journal keeps what could not be delivered, and the next run of the same sweep delivers
it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SweepEnding = Literal["finished", "failed", "interrupted"]
"""How the command ends: all done; done, but some trial failed; interrupted (it can be run again)."""


@dataclass(frozen=True, kw_only=True)
class Undelivered:
    """What a tracker still owed when it was closed.

    Attributes:
        reports: Rows of the journal that have not arrived.
        trials: Trials whose status or final metrics have not arrived.
        problem: Why, in the words of the store; None: there was no problem.
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
    """Shows one sweep elsewhere. The driver calls all methods; each but `close` returns at once."""

    @abstractmethod
    def start(self) -> None:
        """Begins to deliver, first what an earlier run left undelivered."""

    @abstractmethod
    def notify(self) -> None:
        """Announces new rows in the journal; without this call the tracker finds them a little later."""

    @abstractmethod
    def attach(self, path: Path, folder: str = "") -> None:
        """Shows a file or folder with the sweep, under `folder`; a later one of the same name replaces it."""

    @abstractmethod
    def close(self, timeout: float = 30.0, *, outcome: SweepEnding = "finished") -> Undelivered:
        """Delivers the rest, for at most `timeout` seconds, and ends; a second call returns the same answer.

        Call it before the journal is closed.
        """
