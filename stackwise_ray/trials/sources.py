"""Where trials come from: a fixed design, or tuning and then its replicates. Neither knows of Ray or of the journal.

A source proposes trials, and it is told how each one ended, also those that the journal already has. So the same source
with the same journal reaches the same state. Resuming needs no more than this. The source that asks
Optuna is in `trials.search`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.core.records import Role, TrialRecord


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A trial that should be run, unless the journal has it already.

    Attributes:
        parameters: What the arm, the tuning stage or the searcher set, by dotted path.
        key: Whatever the source needs to recognise it when it ends.
    """

    arm: str
    seed: int
    role: Role
    trial: TrialConfig
    parameters: Mapping[str, Any] = field(default_factory=dict)
    key: Any = None


class TrialSource(Protocol):
    """What the ledger asks for the next trial."""

    def propose(self) -> Proposal | None:
        """The next trial; None where it depends on trials that have not ended, or where there is none left."""

    @property
    def exhausted(self) -> bool:
        """Whether no proposal will ever come again."""

    def ended(self, proposal: Proposal, record: TrialRecord) -> None:
        """Takes in how a proposal ended: `record.status` is finished, failed or stopped."""

    def expected(self) -> int:
        """How many trials this source will have proposed in all, as far as it knows (for the progress display)."""


class FixedSource:
    """A list of trials known beforehand, in order."""

    def __init__(self, proposals: Iterable[Proposal]) -> None:
        self._waiting = deque(proposals)
        self._total = len(self._waiting)

    def propose(self) -> Proposal | None:
        return self._waiting.popleft() if self._waiting else None

    @property
    def exhausted(self) -> bool:
        return not self._waiting

    def ended(self, proposal: Proposal, record: TrialRecord) -> None:
        """Does nothing: the list does not depend on results."""

    def expected(self) -> int:
        return self._total


@dataclass(frozen=True, kw_only=True)
class TuningResult:
    """What tuning chose for one arm: the payload of the journal's decision of kind "tuning".

    Attributes:
        values: The chosen values by dotted path.
        trials: One row per tuning trial: trial_id, values, loss (None where it failed, with the reason).
        flops: Training FLOPs that tuning this arm cost; None if a trial failed, because its FLOPs are not known.
    """

    values: Mapping[str, Any]
    trials: Sequence[Mapping[str, Any]]
    flops: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"values": dict(self.values), "trials": [dict(row) for row in self.trials], "flops": self.flops}


