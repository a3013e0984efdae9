"""What a sweep's folder says about itself: question, baseline, declared comparisons, tuning, failures.

Called by `summary`, `compose` and the command line. It reads `journal.sqlite` alone, once.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.comparison_records import Questions, read_questions
from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.records import TrialRecord, read_meta

from .runs import runs_in
from .sources.sweep_journal import attempt_seconds, connect, journal_path, sweep_trials

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What tuning settled for one arm.

    Attributes:
        values: Chosen value by dotted path.
        trials: Each trial's id, values and loss.
        flops: Training FLOPs of all of them.
    """

    values: Mapping[str, Any]
    trials: tuple[Mapping[str, Any], ...]
    flops: float | None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep's folder, read.

    Attributes:
        directory: The folder of the sweep.
        meta: All facts of the journal's `meta` table.
        trials: Every trial of the sweep, whatever its role and state; one that stands under two arms comes twice.
        earlier: Trials of the journal that an earlier version of the file made; nothing is computed from them.
        runs: The finished replicates (or search trials) as the one table.
        tuning: By arm.
        seconds: By trial, the wall time of all its attempts, where it was recorded.
        predictions: By trial, what its plan said before it ran: flops, seconds, peak_bytes; None: not calibrated.
        last_flops: By trial, the training FLOPs of its last report.
        span: The first start and the last end of its trials' attempts (Unix time); None: none is recorded.
    """

    directory: Path
    meta: Mapping[str, Any]
    trials: tuple[TrialRecord, ...]
    runs: pd.DataFrame
    tuning: Mapping[str, Tuning]
    earlier: tuple[TrialRecord, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    predictions: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    last_flops: Mapping[str, float] = field(default_factory=dict)
    span: tuple[float, float] | None = None

    @property
    def file(self) -> Mapping[str, Any]:
        """The search-space file as plain data; empty where the journal does not hold it."""
        value = self.meta.get("sweep")
        return value if isinstance(value, Mapping) else {}

    @property
    def name(self) -> str:
        """Name of the sweep."""
        return str(self.file.get("name") or self.directory.name)

    @property
    def question(self) -> str | None:
        """The question that the sweep was to answer."""
        question = self.file.get("question")
        return str(question).strip() if question else None

    @functools.cached_property
    def questions(self) -> Questions:
        """What the sweep asks, as its driver resolved it: arms, baseline, goals, comparisons."""
        return read_questions(self.meta)

    @property
    def baseline(self) -> str | None:
        """The arm that comparisons are against where nothing else is said."""
        return self.questions.baseline

    @property
    def is_search(self) -> bool:
        """Whether this sweep has search trials and no replicates."""
        roles = {trial.role for trial in self.trials}
        return "search" in roles and "replicate" not in roles

    @property
    def distinct_trials(self) -> list[TrialRecord]:
        """Every trial once, whatever the number of arms that it stands under."""
        return list({trial.trial_id: trial for trial in self.trials}.values())

    @property
    def search_trials(self) -> list[TrialRecord]:
        """The points of the search, whether or not its winners were trained as replicates."""
        return [trial for trial in self.trials if trial.role == "search"]

    def parameters_of(self, arm: str) -> Mapping[str, Any]:
        """The point behind an arm of a search; empty for an arm that no search drew."""
        return next((trial.parameters for trial in self.search_trials if trial.arm == arm), {})

    @property
    def arms(self) -> list[str]:
        """Arms of the replicates in the order of the file, the baseline first; those that have not begun included."""
        roles = ("search",) if self.is_search else ("replicate",)
        begun = [trial.arm for trial in self.trials if trial.role in roles]
        found = list(dict.fromkeys([*self.questions.arms, *begun]))
        return sorted(found, key=lambda arm: arm != self.baseline)

    @property
    def budget_kind(self) -> str | None:
        """flops, tokens, steps or wall_seconds; None where the trials differ."""
        kinds = {
            kind
            for trial in self.trials
            if trial.role != "tuning"
            for kind, value in trial.config.get("training", {}).get("budget", {}).items()
            if value is not None
        }
        return kinds.pop() if len(kinds) == 1 else None

    @property
    def is_adaptive(self) -> bool:
        """Whether seeds were added until the verdicts had decided, as the journaled comparisons say."""
        return any(comparison.test == "mixture_t" for comparison in self.questions.comparisons)

    @property
    def adaptive_seeds(self) -> tuple[int, int]:
        """Least and most seeds of an arm, between which the verdicts of an adaptive sweep decide."""
        seeds = self.file["replicates"]["seeds"]
        return int(seeds["min"]), int(seeds["max"])

    @property
    def analysis(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Key and options of every declared step, in the order of the file."""
        listed = self.file.get("analysis") or []
        entries = (entry for entry in listed if isinstance(entry, Mapping))
        return [(kind, options) for entry in entries for kind, options in entry.items() if isinstance(options, Mapping)]


def read_sweep(directory: str | Path) -> Sweep:
    """Read the folder of a sweep.

    Raises:
        AnalysisError: There is no journal in it, or it is not one.
    """
    path = journal_path(Path(directory))
    with connect(path) as connection:
        meta = read_meta(connection)
        trials, earlier = sweep_trials(connection)
        settled, predicted = (
            connection.execute("SELECT key, payload FROM decisions WHERE kind = ? ORDER BY id", (kind,)).fetchall()
            for kind in ("tuning", "prediction")
        )
        seconds, runs = attempt_seconds(connection), runs_in(connection, str(path))
        last_flops = dict(connection.execute("SELECT trial_id, MAX(flops) FROM reports GROUP BY trial_id").fetchall())
        attempts = connection.execute("SELECT trial_id, started_at, ended_at FROM attempts").fetchall()
    if not trials:
        raise AnalysisError(f"{path}: the journal holds no trial yet")
    if "sweep" in meta:
        try:
            read_questions(meta)
        except AnalysisError as error:
            raise AnalysisError(f"{path}: {error}") from None
    tuning = {}
    own = {(trial.arm, trial.trial_id) for trial in trials if trial.role == "tuning"}
    for arm, payload in settled:
        facts = json.loads(payload)
        if meta.get("trial_set") and not all((arm, trial.get("trial_id")) in own for trial in facts.get("trials", ())):
            continue  # settled by tuning trials of an earlier version of the file
        tuning[arm] = Tuning(
            values=facts.get("values", {}), trials=tuple(facts.get("trials", ())), flops=facts.get("flops")
        )
    return Sweep(
        directory=path.parent,
        meta=meta,
        trials=tuple(trials),
        runs=runs,
        seconds=seconds,
        tuning=tuning,
        earlier=tuple(earlier),
        predictions={name: json.loads(payload) for name, payload in predicted},
        last_flops=last_flops,
        span=_span(attempts, {trial.trial_id for trial in trials}),
    )


def _span(attempts: Iterable[tuple[str, float, float | None]], own: set[str]) -> tuple[float, float] | None:
    """From the first start to the last end of the sweep's own trials."""
    listed = [(start, end) for name, start, end in attempts if name in own]
    ends = [end for _, end in listed if end is not None]
    return (min(start for start, _ in listed), max(ends)) if ends else None
