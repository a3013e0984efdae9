"""Dividing a model among its workers (FSDP2): each holds a shard of every parameter, gradient and optimizer state.

Between stages a model is whole, on every worker: what grows, unties and freezes knows nothing of shards. A `Sharded`
shares it out when a stage begins and makes it whole when the stage ends. Checkpoints and the final model are whole as
well, so that another number of workers can take them up.

Source: Zhao et al. 2023 (2304.11277), in torch's second form, `torch.distributed.fsdp.fully_shard`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._composable_state import _module_state_mapping
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from stackwise_ray.models.stack_view import stack_view
from stackwise_ray.training.parallel.collectives import Collectives
from stackwise_ray.training.parallel.parallelism import Parallelism


class Sharded(Parallelism):
    """A model that is now whole, now shared out over all workers of the default group. Every worker calls alike.

    A block's weights are gathered when its pass begins and given back when it ends; gradients are summed (not
    averaged: every worker computes its part of the global mean) as they are shared out.

    Args:
        model: Whole, and the same on every worker.
    """

    pads_passes = True
    gathers_checkpoints = True

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model = model
        self._mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        self._bare: list[tuple[nn.Module, type, dict[str, Any], dict[str, Any]]] = []

    def share_out(self) -> None:
        """Leaves to each worker its shard of every parameter."""
        self._bare = [(module, type(module), *_attributes(module)) for module in self._model.modules()]
        for module in (*stack_view(self._model).blocks, self._model):
            sharded: FSDPModule = fully_shard(module, mesh=self._mesh, reshard_after_forward=True)
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)

    @torch.no_grad()
    def make_whole(self) -> None:
        """Gives every worker all of the model, as plain parameters with the gradients' flags that they had."""
        whole: dict[int, nn.Parameter] = {}
        for module, kind, attributes, tables in self._bare:
            for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
                if id(parameter) not in whole:  # a tied one stays tied
                    full = nn.Parameter(self.gathered(parameter), requires_grad=parameter.requires_grad)
                    whole[id(parameter)] = full
                module._parameters[name] = whole[id(parameter)]
            # torch has no way back from `fully_shard`, which gives a module another class, hooks and marks, and keeps
            # a table of the modules that it has been given.
            module.__class__ = kind
            for key in vars(module).keys() - attributes.keys() - _OWN:
                delattr(module, key)
            vars(module).update(attributes)
            for name, table in tables.items():  # in place: a hook's handle knows its table
                attributes[name].clear()
                attributes[name].update(table)
            _module_state_mapping.pop(module, None)
        self._bare = []

    def begin_sums(self, parameters: Sequence[nn.Parameter], collectives: Collectives) -> None:
        """Every backward pass sums its gradients."""

    def sum_gradients(self, loss: Tensor, parameters: Sequence[nn.Parameter], collectives: Collectives) -> None:
        """Sums the loss alone: the backward pass has summed the gradients."""
        collectives.sum_([loss])

    def gathered(self, tensor: Tensor) -> Tensor:
        """All of a tensor of which each worker may hold a shard (then every worker has to ask)."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def gathered_by_first(self, tensor: Tensor, rank: int) -> Tensor:
        """Gathers into the memory of the first worker's host, which writes it."""
        gathered = self.gathered(tensor.detach())
        return gathered.cpu() if rank == 0 else gathered.new_empty(0)

    def shared_like(self, tensor: Tensor, own: Tensor) -> Tensor:
        """This worker's shard of a whole tensor where `own` is a shard, else the tensor itself."""
        if not isinstance(own, DTensor):
            return tensor
        whole = tensor.to(own.device)
        # Every worker has the whole: none has to send.
        return distribute_tensor(whole, own.device_mesh, own.placements, src_data_rank=None)

    def checkpoint_due(self, due: bool, rank: int, collectives: Collectives) -> bool:
        """All gather together, so the first worker's clock counts."""
        return collectives.sum_number(int(due and rank == 0)) == 1


_OWN = frozenset({"_parameters", "_buffers", "_modules"})


def _attributes(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """A module's attributes but its tensors and parts, and copies of those that are tables, such as its hooks."""
    attributes = {key: value for key, value in vars(module).items() if key not in _OWN}
    return attributes, {key: value.copy() for key, value in attributes.items() if isinstance(value, dict)}
