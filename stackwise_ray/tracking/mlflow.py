"""MLflow, fed from the journal by one background thread, so that a slow or absent store does not stop training.

The driver makes an `MlflowTracker` and starts it; the thread imports MLflow, connects (while Ray starts), and then
delivers, in batches, the rows of the journal after the last one that the store has confirmed. Nothing is handed over
in memory: the journal on disk is the queue, each pass takes a bounded number of rows from it, and after a crash or an
hour without a server everything later still arrives, once. This module decides when to deliver and what to do when
that fails; the calls to MLflow are in `mlflow_store`.
"""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.tracking.feed import JournalFeed, Point
from stackwise_ray.tracking.interface import SweepEnding, Tracker, Undelivered
from stackwise_ray.tracking.mlflow_store import Child, MlflowStore, refuses
from stackwise_ray.tracking.system_metrics import SystemMetrics

ROWS_IN_A_PASS = 500
LONGEST_WAIT_S = 30.0
"""Most seconds between two tries while the store is away: the first wait is 1 s, each is twice the one before."""


def tracking_uri(sweep_directory: str | Path) -> str:
    """Where a sweep is tracked: ``MLFLOW_TRACKING_URI``, else an SQLite file beside the results."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    return f"sqlite:///{Path(sweep_directory).resolve() / 'mlflow.db'}"


def ui_command(uri: str, experiment_id: str, *, goal: Goal, port: int = 5000) -> str:
    """How to open an experiment: the address on a tracking server, else the command that serves a local store.

    Args:
        goal: What the runs are sorted by, the best first.

    >>> ui_command("http://user:secret@tracking:8080/", "3", goal=Goal.of("validation/loss")).partition("?")[0]
    'http://tracking:8080/#/experiments/3/runs'
    """
    page = _runs_page(experiment_id, goal)
    if uri.startswith(("http://", "https://")):
        parts = urlsplit(uri)
        address = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        return f"{address}/{page}"
    words = [_python(), "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port)]
    words += ["--workers", "1"]  # the default of 4 takes 24 s to answer on two cores, one takes 9 s
    # without the second, eight more processes wait for jobs on traces of chat models
    command = f"MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {shlex.join(words)}"
    return f"{command}   # then open http://127.0.0.1:{port}/{page}"


def _runs_page(experiment_id: str, goal: Goal) -> str:
    """The list of runs in MLflow's UI, ready to be ticked for a comparison.

    Without these words the UI opens an experiment on traces of chat models, and its list of runs is one folded row,
    the sweep: sorted by a metric it is flat, and the sweep's own run, which has no role, and those that tuned the
    learning rate are filtered out.
    """
    words = {
        "workflowType": "machine_learning",
        "searchFilter": "tags.role != 'tuning'",
        "orderByKey": f"metrics.`{goal.metric}`",
        "orderByAsc": "true" if goal.direction == "minimize" else "false",
    }
    return f"#/experiments/{experiment_id}/runs?{urlencode(words, safe='/', quote_via=quote)}"


class MlflowTracker(Tracker):
    """Delivers one sweep to MLflow.

    Args:
        journal_path: The sweep's journal, which must exist when `start` is called.
        uri: Tracking URI (see `tracking_uri`).
        experiment: Name of the experiment.
        parent_name: Name of the parent run.
        tags: Further tags of the parent run; ``mlflow.note.content`` is its description.
        artifact_location: Where a new experiment keeps its files; None: beside an SQLite store, else the
            server's choice.
        interval_s: Least seconds between two passes.
        system_interval_s: Seconds between two samples of the machine's load; None: none are taken.

    Attributes:
        experiment_id: Known once the store has answered.
        problem: Why nothing can be delivered at present; None: it can.
        refused: Deliveries that the store refused twice and that were left out: the store's message by what was
            delivered.
    """

    def __init__(
        self,
        journal_path: str | Path,
        uri: str,
        experiment: str,
        parent_name: str,
        *,
        tags: Mapping[str, str] | None = None,
        artifact_location: str | None = None,
        interval_s: float = 1.0,
        system_interval_s: float | None = 10.0,
    ) -> None:
        self.uri = uri
        self.experiment_id: str | None = None
        self.problem: str | None = None
        self.refused: dict[str, str] = {}
        self._journal_path = Path(journal_path)
        self._experiment = experiment
        self._parent_name = parent_name
        self._tags = dict(tags or {})
        self._artifact_location = artifact_location or _beside_sqlite(uri)
        self._interval_s = interval_s
        self._system_interval_s = system_interval_s
        self._outcome: SweepEnding | None = None
        self._answer: Undelivered | None = None
        self._deadline = float("inf")
        self._wake = threading.Event()
        self._attachments: dict[tuple[str, str], Path] = {}
        self._attachments_lock = threading.Lock()
        self._refused_once: str | None = None
        self._store: MlflowStore | None = None
        self._must_reconnect = True
        self._system: SystemMetrics | None = None
        self._thread = threading.Thread(target=self._run, name="mlflow-tracker", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def notify(self) -> None:
        """Wakes the thread; it waits out `interval_s` first, so that what follows goes into the same batch."""
        self._wake.set()

    def attach(self, path: Path, folder: str = "") -> None:
        """Hands a file or folder over for the parent run's artifacts."""
        with self._attachments_lock:
            self._attachments[(folder, path.name)] = path
        self._wake.set()

    def close(self, timeout: float = 30.0, *, outcome: SweepEnding = "finished") -> Undelivered:
        """Delivers the rest and ends. A store that does not answer is tried once more, not waited for."""
        if self._answer is not None:
            return self._answer
        self._deadline = time.monotonic() + timeout
        self._outcome = outcome
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        if self._thread.is_alive():
            self.problem = self.problem or f"the tracking store did not answer within {timeout:g} s"
        self._answer = self._undelivered()
        return self._answer

    # ------------------------------------------------------------------------------------------- in the thread

    def _run(self) -> None:
        wait = 1.0
        feed: JournalFeed | None = None
        while True:
            closing = self._outcome is not None
            try:
                feed = feed or JournalFeed(self._journal_path)
                done = self._deliver(feed)
                self.problem, wait = None, 1.0
            except Exception as error:  # whatever a store, its driver or the network throws: reported, and tried again
                done = closing and not isinstance(error, _LookAgainError)
                self.problem = _first_line(error)
                if isinstance(error, _LookAgainError):
                    self._must_reconnect, wait = True, 0.0
                elif not closing:
                    self._pause(wait)
                    wait = min(LONGEST_WAIT_S, max(1.0, 2 * wait))
            if closing and (done or time.monotonic() > self._deadline):
                break
            if self._outcome is None:
                self._wake.wait(self._interval_s)
                self._wake.clear()
                self._pause(self._interval_s)
        if feed is not None:
            feed.close()

    def _deliver(self, feed: JournalFeed) -> bool:
        """One pass; True where it delivered everything that was in the journal when it began."""
        closing = self._outcome
        store = self._connect(feed)
        states = feed.states()  # before the reports: those that led to a state are then delivered before it
        last = feed.last_row()  # a bound: reports that come meanwhile must not keep the states waiting
        while store.delivered < last and (rows := feed.reports(after=store.delivered, limit=ROWS_IN_A_PASS)):
            points: dict[str, list[Point]] = {}
            for row, record in rows:
                points.setdefault(record.trial_id, []).extend(feed.points(row, record))
            for trial_id, new in points.items():
                what = f"reports {rows[0][0]} to {rows[-1][0]} of trial {trial_id}"
                self._unless_refused(what, partial(self._log, feed, trial_id, new))
            store.save_delivered(rows[-1][0])
            self._sample(store)
            if time.monotonic() > self._deadline:
                return False
        for trial_id, state in states.items():
            child = store.children.get(trial_id)
            if child is None or child.state != str(state):
                self._unless_refused(f"state {state} of trial {trial_id}", partial(self._set, feed, trial_id))
            if time.monotonic() > self._deadline:
                return False
        self._deliver_attachments(store)
        self._sample(store)
        if closing is not None:
            store.end(closing)
        return True

    def _connect(self, feed: JournalFeed) -> MlflowStore:
        if self._store is not None and not self._must_reconnect:
            return self._store
        store = MlflowStore(
            self.uri,
            self._experiment,
            artifact_location=self._artifact_location,
            sweep_id=feed.meta()["journal_id"],
            parent_name=self._parent_name,
            tags=self._tags,
        )
        self._store, self._must_reconnect = store, False
        self.experiment_id = store.experiment_id
        if self._system is None and self._system_interval_s is not None:
            self._system = SystemMetrics(self._system_interval_s, store.started_ms)
        return store

    def _child(self, feed: JournalFeed, trial_id: str) -> Child:
        """The run of a trial; a run that had to be made gets what the store should have held of it already."""
        store = self._store
        assert store is not None
        child = store.children.get(trial_id)
        if child is None or child.state is None:
            child = store.add_child(feed.trial(trial_id), feed.started_ms(trial_id))
            earlier = feed.reports_of(trial_id, until=store.delivered)
            store.log_points(child.run_id, [point for row, record in earlier for point in feed.points(row, record)])
        return child

    def _log(self, feed: JournalFeed, trial_id: str, points: list[Point]) -> None:
        assert self._store is not None
        self._store.log_points(self._child(feed, trial_id).run_id, points)

    def _set(self, feed: JournalFeed, trial_id: str) -> None:
        store = self._store
        assert store is not None
        self._child(feed, trial_id)
        state, trial = feed.states()[trial_id], feed.trial(trial_id)
        store.set_trial(trial, state, feed.final_points(trial))

    def _unless_refused(self, what: str, deliver: Callable[[], None]) -> None:
        """Delivers; after a first refusal with a fresh look at the store (a run deleted meanwhile). What is refused
        again is left out by this command: one bad name must not hold back everything behind it."""
        if what in self.refused:
            return
        try:
            deliver()
        except Exception as error:
            if not refuses(error):
                raise
            if self._refused_once != what:
                self._refused_once = what
                raise _LookAgainError(_first_line(error)) from error
            self._refused_once = None
            self.refused[what] = _first_line(error)

    def _deliver_attachments(self, store: MlflowStore) -> None:
        with self._attachments_lock:
            waiting = dict(self._attachments)
        for (folder, name), path in waiting.items():
            if path.exists():
                store.attach(path, folder)
            with self._attachments_lock:
                if self._attachments.get((folder, name)) == path:
                    del self._attachments[(folder, name)]

    def _sample(self, store: MlflowStore) -> None:
        if self._system is None:
            return
        self._system.sample_if_due()
        if points := self._system.waiting():
            store.log_points(store.parent_id, points)
            self._system.delivered()

    def _pause(self, seconds: float) -> None:
        """Waits, but for `close`; samples the machine meanwhile, also while the store is away."""
        end = time.monotonic() + seconds
        while self._outcome is None and (left := end - time.monotonic()) > 0:
            if self._system is not None:
                self._system.sample_if_due()
            time.sleep(min(left, 0.1))

    # ------------------------------------------------------------------------------------------ in the driver

    def _undelivered(self) -> Undelivered:
        store = self._store
        if not self._journal_path.is_file():
            return Undelivered(problem=self.problem)
        feed = JournalFeed(self._journal_path)
        try:
            children = {} if store is None else dict(store.children)  # a copy: the thread may still be at work
            arrived = {trial_id: child.state for trial_id, child in children.items()}
            trials = sum(arrived.get(trial_id) != str(state) for trial_id, state in feed.states().items())
            reports = feed.count_after(0 if store is None else store.delivered)
        finally:
            feed.close()
        refused = next((f"refused: {what}: {why}" for what, why in self.refused.items()), None)
        return Undelivered(reports=reports, trials=trials, problem=self.problem or refused)


class _LookAgainError(Exception):
    """The store refused something that it may accept after its content has been read anew."""


def _beside_sqlite(uri: str) -> str | None:
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlflow_artifacts").as_uri()


def _python() -> str:
    """The interpreter as one would type it: relative where it lies below the present folder."""
    executable = Path(sys.executable)
    try:
        return str(executable.relative_to(Path.cwd()))
    except ValueError:
        return str(executable)


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__
