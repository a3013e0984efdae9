"""Sums over the workers of a trial: buckets, numbers that are exact, and tensors that keep their shapes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from stackwise_ray.training.parallel import collectives
from stackwise_ray.training.parallel.collectives import Alone, TorchCollectives, buckets


@pytest.fixture
def group(tmp_path: Path) -> Iterator[TorchCollectives]:
    """A process group of one worker, which is this process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield TorchCollectives(torch.device("cpu"))
    dist.destroy_process_group()


def test_neighbours_of_one_type_are_summed_together_up_to_the_size_of_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "_BUCKET_BYTES", 40)
    small, other = torch.zeros(5), torch.zeros(5, dtype=torch.float64)
    sizes = [[tensor.nbytes for tensor in bucket] for bucket in buckets([small, small, small, other, small])]
    assert sizes == [[20, 20], [20], [40], [20]]
    assert [len(bucket) for bucket in buckets([torch.zeros(99), small, torch.zeros(6), small])] == [1, 1, 1, 1]
    assert buckets([]) == []


def test_every_tensor_has_its_own_sum_and_shape_afterwards(
    group: TorchCollectives, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collectives, "_BUCKET_BYTES", 40)
    tensors = [torch.arange(6.0).view(2, 3), torch.tensor(7.0), torch.arange(4.0).view(2, 2).t(), torch.ones(3, 0)]
    kept = [tensor.clone() for tensor in tensors]
    group.sum_(tensors)
    assert all(tensor.equal(before) for tensor, before in zip(tensors, kept, strict=True))


def test_a_sum_that_has_begun_is_there_when_it_was_ended(
    group: TorchCollectives, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = dist.all_reduce

    def with_another(tensor: torch.Tensor, **options: object) -> object:
        tensor.mul_(2)  # what a second worker with the same tensors adds
        return begun(tensor, **options)

    monkeypatch.setattr(dist, "all_reduce", with_another)
    tensors = [torch.ones(2, 2), torch.full((3,), 5.0)]
    end = group.begin_sum(tensors)
    assert tensors[1].tolist() == [5.0] * 3
    end()
    assert tensors[0].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert tensors[1].tolist() == [10.0] * 3
    assert group.sum_numbers([2**31 - 1, 3]) == [2**32 - 2, 6]


def test_numbers_are_exact_whatever_their_size(group: TorchCollectives) -> None:
    values = [0, 1, -1, 2**31 - 1, 2**31, 2**53 + 1, 2**62 + 12345, -(2**40) - 7]
    assert group.sum_numbers(values) == values
    assert [group.sum_number(value) for value in values] == values


def test_one_worker_alone_has_what_it_has() -> None:
    alone, tensor = Alone(), torch.arange(3.0)
    alone.sum_([tensor])
    alone.begin_sum([tensor])()
    assert tensor.tolist() == [0.0, 1.0, 2.0]
    assert (alone.sum_numbers((2, 3)), alone.sum_number(2**70)) == ([2, 3], 2**70)