class TunedSource:
    """Equal tuning trials for every arm; each arm's best values are frozen, then its replicates are proposed.

    Args:
        tuning: The tuning proposals of each arm; their `parameters` are the tuned values.
        replicates: Makes the replicates of an arm from the frozen values, in the order of their blocks.
        freeze: Called once per arm with what was chosen (the driver records it).
        goal: What decides among an arm's tuning trials.
    """

    def __init__(
        self,
        tuning: Mapping[str, Sequence[Proposal]],
        replicates: Callable[[str, Mapping[str, Any]], Sequence[Proposal]],
        freeze: Callable[[str, TuningResult], None],
        *,
        goal: Goal,
        n_replicates: int,
    ) -> None:
        self._replicates, self._freeze = replicates, freeze
        self._goal = goal
        self._open = {arm: len(proposals) for arm, proposals in tuning.items()}
        self._results: dict[str, list[tuple[Proposal, TrialRecord]]] = {arm: [] for arm in tuning}
        rounds = max(map(len, tuning.values()), default=0)  # round by round, so that all arms come along together
        self._waiting = deque(rows[i] for i in range(rounds) for rows in tuning.values() if i < len(rows))
        self._ready: list[Proposal] = []
        self._total = len(self._waiting) + n_replicates * len(tuning)
        self._n_replicates = n_replicates
        self.not_tuned: dict[str, str] = {}
        for arm, proposals in tuning.items():
            if not proposals:  # an arm that sets the tuned values itself
                self._add(self._replicates(arm, {}))

    def propose(self) -> Proposal | None:
        if self._waiting:
            return self._waiting.popleft()
        return self._ready.pop(0) if self._ready else None

    @property
    def exhausted(self) -> bool:
        return not self._waiting and not self._ready and not any(self._open.values())

    def ended(self, proposal: Proposal, record: TrialRecord) -> None:
        if proposal.role != "tuning":
            return
        self._open[proposal.arm] -= 1
        self._results[proposal.arm].append((proposal, record))
        if self._open[proposal.arm] == 0:
            self._choose(proposal.arm)

    def expected(self) -> int:
        return self._total

    def _choose(self, arm: str) -> None:
        results = self._results[arm]
        scored = [
            (self._goal.badness(record.metrics[self._goal.metric]), index)
            for index, (_, record) in enumerate(results)
            if record.status == "finished" and self._goal.metric in record.metrics
        ]
        if not scored:
            self.not_tuned[arm] = f"all {len(results)} tuning trials failed, the last with: {results[-1][1].reason}"
            self._total -= self._n_replicates
            return
        best, _ = results[min(scored)[1]]
        rows = [
            {
                "trial_id": record.trial_id,
                "values": dict(proposal.parameters),
                "loss": record.metrics.get(self._goal.metric),
                **({"reason": record.reason} if record.reason else {}),
            }
            for proposal, record in results
        ]
        counted = [record.metrics.get("flops/total") for _, record in results]
        known = [int(flops) for flops in counted if flops is not None]
        flops = sum(known) if len(known) == len(counted) else None
        self._freeze(arm, TuningResult(values=best.parameters, trials=rows, flops=flops))
        self._add(self._replicates(arm, best.parameters))

    def _add(self, replicates: Sequence[Proposal]) -> None:
        self._ready.extend(replicates)
        # Whole blocks first: an interrupted sweep then has complete pairs rather than complete arms.
        self._ready.sort(key=lambda proposal: proposal.key)


class SearchedSource:
    """A search, and then its best points as replicates on seeds that the search did not use.

    Args:
        search: Proposes the points, one arm each.
        replicates: Makes the replicates of a point.
        winners: How many points are trained as replicates; 0: none.
        goal: What decides among the points (of several objectives, the first).
    """

    def __init__(
        self,
        search: TrialSource,
        replicates: Callable[[Proposal], Sequence[Proposal]],
        *,
        winners: int,
        n_replicates: int,
        goal: Goal,
    ) -> None:
        self._search, self._replicates = search, replicates
        self._winners, self._n_replicates = winners, n_replicates
        self._goal = goal
        self._out = 0
        self._scored: dict[str, tuple[float, Proposal]] = {}  # by trial id: a point drawn twice wins once
        self._ready: deque[Proposal] | None = None

    def propose(self) -> Proposal | None:
        if self._ready is None:
            proposal = self._search.propose()
            if proposal is not None:
                self._out += 1
                return proposal
            if self._out or not self._search.exhausted:
                return None
            best = sorted(self._scored.values(), key=lambda scored: scored[0])[: self._winners]
            self._ready = deque(p for _, winner in best for p in self._replicates(winner))
        return self._ready.popleft() if self._ready else None

    @property
    def exhausted(self) -> bool:
        if self._ready is not None:
            return not self._ready
        return self._search.exhausted and not self._out and not (self._scored and self._winners)

    def ended(self, proposal: Proposal, record: TrialRecord) -> None:
        if proposal.role != "search":
            return
        self._out -= 1
        self._search.ended(proposal, record)
        metric = self._goal.metric
        if record.status == "finished" and metric in record.metrics:
            self._scored[record.trial_id] = (self._goal.badness(record.metrics[metric]), proposal)

    def expected(self) -> int:
        return self._search.expected() + self._winners * self._n_replicates
