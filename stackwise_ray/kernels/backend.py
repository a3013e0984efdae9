"""Backends of the resolvent ops: what one must provide, the registry, and how one is chosen.

A backend is one module of `stackwise_ray.kernels.backends` that registers a `Backend` under its own name
(`reference`, `torch`, `cpu`, `triton`). The ops in `stackwise_ray.kernels.ops` check
shapes and values, call the chosen backend, reduce gradients over broadcast axes and cast; a backend sees valid
arguments with n >= 1.

A model keeps the one that the environment forces, and otherwise leaves the choice to the device of its tensors; a run
records the answer. Nothing swaps a backend silently.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from stackwise_ray.core.errors import ConfigError, did_you_mean
from stackwise_ray.core.registry import Registry

Gradient = Literal["adjoint", "autograd", "diagonal"]
"""How a backward pass is computed: exact adjoint recursions, autograd through the recursion (to compare), or only
∂g_i/∂a_i (the truncated gradient of the original model; `resolvent_diagonal` alone)."""

BACKEND_VARIABLE = "STACKWISE_BK_BACKEND"


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One implementation of both ops and their adjoints.

    Shapes: potential (B, H, n) real; coupling and hop broadcast to (B, H, n-1), shift to (B, H, n), both possibly
    with fewer axes; values (B, H, n, P) real or complex. Results have any strides and at least the precision of the
    op's output (made by `output_like`, they are handed on without a copy); a gradient has its argument's shape, or
    the broadcast shape, and is reduced in float64.
    """

    name: str
    rank: int  # order among the usable ones, fastest lowest
    unusable: Callable[[], str | None]  # the reason why this machine cannot run it, or None
    devices: frozenset[str] | None = None  # types of device that it computes on; None: any
    diagonal: Callable[..., Tensor]  # (potential, coupling, shift, causal) -> g (B, H, n)
    diagonal_backward: Callable[..., tuple[Tensor, Tensor, Tensor]]  # (grad, potential, coupling, shift, causal)
    apply: Callable[..., Tensor]  # (potential, hop, shift, values, causal) -> u (B, H, n, P)
    apply_backward: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]  # (grad, potential, hop, shift, values,
    #                                                                        output, causal)

    def computes_on(self, device: str) -> bool:
        """Whether it takes tensors on this type of device. On meta nothing is computed."""
        return self.devices is None or device in self.devices or device == "meta"


def complex_dtype(potential: Tensor) -> torch.dtype:
    """The type of an op's output: complex64 for arguments of 32 bits and below, complex128 for float64."""
    return torch.complex128 if potential.dtype == torch.float64 else torch.complex64


def output_like(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised (B, H, N) or (B, H, N, P) tensor in the layout of the ops' outputs: position-major."""
    return like.new_empty_strided(shape, output_strides(shape), dtype=dtype)


def output_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of `output_like`."""
    _, heads, n, *width = shape
    if not width:
        return n * heads, 1, heads
    p = width[0]
    return n * heads * p, p, heads * p, 1


BACKENDS: Registry[Backend] = Registry("kernel backend", package="stackwise_ray.kernels.backends")


def available_backends() -> tuple[str, ...]:
    """Names of the backends that this machine can run, fastest first, `reference` last."""
    usable = [backend for _, backend in BACKENDS.items() if backend.unusable() is None]
    return tuple(backend.name for backend in sorted(usable, key=lambda backend: backend.rank))


def forced_backend() -> str | None:
    """The backend that STACKWISE_BK_BACKEND names; None where it is not set.

    Raises:
        ConfigError: It is unknown, or cannot run on this machine.
    """
    name = os.environ.get(BACKEND_VARIABLE) or None
    return None if name is None else _usable(name, f"environment variable {BACKEND_VARIABLE}")


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def choose_backend(name: str | None = None, device: str | None = None) -> str:
    """The backend to use: `name`, else the one that STACKWISE_BK_BACKEND forces, else the fastest usable one.

    Args:
        device: Type of the device that the tensors are on ("cpu", "cuda"); None: a GPU where torch sees one.

    Raises:
        ConfigError: The asked-for backend is unknown, or cannot run on this machine or device.
    """
    name = forced_backend() if name is None else _usable(name)
    if name is None:
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return _computing_on(device)[0]
    if device is not None and not BACKENDS.get(name).computes_on(device):
        raise ConfigError(
            f"kernel backend '{name}' does not compute on {device}; choose one of {', '.join(_computing_on(device))}"
        )
    return name


def passed_over(chosen: str, device: str) -> dict[str, str]:
    """Why no faster backend than `chosen` computes on a type of device: the reason of each that was passed over.

    Empty where the environment forces one.
    """
    if forced_backend() is not None:
        return {}
    rank = BACKENDS.get(chosen).rank
    faster = [backend for _, backend in BACKENDS.items() if backend.rank < rank and backend.computes_on(device)]
    reasons = {backend.name: backend.unusable() for backend in faster}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _computing_on(device: str) -> list[str]:
    return [name for name in available_backends() if BACKENDS.get(name).computes_on(device)]


def _usable(name: str, source: str | None = None) -> str:
    if name not in BACKENDS:
        raise ConfigError(f"unknown kernel backend '{name}'; {did_you_mean(name, BACKENDS.names())}", source=source)
    reason = BACKENDS.get(name).unusable()
    if reason is not None:
        raise ConfigError(
            f"kernel backend '{name}' cannot run here: {reason}; choose one of {', '.join(available_backends())}",
            source=source,
        )
    return name
