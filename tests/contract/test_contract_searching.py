"""What rules of early stopping are to Ray; `contracts` has what they and the samplers promise."""

from __future__ import annotations

import pytest
from ray.tune.schedulers import TrialScheduler

from stackwise_ray.core.registries import SCHEDULERS


@pytest.mark.parametrize("name", SCHEDULERS.names())
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_rule_of_early_stopping_is_a_scheduler_of_tune(name: str, mode: str) -> None:
    assert isinstance(SCHEDULERS.get(name).make(grace=0.2, mode=mode), TrialScheduler)
