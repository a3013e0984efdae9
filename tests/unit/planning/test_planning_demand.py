"""What a trial asks of the machines, and how many GPUs a machine counts with."""

from __future__ import annotations

import pytest

from stackwise_ray.core.environment import describe_environment
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.planning.demand import Demand, usable_gpus


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


@pytest.mark.parametrize(
    ("demand", "cpus", "gpus", "slots"),
    [
        (Demand(), 16, 2, 16),
        (Demand(gpus=1), 16, 2, 2),
        (Demand(gpus=0.5), 16, 2, 4),
        (Demand(gpus=0.4), 16, 2, 4),
        (Demand(gpus=0.1), 64, 2, 20),
        (Demand(gpus=0.5), 3, 2, 3),
        (Demand(gpus=1, workers=2), 16, 4, 2),
        (Demand(gpus=1, workers=2), 16, 1, 0),
        (Demand(gpus=1, max_concurrent=1), 16, 2, 1),
    ],
)
def test_slots_are_what_processors_and_devices_hold(demand: Demand, cpus: int, gpus: int, slots: int) -> None:
    assert demand.slots(cpus, gpus) == slots


@pytest.mark.parametrize("share", [0.5, 0.4, 0.3, 0.25, 1 / 6, 0.1])
@pytest.mark.parametrize("gpus", [1, 2, 3, 8])
def test_shares_are_spread_as_evenly_as_they_can_be(share: float, gpus: int) -> None:
    demand = Demand(gpus=share)
    for at_once in range(1, demand.slots(1000, gpus) + 1):
        held = demand.gpus_to_hold(at_once, gpus)
        most = int(10_000 // round(held * 10_000))  # on one device, in the units that Ray counts in
        assert held > share - 1e-4
        assert gpus * most >= at_once, "all of them run at once"
        assert most == -(-at_once // gpus), "and none waits behind more than it must"


def test_whole_devices_are_held_as_they_are_asked_for() -> None:
    assert Demand(gpus=2).gpus_to_hold(at_once=1, gpus=8) == 2
    assert Demand().gpus_to_hold(at_once=4, gpus=0) == 0
