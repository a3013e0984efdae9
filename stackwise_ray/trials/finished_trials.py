"""The trials of a sweep that have ended, from its journal: a plan leaves them out of the remaining work.

It reads the journal and writes nothing, because a plan may be made while the sweep runs.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackwise_ray.config.trial import DataConfig
from stackwise_ray.core.records import FINAL, Role, TrialRecord, open_journal, read_trials, unreadable_journal
from stackwise_ray.training.initial import identify
from stackwise_ray.trials.sources import TrialSource

JOURNAL = "journal.sqlite"


@dataclass(frozen=True, kw_only=True)
class KnownTrials:
    """The content of a sweep's journal, in its place where trials are proposed and none is started.

    Attributes:
        trials: Every trial, by id.
        decided: The journal's decisions, by kind and key.
    """

    trials: Mapping[str, TrialRecord]
    decided: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, directory: Path | None) -> KnownTrials:
        """The trials of the sweep in this folder; none if it has not begun.

        Raises:
            ConfigError: The journal is damaged.
        """
        path = None if directory is None else directory / JOURNAL
        if path is None or not path.is_file():
            return cls(trials={}, decided={})
        decided: dict[str, dict[str, Any]] = {}
        try:
            with closing(open_journal(path)) as connection:
                trials = {record.trial_id: record for record in read_trials(connection)}
                for kind, key, payload in connection.execute("SELECT kind, key, payload FROM decisions ORDER BY id"):
                    decided.setdefault(kind, {})[key] = json.loads(payload)
        except sqlite3.DatabaseError as error:
            raise unreadable_journal(error, path) from None
        return cls(trials=trials, decided=decided)

    def decisions(self, kind: str) -> dict[str, Any]:
        """The decisions of one kind by key, as the journal gives them."""
        return dict(self.decided.get(kind, {}))

    def put_decision(self, kind: str, key: str, payload: Mapping[str, Any], *, replace: bool = False) -> Any:
        """Stores nothing: what a source settles here is settled again when the sweep runs."""
        return payload

    def ended(self, source: TrialSource, fingerprint: Callable[[DataConfig], str]) -> Counter[tuple[str, Role]]:
        """Number of ended trials per (arm, role). The source is left where it waits for trials that have not ended."""
        count: Counter[tuple[str, Role]] = Counter()
        while self.trials and (proposal := source.propose()) is not None:
            record = self.trials.get(identify(proposal.trial, fingerprint(proposal.trial.data)))
            if record is not None and record.status in FINAL:
                count[proposal.arm, proposal.role] += 1
                source.ended(proposal, record)
        return count

    def records(self) -> Sequence[TrialRecord]:
        """All known trials."""
        return tuple(self.trials.values())
