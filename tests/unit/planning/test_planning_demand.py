"""What a trial asks of the machines, and how many GPUs a machine counts with."""

from __future__ import annotations

import pytest

from stackwise_ray.core.environment import describe_environment
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.planning.demand import usable_gpus


def test_logical_gpus_stand_for_those_that_torch_sees_and_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.delenv("STACKWISE_GPUS", raising=False)
    assert usable_gpus() == 3
    monkeypatch.setenv("STACKWISE_GPUS", "2")
    assert usable_gpus() == 2
    assert describe_environment()["variables"]["STACKWISE_GPUS"] == "2"


@pytest.mark.parametrize("value", ["", "two", "0.5", "-1"])
def test_a_number_of_logical_gpus_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("STACKWISE_GPUS", value)
    with pytest.raises(ConfigError, match=r"STACKWISE_GPUS = .* is no number of GPUs; give a whole number"):
        usable_gpus()
