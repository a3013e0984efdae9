"""A tracker that keeps everything in memory: what the journal feeds to a tracker can be looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stackwise_ray.core.records import Status
from stackwise_ray.tracking.feed import JournalFeed, Point, TrialState, run_name, settings
from stackwise_ray.tracking.interface import SweepEnding, Tracker, Undelivered


@dataclass(kw_only=True)
class RecordedRun:
    """One trial as it was tracked: settings by dotted path, points in the order of their arrival."""

    name: str
    settings: dict[str, str]
    status: Status = "running"
    points: list[Point] = field(default_factory=list)

    def history(self, metric: str) -> list[tuple[int, float]]:
        """(step, value) of one metric; a step that was measured twice with different values comes twice."""
        return [(point.step, point.value) for point in self.points if point.name == metric]


class InMemoryTracker(Tracker):
    """Holds the runs of a sweep in `runs`, by trial id; up to date after each `notify` and after `close`.

    Args:
        journal_path: The sweep's journal.
    """

    def __init__(self, journal_path: str | Path) -> None:
        self.runs: dict[str, RecordedRun] = {}
        self.attachments: dict[str, Path] = {}
        self.outcome: SweepEnding | None = None
        self._path = Path(journal_path)
        self._cursor = 0
        self._states: dict[str, TrialState] = {}

    def start(self) -> None:
        """Reads what the journal holds already."""
        self._read()

    def notify(self) -> None:
        """Reads what is new."""
        if self.outcome is None:
            self._read()

    def attach(self, path: Path, folder: str = "") -> None:
        """Notes the path of the file under its name."""
        self.attachments[f"{folder}/{path.name}" if folder else path.name] = path

    def close(self, timeout: float = 30.0, *, outcome: SweepEnding = "finished") -> Undelivered:
        """Reads the rest; nothing is ever left undelivered."""
        if self.outcome is None:
            self._read()
            self.outcome = outcome
        return Undelivered()

    def _read(self) -> None:
        feed = JournalFeed(self._path)
        try:
            states = feed.states()
            for row, record in feed.reports(after=self._cursor, limit=-1):
                self._run(feed, record.trial_id).points += feed.points(row, record)
                self._cursor = row
            for trial_id, state in states.items():
                if self._states.get(trial_id) != state:
                    trial, run = feed.trial(trial_id), self._run(feed, trial_id)
                    run.status = trial.status
                    run.points += feed.final_points(trial)
                    self._states[trial_id] = state
        finally:
            feed.close()

    def _run(self, feed: JournalFeed, trial_id: str) -> RecordedRun:
        if trial_id not in self.runs:
            trial = feed.trial(trial_id)
            self.runs[trial_id] = RecordedRun(name=run_name(trial), settings=settings(trial))
        return self.runs[trial_id]
