"""Checkpoints are written while training goes on: from a copy, one at a time, seldom enough, and no failure is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from unittest.mock import Mock

import pytest
import torch

from stackwise_ray.core.errors import DiskFullError, StaleAttemptError
from stackwise_ray.training.checkpoint_writer import CheckpointWriter, host_copy
from stackwise_ray.training.checkpoints import Checkpoint


class Disk:
    """Keeps what is saved; while it is held, a write does not end."""

    def __init__(self) -> None:
        self.saved: list[Checkpoint] = []
        self.free = threading.Event()
        self.free.set()
        self.failure: Exception | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        assert self.free.wait(10)
        if self.failure is not None:
            raise self.failure
        self.saved.append(checkpoint)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def checkpoint(step: int = 1, value: float = 1.0) -> Checkpoint:
    return Checkpoint(step=step, tensors={"model": {"w": torch.full((3, 2), value)}}, state={"counts": [step]})


def make(save: Callable[[Checkpoint], object], clock: Clock | None = None, least: float = 20.0, costs: bool = False):
    return CheckpointWriter(save, least_seconds=least, clock=clock or Clock(), thread_costs=costs)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("checkpoint")]


def test_what_training_changes_during_a_write_is_not_in_the_checkpoint():
    disk, live = Disk(), checkpoint()
    disk.free.clear()
    writer = make(disk.save)
    writer.write(live, began=100.0)
    live.tensors["model"]["w"].fill_(7)
    live.state["counts"].append(8)
    disk.free.set()
    writer.wait()
    (saved,) = disk.saved
    assert saved.tensors["model"]["w"].eq(1).all()
    assert saved.state == {"counts": [1]}
    writer.close()


def test_a_copy_of_any_layout_is_equal_and_shares_no_memory():
    parameter = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    tensors = {"turned": parameter.t(), "none": torch.empty(0), "number": torch.tensor(3), "half": torch.ones(2).half()}
    copied = host_copy(Checkpoint(step=1, tensors={"a": tensors}, state={})).tensors["a"]
    for name, tensor in tensors.items():
        assert copied[name].dtype == tensor.dtype
        assert copied[name].equal(tensor)
        assert copied[name].is_contiguous()
        assert not copied[name].requires_grad
        assert not tensor.numel() or copied[name].data_ptr() != tensor.data_ptr()


def test_a_second_write_waits_for_the_first_and_both_are_there():
    disk = Disk()
    disk.free.clear()
    writer = make(disk.save)
    writer.write(checkpoint(1), began=100.0)
    threading.Timer(0.05, disk.free.set).start()
    writer.write(checkpoint(2), began=100.0)
    assert [one.step for one in disk.saved][:1] == [1]
    writer.wait()
    assert [one.step for one in disk.saved] == [1, 2]
    writer.close()


def test_none_is_due_while_one_is_being_written():
    disk, clock = Disk(), Clock()
    writer = make(disk.save, clock)
    assert not writer.due()
    clock.now += 20
    assert writer.due()
    disk.free.clear()
    writer.write(checkpoint(), began=clock.now)
    clock.now += 1000
    assert not writer.due()
    disk.free.set()
    writer.wait()
    assert writer.due()
    writer.close()


def test_the_next_is_due_once_the_last_has_cost_two_per_cent_of_the_time():
    disk, clock = Disk(), Clock()
    writer = make(disk.save, clock)
    clock.now += 3  # for which the loop waited
    writer.write(checkpoint(), began=clock.now - 3)
    writer.wait()
    clock.now = 100.0 + 149.9
    assert not writer.due()
    clock.now = 100.0 + 150
    assert writer.due()
    writer.close()


@pytest.mark.parametrize("costs", [True, False])
def test_the_threads_processor_time_counts_where_it_is_taken_from_training(costs, monkeypatch):
    spent = iter([0.0, 2.0])
    monkeypatch.setattr("stackwise_ray.training.checkpoint_writer.time.thread_time", lambda: next(spent))
    clock = Clock()
    writer = make(Disk().save, clock, costs=costs)
    writer.write(checkpoint(), began=clock.now)
    writer.wait()
    clock.now += 99
    assert writer.due() is not costs
    clock.now += 1
    assert writer.due()
    writer.close()


def test_with_zero_seconds_one_is_always_due_whatever_it_costs():
    clock = Clock()
    writer = make(Disk().save, clock, least=0.0)
    writer.write(checkpoint(), began=clock.now - 1000)
    assert writer.due()
    writer.close()


@pytest.mark.parametrize("failure", [DiskFullError("no space left"), StaleAttemptError("superseded")], ids=type)
@pytest.mark.parametrize("look", ["due", "wait", "write"])
def test_what_a_write_fails_with_is_raised_once_at_the_next_look(failure, look):
    disk = Disk()
    disk.failure = failure
    writer = make(disk.save)
    writer.write(checkpoint(), began=100.0)
    writer._threads.shutdown()  # so that `due` finds it ended
    looks = {"due": writer.due, "wait": writer.wait, "write": lambda: writer.write(checkpoint(), began=100.0)}
    with pytest.raises(type(failure), match=str(failure)):
        looks[look]()
    writer.wait()
    assert writer.close() is None


def test_a_wait_that_is_interrupted_forgets_neither_the_write_nor_its_failure(monkeypatch):
    disk = Disk()
    disk.free.clear()
    writer = make(disk.save)
    writer.write(checkpoint(), began=100.0)
    with monkeypatch.context() as interrupted:
        interrupted.setattr("concurrent.futures.Future.result", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            writer.wait()
    disk.failure = DiskFullError("no space left")
    disk.free.set()
    with pytest.raises(DiskFullError, match="no space left"):
        writer.wait()
    writer.close()


def test_closing_ends_the_write_and_the_thread_and_gives_a_failure_that_nobody_saw():
    disk = Disk()
    disk.free.clear()
    writer = make(disk.save)
    writer.write(checkpoint(), began=100.0)
    assert threads()
    disk.failure = DiskFullError("no space left")
    threading.Timer(0.05, disk.free.set).start()
    assert writer.close() is disk.failure
    assert not threads()
    assert not disk.saved
