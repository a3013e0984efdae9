"""The `triton` backend: the recursions as Triton kernels on a CUDA device, float64 inside, nothing saved.

This module hands tensors of any strides to the kernels of `triton_kernels` and `triton_gradients` as addresses and
strides: broadcast axes are read with stride 0, and the gradient of an argument with one value per lane is summed over
the positions in the kernel. Triton is imported, and a kernel compiled, when a function is first called.

With TRITON_INTERPRET=1 in the environment from the start of the process, triton runs the kernels in its interpreter.
The backend then computes on the CPU, slowly, and comes after `torch`, so that only those who ask for it get it:
that is how the kernels are tested where there is no GPU.

Called through `stackwise_ray.kernels.ops`. Shape letters: B batch, H heads, N positions, P values.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sysconfig
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stackwise_ray.kernels.backend import BACKENDS, Backend, complex_dtype, output_like

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether triton interprets, as it decides when it is imported: a later change of the environment changes nothing."""

STEPS = 64
"""Positions of a chunk, which one thread walks; a power of two. Of the diagonal a window of eight lanes is 64 KiB then,
and should stay in the first cache for the second walk (reasoned, not timed)."""

THREADS = 256
"""Threads of a program at most, where the values of a lane are not more: chunks of a window times channels. At most 128
registers a thread let two programs share a multiprocessor; compiled for sm_90 the kernels take 64 to 128."""

SECTOR_LANES = 8
"""Adjacent channels of a program at least: eight float32 fill the smallest access to memory, 32 bytes."""

_INSTALLED = importlib.util.find_spec("triton") is not None


def unusable() -> str | None:
    """Why this machine cannot run the backend, or None."""
    if not _INSTALLED:
        return "triton is not installed"
    if not INTERPRETED and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if not INTERPRETED:
        return launcher_problem(os.environ.get("CC"), os.environ.get("PATH"), python_headers())
    return None


@functools.lru_cache(maxsize=8)
def launcher_problem(cc: str | None, path: str | None, headers: str) -> str | None:
    """Why triton cannot build what launches its kernels, or None; it does so with a C compiler at their first use.

    Args:
        cc: The variable CC. Triton takes it as one word, and without it gcc or clang.
        path: The variable PATH.
        headers: Folder in which Python.h should be.
    """
    if cc is not None and shutil.which(cc, path=path) is None:
        return f"triton needs a C compiler, and CC = {cc!r} is not a program on PATH"
    if cc is None and not any(shutil.which(name, path=path) for name in ("gcc", "clang")):
        return "triton needs a C compiler, and neither gcc nor clang is on PATH"
    if not os.path.isfile(os.path.join(headers, "Python.h")):
        return f"triton needs Python's headers, and there is no Python.h in {headers}"
    return None


def python_headers() -> str:
    """The folder in which triton looks for Python.h."""
    scheme = sysconfig.get_default_scheme()
    return sysconfig.get_paths("posix_prefix" if scheme == "posix_local" else scheme)["include"]  # Debian's own scheme


# ---------------------------------------------------------------------------------------------------- how it is cut


