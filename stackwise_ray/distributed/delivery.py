"""What one command delivers to MLflow while the sweep runs; the sweep never waits for it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from stackwise_ray.config.space.sweep_config import SweepConfig
from stackwise_ray.core.callbacks import WaitingLine
from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.tracking.interface import SweepEnding
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.tracking.mlflow import MlflowTracker, tracking_uri, ui_command


class Delivery:
    """The tracker of one command: it starts once the sweep is accepted, closes last and reports what is undelivered."""

    def __init__(
        self, sweep: SweepConfig, goal: Goal, directory: Path, journal: Journal, console: Console, waiting: WaitingLine
    ) -> None:
        self._tracker = MlflowTracker(
            journal.path,
            tracking_uri(directory),
            sweep.experiment,
            sweep.name,
            tags={"mlflow.note.content": sweep.question},
        )
        self._goal = goal
        self._console, self._waiting = console, waiting
        self._open = False

    def start(self) -> None:
        self._open = True
        self._tracker.start()

    def notify(self) -> None:
        self._tracker.notify()

    def finish(self, report: Path | None, how: SweepEnding) -> str | None:
        """Delivers the rest and the report's folder; returns the command that opens the MLflow UI on them."""
        if report is not None:
            self._tracker.attach(report.parent)
        self.close(how)
        if self._tracker.experiment_id is None:
            return None
        return ui_command(self._tracker.uri, self._tracker.experiment_id, goal=self._goal)

    def close(self, how: SweepEnding) -> None:
        """Closes the tracker; later calls do nothing."""
        if not self._open:
            return
        self._open = False
        self._waiting("delivering to MLflow")
        try:
            owed = self._tracker.close(outcome=how)
        finally:
            self._waiting.clear()
        if owed:
            self._console.print(f"MLflow: {owed}; the next run of this command delivers them", highlight=False)
