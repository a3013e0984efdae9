"""What the resolvent ops take: the checks of types, devices, shapes and values, each with a message that names the
argument. Called by `ops` before and inside its custom ops.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

_SINGLE = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.complex64})
_DOUBLE = frozenset({torch.float64, torch.complex128})
_ALLOWED = _SINGLE | _DOUBLE


def check_arguments(potential: Tensor, shift: Tensor, bonds: dict[str, Tensor], values: Tensor | None = None) -> None:
    """Types, devices and shapes, of which a traced call is as sure as an eager one."""
    ((bond, bonds_tensor),) = bonds.items()
    arguments = {"potential": potential, bond: bonds_tensor, "shift": shift}
    if values is not None:
        arguments["values"] = values
    for name, argument in arguments.items():
        if not isinstance(argument, Tensor):
            raise ValueError(f"{name} is {argument!r}; it must be a tensor, such as torch.tensor({argument!r})")
    device, is_double = potential.device, potential.dtype in _DOUBLE
    tangents = forward_ad._current_level >= 0
    for name, argument in arguments.items():
        if tangents and forward_ad.unpack_dual(argument).tangent is not None:  # type: ignore[no-untyped-call]
            raise NotImplementedError(
                f"{name} carries a tangent: the resolvent ops have no forward-mode derivative; use reverse mode"
            )
        dtype = argument.dtype
        if dtype not in _ALLOWED:
            raise ValueError(f"{name} is {dtype}; it must be float16, bfloat16, float32, float64 or complex")
        if argument.device != device:
            raise ValueError(f"{name} is on {argument.device} but potential on {device}; move one")
        if (dtype in _DOUBLE) != is_double:
            raise ValueError(
                f"{name} is {dtype} but potential {potential.dtype}: single and double precision cannot be mixed;"
                " convert one"
            )
    for name in ("potential", bond):
        if arguments[name].is_complex():
            raise ValueError(f"{name} is {arguments[name].dtype}; it must be real")
    if not shift.is_complex():
        raise ValueError(f"shift is {shift.dtype}; it must be complex with a positive imaginary part")
    if potential.ndim != 3:
        raise ValueError(f"potential has shape {tuple(potential.shape)}; it must be (batch, heads, n)")
    batch, heads, n = potential.shape
    _check_broadcast(bond, bonds_tensor, (batch, heads, max(n - 1, 0)))
    _check_broadcast("shift", shift, (batch, heads, n))
    if values is not None and (values.ndim != 4 or values.shape[:3] != potential.shape):
        raise ValueError(
            f"values has shape {tuple(values.shape)}; it must be (batch, heads, n, p) = ({batch}, {heads}, {n}, p)"
        )


def _check_broadcast(name: str, argument: Tensor, target: tuple[int, ...]) -> None:
    shape = tuple(argument.shape)
    fits = all(have in (1, want) for have, want in zip(reversed(shape), reversed(target), strict=False))
    if len(shape) > 3 or not fits:
        raise ValueError(f"{name} has shape {shape}, which does not broadcast to {target}")


def check_gradient(gradient: str, allowed: tuple[str, ...]) -> None:
    """Refuses a gradient that the op does not have."""
    if gradient not in allowed:
        raise ValueError(f"gradient is '{gradient}'; here it must be one of {', '.join(allowed)}")


def check_values(shift: Tensor, coupling: Tensor | None = None) -> None:
    """Refuses values for which the recursion is not contractive. A NaN is refused as well."""
    lowest = shift.imag
    if lowest.numel() and not bool((lowest > 0).all()):
        worst = float(lowest.min())
        raise ValueError(f"shift has an imaginary part of {worst:g}; it must be > 0 everywhere")
    if coupling is not None and coupling.numel() and not bool((coupling >= 0).all()):
        raise ValueError(f"coupling has an entry of {float(coupling.min()):g}; it must be >= 0 everywhere (k = t²)")
