"""Adaptive replicates: one more seed for an arm, and for its baseline, as long as the verdict on it is open.

Seeds count from 0. An arm is judged once its last block has ended, for the arm and for the baseline: on all of its
blocks, in the order of their seeds. So the trials depend on the results alone, and not on the order in which they
arrive. A command that continues a journal asks the same questions in the same order. The command hands in the verdict
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from stackwise_ray.config.space.seeds import with_seed
from stackwise_ray.core.comparison_records import ResolvedComparison
from stackwise_ray.core.records import TrialRecord
from stackwise_ray.trials.sources import Proposal, TrialSource


@dataclass(frozen=True, kw_only=True)
class AnytimeVerdicts:
    """Functions of the package `analysis`; `stackwise_ray.sweep`, which alone imports that package, hands them in.

    Attributes:
        undecided: Whether more seeds could still decide an arm, from the finished trials of it and of the baseline.
        seeds_possible: From a comparison to the first number of seeds at which any decision on an arm is possible.
    """

    undecided: Callable[[Sequence[TrialRecord], str, ResolvedComparison], bool]
    seeds_possible: Callable[[ResolvedComparison], int]


class AdaptiveSource:
    """Proposes every arm on the first seeds, then further seeds for arms whose verdict is open.

    Args:
        first: Proposes every arm on seeds 0 … least − 1.
        undecided: Whether more seeds could still decide an arm, from the finished trials of it and of the baseline.
        arms: All arms but the baseline.
        baseline: None where every arm is compared with a target.
        most: Most seeds of an arm.
    """

    def __init__(
        self,
        first: TrialSource,
        undecided: Callable[[Sequence[TrialRecord], str], bool],
        *,
        arms: Sequence[str],
        baseline: str | None,
        least: int,
        most: int,
    ) -> None:
        self._first, self._undecided = first, undecided
        self._most = most
        self._baseline = () if baseline is None else (baseline,)
        self._blocks = dict.fromkeys((*self._baseline, *arms), least)  # seeds that each arm has been given
        self._judged = dict.fromkeys(arms, 0)  # blocks at the last look
        self._patterns: dict[str, Proposal] = {}  # a replicate of each arm, which its further ones differ from in seed
        self._ended: dict[tuple[str, int], TrialRecord] = {}
        self._waiting: list[Proposal] = []
        self._out = 0
        self._added = 0

    def propose(self) -> Proposal | None:
        proposal = self._first.propose()
        if proposal is None and self._waiting:
            proposal = self._waiting.pop(0)
        if proposal is not None and proposal.role == "replicate":
            self._patterns.setdefault(proposal.arm, proposal)
            self._out += 1
        return proposal

    @property
    def exhausted(self) -> bool:
        return self._first.exhausted and not self._waiting and not self._out

    def ended(self, proposal: Proposal, record: TrialRecord) -> None:
        self._first.ended(proposal, record)
        if proposal.role != "replicate":
            return
        self._out -= 1
        self._ended[proposal.arm, proposal.seed] = record
        for arm in self._judged if proposal.arm in self._baseline else (proposal.arm,):
            self._judge(arm)

    def expected(self) -> int:
        return self._first.expected() + self._added

    def _judge(self, arm: str) -> None:
        """Judge an arm whose blocks have all ended on both sides, once for each number of blocks."""
        n = self._blocks[arm]
        cells = [(name, seed) for seed in range(n) for name in (*self._baseline, arm)]
        if n >= self._most or self._judged[arm] == n or any(cell not in self._ended for cell in cells):
            return
        self._judged[arm] = n
        finished = [self._ended[cell] for cell in cells if self._ended[cell].status == "finished"]
        if self._undecided(finished, arm):
            for name in (*self._baseline, arm):
                if self._blocks[name] == n:  # the baseline may be there already, for another arm
                    self._add(name)

    def _add(self, arm: str) -> None:
        pattern, seed = self._patterns[arm], self._blocks[arm]
        trial, key = with_seed(pattern.trial, seed), (seed, pattern.key[1])
        self._waiting.append(replace(pattern, seed=seed, trial=trial, key=key))
        self._waiting.sort(key=lambda proposal: proposal.key)
        self._blocks[arm] += 1
        self._added += 1
