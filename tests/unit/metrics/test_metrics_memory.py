"""Memory counters by hand: storages, views, freed tensors, saved activations."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from stackwise_ray.metrics.memory import (
    LiveTensorPeak,
    SavedActivations,
    device_peak_bytes,
    in_shards,
    process_peak_bytes,
    reset_device_peak,
    tensors_of,
)

KIB = 1024  # bytes in 256 float32


def block(n: int = 1) -> torch.Tensor:
    return torch.zeros(256 * n)


def test_the_peak_is_what_was_alive_at_once() -> None:
    with LiveTensorPeak() as memory:
        a = block()
        b = block(2)
        del a
        c = block()
    assert memory.peak_bytes == 3 * KIB
    assert memory.live_bytes == 3 * KIB
    del b
    assert memory.live_bytes == KIB
    del c
    assert memory.live_bytes == 0


def test_views_share_their_storage() -> None:
    with LiveTensorPeak() as memory:
        a = block(4)
        views = [a[:10], a.view(2, 512), a.t(), a.detach()]
    assert memory.peak_bytes == 4 * KIB
    del a
    assert memory.live_bytes == 4 * KIB  # a view keeps all of it
    del views
    assert memory.live_bytes == 0


def test_existing_tensors_count_from_the_beginning() -> None:
    weight = block(3)
    with LiveTensorPeak([weight, weight.view(3, 256)]) as memory:
        assert memory.peak_bytes == 3 * KIB
        other = block()
    assert memory.peak_bytes == 4 * KIB
    assert other.numel() == 256


def test_tensors_that_are_read_count_too() -> None:
    given = block(2)
    with LiveTensorPeak() as memory:
        result = given + 1
    assert memory.peak_bytes == 4 * KIB
    assert result.numel() == 512


def test_a_storage_that_grows_counts_with_its_new_size() -> None:
    with LiveTensorPeak() as memory:
        a = block()
        a.resize_(1024)
    assert memory.peak_bytes == 4 * KIB


def test_a_training_step_of_one_layer_by_hand() -> None:
    layer = nn.Linear(256, 256, bias=False)  # 256 KiB
    x = torch.zeros(4, 256)  # 4 KiB
    with LiveTensorPeak(tensors_of(layer)) as memory:
        y = layer(x)  # 4 KiB
        y.backward(torch.ones_like(y))  # 4 KiB, and the gradient: 256 KiB
    assert memory.peak_bytes == (256 + 4 + 4 + 4 + 256) * KIB
    assert memory.live_bytes == (256 + 4 + 4 + 256) * KIB


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_optimizer_state_counts_as_long_lived(fake: bool) -> None:
    from contextlib import nullcontext

    with FakeTensorMode() if fake else nullcontext():
        layer = nn.Linear(256, 4, bias=False)  # 4 KiB
        optimizer = torch.optim.AdamW(layer.parameters())
        layer(torch.zeros(1, 256)).sum().backward()
        optimizer.step()
        sizes = [tensor.untyped_storage().nbytes() for tensor in tensors_of(layer, optimizer)]
    assert sum(sizes) == 4 * 4 * KIB + 4  # weight, gradient, two moments, and the step


def test_saved_activations_are_unique_storages_without_parameters() -> None:
    layer = nn.Linear(256, 256, bias=False)
    x = torch.zeros(4, 256, requires_grad=True)
    with SavedActivations(layer) as saved:
        y = layer(x)  # keeps x, and its own weight, which is no activation
        z = y.exp()  # keeps z
        w = z * z  # keeps z twice
    assert saved.bytes == 8 * KIB
    assert w.requires_grad


def test_nothing_is_saved_without_gradients() -> None:
    layer = nn.Linear(256, 256)
    with torch.no_grad(), SavedActivations(layer) as saved:
        layer(torch.zeros(4, 256)).exp()
    assert saved.bytes == 0


def test_saved_activations_of_steps_that_are_over_do_not_add_up() -> None:
    layer = nn.Linear(256, 256, bias=False)
    with SavedActivations(layer) as saved:
        for _ in range(3):
            layer(torch.zeros(4, 256)).exp().sum().backward()
            gc.collect()
    assert saved.bytes == 8 * KIB


def test_gradients_are_the_same_under_the_counters() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 16), torch.randn(4, 16)
    (plain,) = torch.autograd.grad(layer(x).exp().sum(), [layer.weight])
    with LiveTensorPeak(), SavedActivations(layer):
        (counted,) = torch.autograd.grad(layer(x).exp().sum(), [layer.weight])
    assert torch.equal(plain, counted)


def test_the_process_peak_never_falls_and_is_in_bytes() -> None:
    before = process_peak_bytes()
    assert before > 20 * 2**20  # a process with torch in it
    assert process_peak_bytes() >= before


def test_a_cpu_has_no_allocator_peak() -> None:
    reset_device_peak(torch.device("cpu"))
    assert device_peak_bytes(torch.device("cpu")) is None


def test_of_a_tensor_made_of_tensors_its_parts_count() -> None:
    from torch.testing._internal.two_tensor import TwoTensor

    pair = TwoTensor(block(2), block(2))
    with LiveTensorPeak([pair]) as memory:
        assert memory.live_bytes == 4 * KIB
    del pair
    assert memory.live_bytes == 0


def test_a_sparse_tensor_has_no_storage_of_its_own() -> None:
    sparse = torch.eye(4).to_sparse()
    with LiveTensorPeak([sparse]) as memory:
        pass
    assert memory.peak_bytes == 0


@pytest.mark.parametrize(("shrinking", "peak"), [(True, 3), (False, 6)])
def test_what_shrinks_without_an_operation_is_noted_where_that_is_asked_for(shrinking: bool, peak: int) -> None:
    gathered = block(3)
    with LiveTensorPeak([gathered], shrinking=shrinking) as memory:
        gathered.untyped_storage().resize_(0)
        other = block(2)
        third = block(1)
    assert other.numel() + third.numel() == 3 * 256
    assert memory.peak_bytes == peak * KIB
    assert memory.live_bytes == (3 if shrinking else 6) * KIB


class Gathered(nn.Linear):
    """A layer whose weight is another one for as long as it is gathered, as that of a model in shards."""

    def unshard(self) -> None:
        self.shard, self.weight = self.weight, self.whole

    def reshard(self) -> None:
        self.weight = self.shard


def test_gathered_weights_are_no_activations() -> None:
    layer = Gathered(256, 256, bias=False)
    layer.whole = nn.Parameter(torch.zeros(256, 256))
    shard = layer.weight
    assert (in_shards(layer), in_shards(nn.Linear(1, 1))) == (True, False)
    x = torch.zeros(4, 256, requires_grad=True)
    with SavedActivations(nn.Sequential(layer)) as saved:
        assert layer.weight is shard
        layer.unshard()
        assert layer(x).requires_grad
    assert saved.bytes == 4 * KIB


def test_the_peak_of_the_process_is_in_bytes() -> None:
    import psutil

    resident = psutil.Process().memory_info().rss
    assert 0.5 * resident < process_peak_bytes() < psutil.virtual_memory().total