@dataclass(frozen=True)
class Tiling:
    """How a call is cut: a program owns `lanes` lanes of `width` values and walks windows of chunks × steps."""

    lanes: int
    width: int  # values of a lane, rounded up to a power of two
    chunks: int
    steps: int

    @classmethod
    def of(cls, potential: Tensor, values: int = 1) -> Tiling:
        batch, heads, n = potential.shape
        width = _power_of_two(values)
        lanes = max(min(SECTOR_LANES, _power_of_two(batch * heads)) // width, 1)
        steps = min(STEPS, _power_of_two(n))
        chunks = min(max(THREADS // (lanes * width), 1), _power_of_two(-(-n // steps)))
        return cls(lanes, width, chunks, steps)

    @property
    def warps(self) -> int:
        return min(max(self.lanes * self.width * self.chunks // 32, 1), 16)


def _power_of_two(x: int) -> int:
    """The least one that is not below x."""
    return 1 << (x - 1).bit_length()


def _launch(name: str, potential: Tensor, tiling: Tiling, /, **arguments: Any) -> None:
    """Starts a kernel on the device of the tensors; the arguments that say how it is cut are added here."""
    from stackwise_ray.kernels import triton_gradients, triton_kernels

    batch, heads, n = potential.shape
    arguments |= {"lanes": batch * heads, "heads": heads, "n": n}
    arguments |= {"STEPS": tiling.steps, "CHUNKS": tiling.chunks, "LANES": tiling.lanes}
    # Fused multiply-adds round less; which is the default depends on the version of triton.
    arguments |= {"num_warps": tiling.warps, "enable_fp_fusion": True}
    if "width" in arguments:
        arguments["WIDTH"] = tiling.width
    programs = -(-batch * heads // tiling.lanes)
    # torch.cuda.device_of leaves everything as it is for tensors of the CPU (the interpreter's).
    with torch.cuda.device_of(potential):  # type: ignore[no-untyped-call]
        kernel: Any = getattr(triton_gradients if name.endswith("adjoint") else triton_kernels, name)
        kernel[(programs,)](**arguments)


# ------------------------------------------------------------------------------------ tensors, as the kernels see them

View = tuple[Tensor, int, int, int, int]


def _plain(x: Tensor) -> Tensor:
    """A tensor that an address and strides describe: nothing negated or conjugated on reading."""
    return x.resolve_conj().resolve_neg()


def _view(x: Tensor, axes: int = 3) -> View:
    """Tensor and strides of batch, head, position and value (`axes`: 3, or 4 with a value). `x` is plain."""
    strides = [0 if size == 1 else stride for size, stride in zip(x.shape, x.stride(), strict=True)]
    batch, head, position, value = [0] * (axes - len(strides)) + strides + [0] * (4 - axes)
    return torch.view_as_real(x) if x.is_complex() else x, batch, head, position, value


def _scratch(potential: Tensor, *width: int, real: bool = False) -> Tensor:
    """Work space (B, H, N) or (B, H, N, P) in double precision."""
    return output_like(potential, (*potential.shape, *width), torch.float64 if real else torch.complex128)


def _varies(x: Tensor) -> bool:
    """Whether it has an axis of positions. Without one a kernel reads it once, and sums its gradient."""
    return x.ndim > 0 and x.shape[-1] != 1


@dataclass(frozen=True)
class _Gradient:
    """The gradient of an argument of at most three axes, and where a kernel writes it.

    An argument that does not vary along the positions gets sums over them, (B, H, 1) in float64. Others get the
    summands: in the argument's own type where nothing is left to sum, else in double precision.
    """

    argument: Tensor
    tensor: Tensor

    @classmethod
    def of(cls, argument: Tensor, full: tuple[int, int, int]) -> _Gradient:
        double = torch.complex128 if argument.is_complex() else torch.float64
        if not _varies(argument):
            return cls(argument, argument.new_empty((*full[:2], 1), dtype=double))
        if tuple(argument.shape) != full or argument.dtype == double:
            return cls(argument, output_like(argument, full, double))
        return cls(argument, output_like(argument, full, torch.complex64 if argument.is_complex() else torch.float32))

    @property
    def view(self) -> View:
        return _view(self.tensor)

    def reduced(self) -> Tensor:
        """It, in the argument's shape where the kernel summed it."""
        return self.tensor if _varies(self.argument) else self.tensor.sum_to_size(self.argument.shape)


def _gradients(potential: Tensor, bonds: Tensor, shift: Tensor) -> tuple[_Gradient, _Gradient, _Gradient]:
    batch, heads, n = potential.shape
    full = (batch, heads, n)
    return _Gradient.of(potential, full), _Gradient.of(bonds, (batch, heads, n - 1)), _Gradient.of(shift, full)


# ------------------------------------------------------------------------------------------------------ the kernels


class _Matrix:
    """T − z of one call: its arguments as views, and the kernels that need nothing else of it."""

    def __init__(self, potential: Tensor, bonds: Tensor, shift: Tensor, *, hop: bool) -> None:
        self.potential, self.hop = potential, hop
        self.bonds_vary, self.shift_varies = _varies(bonds), _varies(shift)
        self.tiling = Tiling.of(potential)
        self.bonds = _view(_plain(bonds))
        self._views = {"potential": _view(_plain(potential)), "bonds": self.bonds, "shift": _view(_plain(shift))}

    def cavity(
        self,
        out: Tensor,
        *,
        reversed_: bool = False,
        left: Tensor | None = None,
        grad: Tensor | None = None,
        source: Tensor | None = None,
    ) -> Tensor:
        """`triton_kernels.cavity` into `out`, which is returned."""
        others = {"left": left, "grad": grad, "source": source}
        _launch(
            "cavity",
            self.potential,
            self.tiling,
            **self._views,
            out=_view(out),
            **{name: None if x is None else _view(x) for name, x in others.items()},
            SHAPE=(self.hop, self.bonds_vary, self.shift_varies),
            REVERSED=reversed_,
        )
        return out

    def substituted(self, factors: Tensor, source: Tensor, out: Tensor, shape: _Shape, *, reversed_: bool) -> Tensor:
        """`triton_kernels.linear` of values into `out`, which is returned."""
        width = source.shape[3]
        _launch(
            "linear",
            self.potential,
            Tiling.of(self.potential, width),
            bonds=self.bonds,
            factors=_view(factors),
            source=_view(source, 4),
            out=_view(out, 4),
            width=width,
            SHAPE=(self.bonds_vary, *shape),
            REVERSED=reversed_,
        )
        return out

    def diagonal_adjoint(
        self,
        factors: Tensor,
        source: Tensor,
        shape: _Shape,
        gradients: tuple[_Gradient, _Gradient, _Gradient],
        *,
        crossed: Tensor | None = None,
        right: Tensor | None = None,
        q: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`triton_gradients.diagonal_adjoint`: the gradients of potential, bonds and shift."""
        others = {"crossed": crossed, "right": right, "q": q, "s": None if right is None else source}
        first, second, third = gradients
        _launch(
            "diagonal_adjoint",
            self.potential,
            self.tiling,
            bonds=self.bonds,
            factors=_view(factors),
            source=_view(source),
            **{name: None if x is None else _view(x) for name, x in others.items()},
            grad_potential=first.view,
            grad_bonds=second.view,
            grad_shift=third.view,
            SHAPE=(self.bonds_vary, *shape),
            SHIFT_VARIES=self.shift_varies,
        )
        return first.reduced(), second.reduced(), third.reduced()


_Shape = tuple[bool, bool, bool, bool, bool]
"""SHAPE of `triton_kernels.linear_terms` after its first: f and bond squared; source scaled, conjugated, complex."""


# --------------------------------------------------------------------------------------------------------- the ops


def diagonal(potential: Tensor, coupling: Tensor, shift: Tensor, causal: bool) -> Tensor:
    """See `reference.diagonal`; in the op's own type and layout."""
    matrix = _Matrix(potential, coupling, shift, hop=False)
    output = output_like(potential, tuple(potential.shape), complex_dtype(potential))
    if causal:
        return matrix.cavity(output)
    return matrix.cavity(output, reversed_=True, left=matrix.cavity(_scratch(potential)))


def diagonal_backward(
    grad: Tensor, potential: Tensor, coupling: Tensor, shift: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """See `reference.diagonal_backward`; summed over the positions where the argument has none."""
    matrix, grad = _Matrix(potential, coupling, shift, hop=False), _plain(grad)
    gradients = _gradients(potential, coupling, shift)
    left = matrix.cavity(_scratch(potential))
    if causal:
        return matrix.diagonal_adjoint(left, grad, (True, False, True, True, True), gradients)
    right, source = _scratch(potential), _scratch(potential)
    matrix.cavity(right, reversed_=True, left=left, grad=grad, source=source)
    shape = (True, False, False, False, True)
    q = matrix.substituted(right, source[..., None], _scratch(potential, 1), shape, reversed_=False)
    return matrix.diagonal_adjoint(left, source, shape, gradients, right=right, q=q[..., 0])


def apply(potential: Tensor, hop: Tensor, shift: Tensor, values: Tensor, causal: bool) -> Tensor:
    """See `reference.apply`; in the op's own type and layout."""
    matrix, values = _Matrix(potential, hop, shift, hop=True), _plain(values)
    output = output_like(potential, tuple(values.shape), complex_dtype(potential))
    left = matrix.cavity(_scratch(potential))
    forward = (False, False, True, False, values.is_complex())
    if causal:
        return matrix.substituted(left, values, output, forward, reversed_=False)
    u = matrix.substituted(left, values, _scratch(potential, values.shape[3]), forward, reversed_=False)
    return matrix.substituted(left, u, output, (False, False, False, False, True), reversed_=True)


def apply_backward(
    grad: Tensor, potential: Tensor, hop: Tensor, shift: Tensor, values: Tensor, output: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `reference.apply_backward`; reads the saved output, summed over the positions where the argument has none."""
    matrix = _Matrix(potential, hop, shift, hop=True)
    grad, output = _plain(grad), _plain(output)
    width = values.shape[3]
    tiling = Tiling.of(potential, width)
    first, second, third = gradients = _gradients(potential, hop, shift)
    wide = values.dtype if values.dtype in _WIDE else torch.float32
    grad_values = output_like(values, tuple(values.shape), wide)
    left = matrix.cavity(_scratch(potential))
    flags = {"width": width, "COMPLEX": values.is_complex(), "BONDS_VARY": matrix.bonds_vary}
    if causal:
        source, crossed = _scratch(potential), _scratch(potential, real=True)
        _launch(
            "causal_substitution_adjoint",
            potential,
            tiling,
            bonds=matrix.bonds,
            factors=_view(left),
            grad=_view(grad, 4),
            output=_view(output, 4),
            grad_values=_view(grad_values, 4),
            source=_view(source),
            crossed=_view(crossed),
            **flags,
        )
        shape = (True, True, False, False, True)
        return *matrix.diagonal_adjoint(left, source, shape, gradients, crossed=crossed), grad_values
    u = matrix.substituted(left, grad, _scratch(potential, width), (False, False, True, True, True), reversed_=False)
    _launch(
        "two_sided_substitution_adjoint",
        potential,
        tiling,
        bonds=matrix.bonds,
        factors=_view(left),
        forward=_view(u, 4),
        output=_view(output, 4),
        grad_values=_view(grad_values, 4),
        grad_potential=first.view,
        grad_bonds=second.view,
        grad_shift=third.view,
        SHIFT_VARIES=matrix.shift_varies,
        **flags,
    )
    return first.reduced(), second.reduced(), third.reduced(), grad_values


_WIDE = frozenset({torch.float32, torch.float64, torch.complex64, torch.complex128})

BACKENDS.register("triton")(
    Backend(
        name="triton",
        rank=500 if INTERPRETED else 5,
        unusable=unusable,
        devices=frozenset({"cpu" if INTERPRETED else "cuda"}),
        diagonal=diagonal,
        diagonal_backward=diagonal_backward,
        apply=apply,
        apply_backward=apply_backward,
    )
)
