"""Trials that have ended, as their sources and verdicts read them: without a configuration and without a folder."""

from __future__ import annotations

from typing import Any

from stackwise_ray.core.records import TrialRecord


def ended_trial(trial_id: str, arm: str, seed: int, metrics: dict[str, float], **fields: Any) -> TrialRecord:
    """A finished replicate; `fields` of the record say what else it is."""
    known = {"role": "replicate", "status": "finished", "number": 0, "config": {}}
    return TrialRecord(trial_id=trial_id, arm=arm, seed=seed, metrics=metrics, **(known | fields))
