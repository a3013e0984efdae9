"""How workers divide a trial: what each kind answers, and that shards come back whole, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from stackwise_ray.config.trial import ModelConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import prepare
from stackwise_ray.models import build_model
from stackwise_ray.training.assembly import assemble
from stackwise_ray.training.parallel.collectives import Alone
from stackwise_ray.training.parallel.parallelism import Replicated, SingleWorker
from tests.small_trials import TRIAL, with_training

CPU = torch.device("cpu")


class TwoAlike(Alone):
    """The sums of two workers that compute the same."""

    def begin_sum(self, bucket: Sequence[Tensor]) -> Callable[[], None]:
        for tensor in bucket:
            tensor.mul_(2)
        return lambda: None

    def sum_numbers(self, values: Sequence[int]) -> list[int]:
        return [2 * value for value in values]

    def sum_number(self, value: int) -> int:
        return 2 * value


def parameters() -> tuple[nn.Parameter, nn.Parameter]:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    used.grad = torch.tensor([1.0, 2.0])
    return used, unused


class OtherHasAll(TwoAlike):
    """The sums of this worker and one that has every gradient and the loss, each equal to `other`."""

    other = 3.0

    def begin_sum(self, bucket: Sequence[Tensor]) -> Callable[[], None]:
        for tensor in bucket:
            tensor.add_(self.other)
        return lambda: None

    def sum_numbers(self, values: Sequence[int]) -> list[int]:
        return [value + 1 for value in values]


def test_replicas_sum_loss_and_gradients_and_leave_out_a_gradient_that_no_worker_has() -> None:
    used, unused = parameters()
    loss = torch.tensor(0.5)
    Replicated().sum_gradients(loss, [used, unused], TwoAlike())
    assert loss == 1.0
    assert used.grad is not None
    assert used.grad.tolist() == [2.0, 4.0]
    assert unused.grad is None


def test_replicas_count_a_gradient_that_this_worker_alone_lacks_as_zero() -> None:
    used, unused = parameters()
    Replicated().sum_gradients(torch.tensor(0.5), [used, unused], OtherHasAll())
    assert used.grad is not None
    assert unused.grad is not None
    assert used.grad.tolist() == [4.0, 5.0]
    assert unused.grad.tolist() == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(("parallelism", "collectives"), [(SingleWorker(), Alone()), (Replicated(), TwoAlike())])
def test_a_parameter_that_no_loss_reaches_does_not_decay_whatever_the_number_of_workers(
    parallelism: SingleWorker, collectives: Alone | TwoAlike
) -> None:
    used, unused = parameters()
    optimizer = torch.optim.AdamW([used, unused], lr=0.1, weight_decay=0.5)
    parallelism.sum_gradients(torch.tensor(0.5), [used, unused], collectives)
    optimizer.step()
    assert (used < 1).all()
    assert unused.tolist() == [1.0, 1.0, 1.0]


def test_one_worker_leaves_loss_and_gradients_as_they_are() -> None:
    used, unused = parameters()
    SingleWorker().sum_gradients(torch.tensor(0.5), [used, unused], Alone())
    assert used.grad is not None
    assert used.grad.tolist() == [1.0, 2.0]
    assert unused.grad is None


@pytest.mark.parametrize("parallelism", [SingleWorker(), Replicated()])
def test_who_holds_the_whole_model_may_leave_a_checkpoint_alone_and_by_its_own_clock(parallelism: SingleWorker) -> None:
    assert not parallelism.gathers_checkpoints
    assert not parallelism.pads_passes
    for rank in (0, 1):
        assert parallelism.checkpoint_due(True, rank, TwoAlike())
        assert not parallelism.checkpoint_due(False, rank, TwoAlike())


@pytest.mark.usefixtures("module_cache")
def test_the_number_of_workers_and_the_trial_choose_the_kind() -> None:
    data = prepare(TRIAL.data)
    assert type(assemble(TRIAL, data, CPU).parallelism) is SingleWorker
    assert type(assemble(TRIAL, data, CPU, 0, 2).parallelism) is Replicated
    with pytest.raises(ConfigError, match="divides the model among several workers, but this trial has one"):
        assemble(with_training(parallel="sharded"), data, CPU)


@pytest.mark.usefixtures("process_group")
def test_a_model_that_was_shared_out_comes_back_whole_with_the_same_weights_and_classes() -> None:
    from stackwise_ray.training.parallel.sharding import Sharded

    config = ModelConfig(family="gpt2", role="decoder", n_layers=2, d_model=16, n_heads=2, d_ff=32)
    model = build_model(config, vocab_size=11, seq_len=8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    sharded = Sharded(model, CPU)
    sharded.share_out()
    name, shard = next(iter(model.named_parameters()))
    assert torch.equal(sharded.gathered_by_first(shard, 0), before[name])
    assert sharded.gathered_by_first(shard, 1).numel() == 0
    assert torch.equal(sharded.gathered(sharded.shared_like(before[name], shard)), before[name])
    sharded.make_whole()
    assert [type(module) for module in model.modules()] == kinds
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.usefixtures("process_group")
def test_workers_with_shards_follow_the_clock_of_the_first() -> None:
    from stackwise_ray.training.parallel.sharding import Sharded

    config = ModelConfig(family="gpt2", role="decoder", n_layers=1, d_model=16, n_heads=2, d_ff=32)
    sharded = Sharded(build_model(config, vocab_size=11, seq_len=8), CPU)
    assert sharded.gathers_checkpoints
    assert sharded.pads_passes
    assert sharded.checkpoint_due(True, 0, Alone())
    assert not sharded.checkpoint_due(True, 1, Alone())
    assert not sharded.checkpoint_due(False, 0, Alone())
