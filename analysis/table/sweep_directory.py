"""What a sweep's folder says about itself: question, baseline, declared comparisons, tuning, failures.

Called by `summary`, `report` and the command line. It reads `journal.sqlite` alone; numbers come from `runs`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.records import TrialRecord, read_meta

from .runs import connect, journal_path, load_runs, sweep_trials

if TYPE_CHECKING:
    import pandas as pd

_COMPARE_KEYS = ("correction", "margin", "direction", "test", "tolerance", "alpha")


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
        predictions: By trial, what its plan said before it ran: flops, seconds, peak_bytes; None: not calibrated.
    """

    directory: Path
    meta: Mapping[str, Any]
    trials: tuple[TrialRecord, ...]
    runs: pd.DataFrame
    tuning: Mapping[str, Tuning]
    earlier: tuple[TrialRecord, ...] = ()
    predictions: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

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

    @property
    def baseline(self) -> str | None:
        """The arm that the design names as baseline; "base" where factors change one at a time."""
        design = self.file.get("design")
        if not isinstance(design, Mapping):
            return None
        if design.get("baseline") is not None:
            return str(design["baseline"])
        return "base" if design.get("kind") == "one_at_a_time" else None

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
        found = list(dict.fromkeys([*(self.meta.get("arms") or ()), *begun]))
        return sorted(found, key=lambda arm: arm != self.baseline)

    @property
    def family(self) -> int:
        """How many arms are to be compared with the baseline, whether or not they have begun."""
        return len(self.arms) - 1

    @property
    def objective(self) -> tuple[str, str]:
        """Metric and direction of the first objective."""
        listed = self.file.get("objective")
        if isinstance(listed, (list, tuple)) and listed and isinstance(listed[0], Mapping):
            return str(listed[0].get("metric", "validation/loss")), str(listed[0].get("direction", "minimize"))
        return "validation/loss", "minimize"

    def direction_of(self, metric: str) -> str:
        """Which way is better: as any of the objectives says; without one, smaller is."""
        for goal in self.file.get("objective") or ():
            if isinstance(goal, Mapping) and goal.get("metric") == metric and goal.get("direction"):
                return str(goal["direction"])
        return "minimize"

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

    def declared(self) -> list[dict[str, Any]]:
        """Arguments of `compare` for every comparison that the file declares, defaults filled in from the sweep."""
        listed = [entry["compare"] for entry in self._analysis() if isinstance(entry.get("compare"), Mapping)]
        return [self._arguments(entry, entry.get("baseline") or self.baseline) for entry in listed]

    def undeclared(self) -> dict[str, Any] | None:
        """Arguments of the comparison that suggests itself where a baseline stands in the design."""
        return self._arguments({}, self.baseline) if self.baseline is not None else None

    def declared_laws(self) -> list[tuple[str, dict[str, Any]]]:
        """Kind of every law that the file declares, and the arguments of `fit_scaling_law` or `fit_isoflop`."""
        defaults: dict[str, dict[str, Any]] = {"scaling_law": {"law": "chinchilla"}, "isoflop": {}}
        return [
            (kind, {**defaults[kind], **entry[kind]})
            for entry in self._analysis()
            for kind in defaults
            if isinstance(entry.get(kind), Mapping)
        ]

    @property
    def adaptive_seeds(self) -> tuple[int, int] | None:
        """Least and most seeds of an arm where the verdicts decide between them; None where seeds are fixed."""
        replicates = self.file.get("replicates")
        seeds = replicates.get("seeds") if isinstance(replicates, Mapping) else None
        return (int(seeds["min"]), int(seeds["max"])) if isinstance(seeds, Mapping) else None

    def _analysis(self) -> list[Mapping[str, Any]]:
        listed = self.file.get("analysis") or []
        return [entry for entry in listed if isinstance(entry, Mapping)]

    def _arguments(self, entry: Mapping[str, Any], baseline: str | None) -> dict[str, Any]:
        chosen = {key: entry[key] for key in _COMPARE_KEYS if entry.get(key) is not None}
        metric = str(entry.get("metric") or self.objective[0])
        chosen.setdefault("direction", self.direction_of(metric))
        equal = entry.get("equal", "budget")
        if equal == "budget":  # the unit in which the trials' own budget was set
            equal = self.budget_kind or "flops"
        return {"metric": metric, "baseline": baseline, "equal": equal, "family": self.family, **chosen}


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
    if not trials:
        raise AnalysisError(f"{path}: the journal holds no trial yet")
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
        runs=load_runs(path),
        tuning=tuning,
        earlier=tuple(earlier),
        predictions={name: json.loads(payload) for name, payload in predicted},
    )
