"""Sums of gradients inside the backward pass: when they begin, in which order, and what a worker may lack."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from stackwise_ray.training.parallel import collectives
from stackwise_ray.training.parallel.collectives import Alone, TorchCollectives
from stackwise_ray.training.parallel.gradient_sums import GradientSums
from stackwise_ray.training.parallel.parallelism import Replicated


class Noted(Alone):
    """Notes the size of every bucket whose sum begins and ends."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def begin_sum(self, bucket: Sequence[Tensor]) -> Callable[[], None]:
        size = sum(tensor.numel() for tensor in bucket)
        self.events.append(f"begin {size}")
        return lambda: self.events.append(f"end {size}")


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> list[nn.Parameter]:
    """Parameters of 1, 2, 3 and 4 numbers, each a bucket of its own."""
    monkeypatch.setattr(collectives, "_BUCKET_BYTES", 4)
    return [nn.Parameter(torch.ones(size)) for size in (1, 2, 3, 4)]


def loss_of(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Whose backward pass reaches the last parameter first."""
    total = torch.zeros((), dtype=torch.float64)
    for parameter in parameters:
        total = (total + 1).sin() + parameter.sum()
    return total


ORDER = ["begin 4", "begin 3", "begin 2", "begin 1"]


def test_a_sum_begins_while_the_backward_pass_is_still_at_work(chain: list[nn.Parameter]) -> None:
    noted = Noted()
    sums = GradientSums(chain, noted)
    chain[0].register_hook(lambda _: noted.events.append("the first gradient"))
    sums.watch()
    loss = loss_of(chain)
    loss.backward()
    assert noted.events == [*ORDER[:3], "the first gradient", ORDER[3]]
    sums.finish(loss.detach())
    assert noted.events[5:] == ["begin 1", "end 4", "end 3", "end 2", "end 1", "end 1"]  # and the loss's


@pytest.mark.parametrize("reached", [(), (0,), (3,), (0, 1, 3), (0, 1, 2, 3)])
def test_every_worker_begins_the_same_sums_in_the_same_order_whatever_its_pass_reaches(
    reached: tuple[int, ...], chain: list[nn.Parameter]
) -> None:
    noted = Noted()
    sums = GradientSums(chain, noted)
    sums.watch()
    loss = loss_of([chain[number] for number in reached])
    if reached:
        loss.backward()
    sums.finish(loss.detach())
    assert noted.events[:5] == [*ORDER, "begin 1"]
    assert [number for number, parameter in enumerate(chain) if parameter.grad is not None] == list(reached)


def test_the_gradients_of_earlier_micro_batches_are_in_the_sum(chain: list[nn.Parameter]) -> None:
    replicated = Replicated()
    loss_of(chain).backward()
    replicated.begin_sums(chain, Alone())
    loss = loss_of(chain)
    loss.backward()
    replicated.sum_gradients(loss.detach(), chain, Alone())
    assert chain[3].grad is not None
    assert chain[3].grad.tolist() == [2.0] * 4
    loss_of(chain).backward()  # nobody watches any more
    assert chain[3].grad.tolist() == [3.0] * 4


def test_a_gradient_that_comes_after_its_sum_has_begun_is_no_silent_error(chain: list[nn.Parameter]) -> None:
    GradientSums(chain, Alone()).watch()
    loss_of(chain).backward()
    with pytest.raises(RuntimeError, match="after its sum over the workers had begun"):
        loss_of(chain).backward()


@pytest.mark.usefixtures("process_group")
def test_integers_are_summed_between_hosts_whatever_the_device() -> None:
    """No tensor is made on the GPU, which would have to be read back: here there is none."""
    for device in ("cpu", "cuda"):
        assert TorchCollectives(torch.device(device)).sum_numbers([0, 2**70, -3]) == [0, 2**70, -3]
