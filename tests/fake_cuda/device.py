"""The device: CPU tensors stay real, tensors on "cuda" are fake, and what a GPU would be waited for is noted.

`FakeCuda` stands below every other dispatch mode, where the CUDA kernels would be. It keeps three rules of the device:
tensors of both kinds do not mix, a generator belongs to its device, and memory that is not pinned is copied while the
program waits. Reading a number gives 1. `fake_cuda()` puts it in place, with what `torch.cuda` answers.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

aten = torch.ops.aten

WAITS = {aten._local_scalar_dense.default: "value read", aten.equal.default: "comparison read"}
SIZED_BY_DATA = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.repeat_interleave.Tensor,
}
COPIES = {aten._to_copy.default, aten.copy_.default}
DOUBLE = (torch.float64, torch.complex128)
CARD = {"name": "NVIDIA H200", "total_memory": 150_000_000_000, "major": 9, "minor": 0, "multi_processor_count": 132}


class Event(NamedTuple):
    """Something that a program on a GPU does beside computing.

    Attributes:
        during: What the program was doing (`FakeCuda.during`).
        what: "transfer to the device, pinned", "value read", …
        where: The innermost lines of the package that did it.
    """

    during: str
    what: str
    where: str


class FakeCuda(TorchDispatchMode):
    """Answers every operation that touches a CUDA tensor with a fake one.

    Attributes:
        during: What the program is doing now; the caller sets it.
        events: What was noted, with how often.
        doubles: Operations that gave a float64 tensor of more than one element, with where.
        operations: Names of the operations on the device, with how often.
        truth: What reading a boolean gives, one time after the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.during = "start"
        self.events: Counter[Event] = Counter()
        self.doubles: Counter[Event] = Counter()
        self.operations: Counter[tuple[str, str]] = Counter()
        self.truth: Iterator[bool] = itertools.repeat(False)
        self._pinned: dict[int, Tensor] = {}

    def note(self, what: str) -> None:
        """Something happens now."""
        self.events[Event(self.during, what, _where())] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, Tensor)]
        if func in (aten.is_pinned.default, aten._pin_memory.default):
            return self._pinning(func, args[0])
        mine = [tensor for tensor in tensors if self._is_mine(tensor)]
        made_here = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda"
        if kwargs.get("pin_memory"):
            return self._pin(func(*args, **{**kwargs, "pin_memory": False}))
        if not mine and not made_here:
            return func(*args, **kwargs)
        if func in WAITS:
            self.note(WAITS[func])
            return True if func is aten.equal.default else self._value(args[0].dtype)
        if func in COPIES:
            copied = self._copy(func, args, kwargs)
            if copied is not None:
                return copied
        self._keep_rules(func, tensors, mine, kwargs)
        if func is aten.nonzero.default:  # as many as there may be
            with self.fake:
                return torch.empty((args[0].numel(), args[0].ndim), dtype=torch.int64, device="cuda")
        with self.fake:
            result = func(*args, **kwargs)
        self._count(func, result)
        return result

    def _value(self, dtype: torch.dtype) -> bool | float | int:
        if dtype == torch.bool:
            return next(self.truth)
        return 1.0 if dtype.is_floating_point else 1

    def _is_mine(self, tensor: Tensor) -> bool:
        return isinstance(tensor, FakeTensor) and tensor.fake_mode is self.fake

    def _pinning(self, func: Any, tensor: Tensor) -> Any:
        if func is aten.is_pinned.default:
            return not isinstance(tensor, FakeTensor) and tensor.untyped_storage()._cdata in self._pinned
        return self._pin(tensor.clone())

    def _pin(self, tensor: Tensor) -> Tensor:
        self._pinned[tensor.untyped_storage()._cdata] = tensor  # kept alive: its key stays its own
        return tensor

    def _copy(self, func: Any, args: Any, kwargs: Any) -> Tensor | None:
        """What a copy between the kinds of device gives; None: it stays on the device."""
        to_self = func is aten.copy_.default
        source = args[1] if to_self else args[0]
        target = args[0].device if to_self else torch.device(kwargs.get("device") or source.device)
        if source.device.type == target.type:
            return None
        host = source if source.device.type == "cpu" else args[0] if to_self else None
        pinned = host is not None and host.untyped_storage()._cdata in self._pinned
        asked = args[2] if to_self and len(args) > 2 else kwargs.get("non_blocking", False)
        waits = not asked or not (pinned or host is None)  # a new copy on the host is in pinned memory, where asked
        direction = "to" if target.type == "cuda" else "from"
        self.note(f"transfer {direction} the device, {'waiting' if waits else 'pinned'}")
        if target.type == "cuda":
            if to_self:
                return args[0]  # type: ignore[no-any-return]
            with self.fake:
                dtype = kwargs.get("dtype") or source.dtype
                return torch.empty_strided(source.shape, source.stride(), dtype=dtype, device="cuda")
        if to_self:
            return args[0].fill_(1)  # type: ignore[no-any-return]
        return torch.ones(source.shape, dtype=kwargs.get("dtype") or source.dtype)

    def _keep_rules(self, func: Any, tensors: list[Tensor], mine: list[Tensor], kwargs: Any) -> None:
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != "cuda":
            raise RuntimeError(f"{func}: expected a generator of cuda, found one of {generator.device}")
        sized = func in SIZED_BY_DATA or (
            func in (aten.index.Tensor, aten.index_put_.default)
            and any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:])
        )
        if sized:
            self.note(f"size read, {func}")
        if mine and any(tensor.ndim and tensor.device.type == "cpu" for tensor in tensors):
            raise RuntimeError(f"{func}: tensors of cuda and of cpu")

    def _count(self, func: Any, result: Any) -> None:
        name = func._schema.name
        self.operations[self.during, name] += 1
        made = (leaf for leaf in tree_iter(result) if isinstance(leaf, Tensor))
        if not getattr(func, "is_view", False) and any(
            tensor.dtype in DOUBLE and tensor.numel() > 1 for tensor in made
        ):
            self.doubles[Event(self.during, name, _where())] += 1


