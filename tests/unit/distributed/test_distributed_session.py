"""What a Ray session is started with and leaves behind, and how its death is noticed. Ray itself does not start."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from stackwise_ray.core.environment import usable_cores
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.distributed import session
from stackwise_ray.distributed.session import TRIAL_SLOT, RayWatchdog, Session, _raylet, ray_session
from stackwise_ray.planning.demand import Demand


class Cluster:
    """What Ray was asked for, and what it says that it has."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.ended = 0
        self.has: dict[str, float] = {"CPU": 4.0, "GPU": 0.0, TRIAL_SLOT: 4.0}

    def init(self, **options: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray does, in its own way
        self.asked.append(options)

    def shutdown(self) -> None:
        self.ended += 1


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    made = Cluster()
    for name in (*session._ENVIRONMENT, "OMP_NUM_THREADS", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "before")
    # Ray itself is started by the slow tests; here it is what the session asks of it, and leaves behind.
    monkeypatch.setattr("ray.init", made.init)
    monkeypatch.setattr("ray.shutdown", made.shutdown)
    monkeypatch.setattr("ray.cluster_resources", lambda: made.has)
    before = signal.getsignal(signal.SIGTERM)
    yield made
    assert signal.getsignal(signal.SIGTERM) == before
    signal.signal(signal.SIGTERM, before)


def test_a_local_session_has_this_machine_and_a_folder_that_is_gone_afterwards(cluster: Cluster) -> None:
    told: list[Path] = []
    with ray_session(Demand(cpus=1, max_concurrent=3), on_directory=told.append) as opened:
        assert (opened.slots, opened.gpus, opened.raylet) == (3, 0, None)
        assert told == [opened.temp_directory]
        assert told[0].is_dir()
        (asked,) = cluster.asked
        assert (asked["address"], asked["num_cpus"], asked["num_gpus"]) == ("local", usable_cores(), 0)
        assert asked["resources"] == {TRIAL_SLOT: usable_cores()}
        assert asked["_temp_dir"] == str(told[0])
        assert asked["object_store_memory"] == 104_857_600
        assert not any(asked[name] for name in ("include_dashboard", "log_to_driver", "configure_logging"))
        assert {name: os.environ[name] for name in session._ENVIRONMENT} == session._ENVIRONMENT
        assert os.environ["OMP_NUM_THREADS"] == "1"
        assert "RAY_ADDRESS" not in os.environ, "it alone never counts"
        assert cluster.ended == 0
    assert cluster.ended == 1
    assert not told[0].exists()


def test_a_session_that_ends_by_an_error_leaves_nothing(cluster: Cluster) -> None:
    told: list[Path] = []
    with pytest.raises(ZeroDivisionError), ray_session(Demand(), on_directory=told.append):
        raise ZeroDivisionError
    assert (cluster.ended, told[0].exists()) == (1, False)


def test_a_cluster_that_was_named_is_joined_with_what_it_has(cluster: Cluster) -> None:
    cluster.has = {"CPU": 16.0, "GPU": 2.0, TRIAL_SLOT: 3.0}
    with ray_session(Demand(cpus=2, gpus=0.5), address="head:6379") as opened:
        assert (opened.slots, opened.gpus, opened.temp_directory, opened.raylet) == (4, 2, None, None)
        assert [asked["address"] for asked in cluster.asked] == ["head:6379"]
        assert os.environ["OMP_NUM_THREADS"] == "2"
    with ray_session(Demand(cpus=1, workers=2), address="head:6379") as opened:
        assert (opened.slots, opened.gpus) == (3, 0), "a slot per trial that was declared"


@pytest.mark.parametrize(
    ("demand", "has", "problem"),
    [
        (Demand(workers=2), {"CPU": 8.0}, "no node declares the resource 'trial_slot' (add it to the cluster file)"),
        (Demand(cpus=9), {"CPU": 8.0, "GPU": 1.0}, "but the session has 8 CPUs and 1 GPUs; lower workers"),
        (Demand(), {}, "but the session has 0 CPUs and 0 GPUs"),
    ],
)
def test_a_cluster_on_which_no_trial_fits_is_refused(
    cluster: Cluster, demand: Demand, has: dict[str, float], problem: str
) -> None:
    cluster.has = has
    with pytest.raises(ConfigError) as refused, ray_session(demand, address="head:6379"):
        pass
    assert problem in str(refused.value)
    assert cluster.ended == 1


def test_more_than_this_machine_has_is_refused_before_ray_starts(cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match=f"this machine has {usable_cores()} CPUs"), ray_session(Demand(cpus=9999)):
        pass
    assert cluster.asked == []


def test_a_cluster_that_does_not_answer_is_one_message(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(**options: Any) -> None:
        raise ConnectionError("no Ray at head:1\nand more")

    # A cluster that is not there.
    monkeypatch.setattr("ray.init", refuses)
    with pytest.raises(ConfigError) as refused, ray_session(Demand(), address="head:1"):
        pass
    assert str(refused.value) == (
        "--address = head:1 does not answer as a Ray cluster (no Ray at head:1); start it with 'ray up clusters/...' "
        "and give the address that it prints, or leave --address out to run here"
    )


@pytest.fixture
def raylet(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this one that has the name of Ray's scheduler."""
    shutil.copy(shutil.which("sleep") or "/bin/sleep", tmp_path / "raylet")
    with subprocess.Popen([tmp_path / "raylet", "60"]) as process:
        yield process
        process.kill()


def opened(raylet: int | None) -> Session:
    process = None if raylet is None else psutil.Process(raylet)
    return Session(slots=1, gpus=0, temp_directory=None, raylet=process)


def test_the_scheduler_is_found_among_the_processes_and_its_death_is_noticed_once(
    raylet: subprocess.Popen[bytes],
) -> None:
    found = _raylet()
    assert found is not None
    assert found.pid == raylet.pid
    dead, reasons = threading.Event(), []

    def on_death(reason: str) -> None:
        reasons.append(reason)
        dead.set()

    with RayWatchdog(opened(raylet.pid), on_death, period_s=0.02):
        assert not dead.wait(0.1)
        raylet.kill()  # a zombie from now on
        assert dead.wait(10)
    assert reasons == [f"Ray's local scheduler (raylet, pid {raylet.pid}) died"]


def test_a_session_that_ended_as_it_should_is_no_death(raylet: subprocess.Popen[bytes]) -> None:
    reasons: list[str] = []
    with RayWatchdog(opened(raylet.pid), reasons.append, period_s=0.02):
        pass
    raylet.kill()
    raylet.wait()
    assert reasons == []
    assert _raylet() is None


def test_a_cluster_is_lost_when_it_gives_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [{"CPU": 1.0}]
    # A cluster that answers, and then does not.
    monkeypatch.setattr("ray.cluster_resources", lambda: answers[0])
    watchdog = RayWatchdog(opened(None), lambda reason: None)
    assert watchdog._lost() is None

    def gone() -> None:
        raise ConnectionError

    monkeypatch.setattr("ray.cluster_resources", gone)
    assert watchdog._lost() == "the Ray cluster has not answered for 30 s"
