"""Memory that a step needs: live tensors, activations saved for the backward pass, and the peaks of process and device.

`memory/peak_bytes` is the peak of training steps: on a GPU the allocator's, on a CPU that of `LiveTensorPeak`. The
planner runs the same step on fake tensors (`torch._subclasses.FakeTensorMode`), which have sizes and no data. The
two dispatching counters see every operation, so they wrap one step of every new batch shape and not all steps.
"""

from __future__ import annotations

import resource
import sys
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass


class _Storages:
    """Storages that are alive, each once, with the sum of their bytes."""

    def __init__(self) -> None:
        self.bytes = 0
        self._sizes: dict[int, int] = {}
        self._references: dict[int, weakref.ref[Any]] = {}

    def add(self, tensor: torch.Tensor) -> None:
        """Adds the storage under `tensor`, or notes its new size; of a tensor made of tensors, theirs."""
        if is_traceable_wrapper_subclass(tensor):  # a shard, which itself claims the size of the whole
            for part in (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]):
                if isinstance(part, torch.Tensor):
                    self.add(part)
            return
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):
            return  # sparse and functorch tensors have none of their own
        key = storage._cdata
        if key not in self._references:
            # The wrapper lives exactly as long as the storage, so the callback tells when the memory is given back.
            self._references[key] = weakref.ref(storage, lambda _: self._remove(key))
        self.bytes += storage.nbytes() - self._sizes.get(key, 0)
        self._sizes[key] = storage.nbytes()

    def refresh(self) -> None:
        """Notes what became smaller without any operation: gathered weights are given back in that way."""
        for key, reference in self._references.items():
            storage = reference()
            if storage is not None:
                self.bytes += storage.nbytes() - self._sizes[key]
                self._sizes[key] = storage.nbytes()

    def _remove(self, key: int) -> None:
        self._references.pop(key, None)
        self.bytes -= self._sizes.pop(key, 0)

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._references


class LiveTensorPeak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The largest number of bytes in tensors that are alive at once inside the ``with`` block.

    Counted are the storages of `existing` tensors and of every tensor that an operation inside the block reads or
    returns, each once, until it is freed. Scratch memory inside an operation and the allocator's rounding are not.

    Args:
        existing: Tensors that are alive before: parameters, gradients, optimizer state, the batch.
        shrinking: Whether storages shrink while they live, as the gathered weights of a model in shards do.

    Attributes:
        peak_bytes: The peak so far.
        live_bytes: Alive now.

    Example:
        >>> with LiveTensorPeak() as memory:
        ...     for _ in range(3):
        ...         x = torch.zeros(256, dtype=torch.float32)
        >>> memory.peak_bytes  # the old x lives while the new one is made
        2048
    """

    def __init__(self, existing: Iterable[torch.Tensor] = (), *, shrinking: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._storages, self._shrinking = _Storages(), shrinking
        for tensor in existing:
            self._storages.add(tensor)
        self.peak_bytes = self._storages.bytes

    @property
    def live_bytes(self) -> int:
        """Bytes in tensors that are alive now."""
        return self._storages.bytes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self._add((*args, *kwargs.values(), result))
        if self._storages.bytes > self.peak_bytes:
            if self._shrinking:
                self._storages.refresh()
            self.peak_bytes = max(self.peak_bytes, self._storages.bytes)
        return result

    def _add(self, values: Iterable[Any]) -> None:
        """Operations take and return tensors and lists of them; torch's general walk takes four times as long."""
        for value in values:
            if isinstance(value, torch.Tensor):
                self._storages.add(value)
            elif isinstance(value, (tuple, list)):
                self._add(value)


class SavedActivations:
    """Bytes that autograd keeps for the backward pass of a forward pass inside the ``with`` block.

    Each storage counts once and whole (a saved view keeps its base alive); parameters and buffers of `model` do not
    count, since they are there anyway.

    Example:
        >>> x = torch.ones(256, requires_grad=True)
        >>> with SavedActivations(nn.Identity()) as saved:
        ...     y = x.exp()  # keeps its result
        >>> saved.bytes
        1024
    """

    def __init__(self, model: nn.Module) -> None:
        self._own = _Storages()
        for tensor in (*model.parameters(), *model.buffers()):
            self._own.add(tensor)
        for module in model.modules():
            if in_shards(module):  # a pass reads weights gathered into storages of their own
                module.unshard()  # type: ignore[operator]
                for tensor in module.parameters():
                    self._own.add(tensor)
                module.reshard()  # type: ignore[operator]
        self._saved = _Storages()
        self._peak = 0
        self._hooks = saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def __enter__(self) -> SavedActivations:
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._hooks.__exit__(*exception)

    @property
    def bytes(self) -> int:
        """The most bytes that were saved at once."""
        return self._peak

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor not in self._own:
            self._saved.add(tensor)
            self._peak = max(self._peak, self._saved.bytes)
        return tensor


def tensors_of(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Iterable[torch.Tensor]:
    """What lives as long as training: parameters, gradients, buffers, and the optimizer's state."""
    for parameter in model.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
    yield from model.buffers()
    if optimizer is not None:
        for state in optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def in_shards(module: nn.Module) -> bool:
    """Whether the workers hold the module's parameters in shards (an `FSDPModule`, whose import takes a while)."""
    return hasattr(module, "unshard") and hasattr(module, "reshard")


def process_peak_bytes() -> int:
    """The most physical memory that this process has held since it began, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS reports bytes, Linux KiB


def reset_device_peak(device: torch.device) -> None:
    """Begins a new measurement of `device_peak_bytes`; on a CPU there is nothing to reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def device_peak_bytes(device: torch.device) -> int | None:
    """The allocator's peak on a GPU in bytes since the last reset; None on a CPU, which has no such counter."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