def _where() -> str:
    """The innermost lines of the package that are running."""
    found: list[str] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and len(found) < 3:
        _, package, file = frame.f_code.co_filename.rpartition("/stackwise_ray/")
        if package:
            found.append(f"{file}:{frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(found) or "outside"


# ------------------------------------------------------------------------------------------ what torch.cuda answers


@contextlib.contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """One CUDA device without data, for what runs inside; the guard must be loaded."""
    mode = FakeCuda()
    stream = {
        "synchronize": lambda: mode.note("synchronize"),
        "wait_stream": lambda s: None,
        "wait_event": lambda e: None,
    }
    event: dict[str, Any] = {"record": lambda *_: None, "wait": lambda *_: None, "query": lambda: True}
    event["synchronize"] = lambda: mode.note("event waited for")
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "_lazy_call": lambda *_, **__: None,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: CARD["name"],
        "get_device_capability": lambda device=None: (CARD["major"], CARD["minor"]),
        "get_device_properties": lambda device=None: SimpleNamespace(**CARD),
        "mem_get_info": lambda device=None: (CARD["total_memory"], CARD["total_memory"]),
        "is_bf16_supported": lambda including_emulation=True: True,
        "max_memory_allocated": lambda device=None: 123_456_789,
        "reset_peak_memory_stats": lambda device=None: None,
        "set_per_process_memory_fraction": lambda fraction, device=None: None,
        "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device=None: None,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "is_current_stream_capturing": lambda: False,
        "synchronize": lambda device=None: mode.note("synchronize"),
        "current_stream": lambda device=None: SimpleNamespace(**stream),
        "Event": lambda *_, **__: SimpleNamespace(**event),
        "Stream": lambda *_, **__: SimpleNamespace(**stream),
        "stream": lambda stream: contextlib.nullcontext(),
        "device_of": lambda tensor: contextlib.nullcontext(),
    }
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        for name in ("torch.cuda.amp.common", "torch.amp.autocast_mode", "torch.amp.grad_scaler"):
            module = importlib.import_module(name)
            if hasattr(module, "amp_definitely_not_available"):
                stack.enter_context(mock.patch.object(module, "amp_definitely_not_available", return_value=False))
        stack.enter_context(mock.patch.object(nn.Module, "to", _moving(mode, nn.Module.to)))
        stack.enter_context(mock.patch.object(torch, "tensor", _from_data(torch.tensor)))
        stack.enter_context(mock.patch.object(torch, "Event", answers["Event"]))
        composite = functional.scaled_dot_product_attention
        stack.enter_context(mock.patch.object(functional, "scaled_dot_product_attention", _attending(composite)))
        stack.enter_context(mode)
        yield mode


def _moving(mode: FakeCuda, to_cpu: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """`Module.to` for a module whose parameters become fake: a parameter's data cannot be swapped for a fake one."""

    def to(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        wanted = args[0] if args else kwargs.get("device")
        if not isinstance(wanted, str | torch.device) or torch.device(wanted).type != "cuda":
            return to_cpu(self, *args, **kwargs)
        moved: dict[int, Tensor | None] = {id(None): None}
        for module in self.modules():
            for held in (module._parameters, module._buffers):
                for name, tensor in held.items():
                    if tensor is not None and id(tensor) not in moved and not mode._is_mine(tensor):
                        with mode.fake:
                            like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
                        trains = tensor.requires_grad
                        moved[id(tensor)] = nn.Parameter(like, trains) if held is module._parameters else like
                    held[name] = moved.get(id(tensor), tensor)
        return self

    return to


def _from_data(tensor: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.tensor`, which fills memory of the CPU and copies it where no mode can see that."""

    def make(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
        made = tensor(data, **kwargs)
        return made if device is None else made.to(device)

    return make


def _attending(composite: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Attention by the operation that CUDA takes (ATen/native/transformers/cuda/sdp_utils.cpp): flash attention for 16
    bits without a mask, the memory-efficient kernel where keys have as many heads as queries, else the composite."""

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if query.device.type != "cuda":
            return composite(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        if torch.is_autocast_enabled("cuda"):
            query, key, value = (x.to(torch.get_autocast_dtype("cuda")) for x in (query, key, value))
        width = query.shape[-1]
        if query.dtype in (torch.float16, torch.bfloat16) and attn_mask is None and value.shape[-1] == width <= 256:
            scale = width**-0.5 if scale is None else scale
            padded = [functional.pad(x, (0, -width % 8)) for x in (query, key, value)]
            output = aten._scaled_dot_product_flash_attention(*padded, dropout_p, is_causal, False, scale=scale)[0]
            return output[..., :width]
        if key.shape[-3] == query.shape[-3]:
            bias = None if attn_mask is None else _added(attn_mask, query.dtype)
            bias = None if bias is None else bias.expand(*query.shape[:-1], key.shape[-2])
            graded = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
            return aten._scaled_dot_product_efficient_attention(
                query, key, value, bias, graded, dropout_p, is_causal, scale=scale
            )[0]
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
        return aten._scaled_dot_product_attention_math(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)[
            0
        ]

    return attend


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as what is added to the scores."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)
