"""The `cpu` backend: compiled C with the lanes as SIMD vectors and OpenMP threads, float64 inside, nothing saved.

This module hands tensors of any strides to the library as addresses and strides, and asks it for the gradients in
their final shape: broadcast axes are read with stride 0 and summed in float64 in C. The library is compiled at its
first use on a machine (`stackwise_ray.kernels.cpu.compiler`) and compared with the `torch` backend before a process
uses it; where there is none, one warning says why and `cpu` is not among the available backends.

Called through `stackwise_ray.kernels.ops`.
"""

from __future__ import annotations

import ctypes
import functools
import warnings
from array import array
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stackwise_ray.kernels.backend import BACKENDS, Backend, complex_dtype, output_like
from stackwise_ray.kernels.backends import torch as torch_backend
from stackwise_ray.kernels.cpu.compiler import BuildError, library_path

MIN_ELEMENTS_A_THREAD = 8192
"""A thread is worth waking for this many channels (elements of the diagonal): about its start-up in time."""

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
"""max|difference| / max|value| between this backend and `torch`."""

_NOTHING = (0, 0, 0, 0, 0, 0)
_ZEROS = ((), (0,), (0, 0), (0, 0, 0), (0, 0, 0, 0))  # by their number
_DOUBLE, _COMPLEX = 1, 2
_KINDS = {
    torch.float32: 0,
    torch.float64: _DOUBLE,
    torch.complex64: _COMPLEX,
    torch.complex128: _COMPLEX | _DOUBLE,
}


# ------------------------------------------------------------------------------------------------------ the library


def load(path: str) -> ctypes.CDLL:
    """The library at `path`, its functions declared."""
    library = ctypes.CDLL(path)
    for name in ("bk_diagonal", "bk_diagonal_backward", "bk_apply", "bk_apply_backward"):
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_int
    return library


class Loaded(NamedTuple):
    library: ctypes.CDLL | None
    reason: str | None  # why there is none


@functools.cache
def _loaded() -> Loaded:
    try:
        library = load(str(library_path()))
        # In a thread of its own, where no mode of the caller (meta or fake tensors, a trace) reaches.
        with ThreadPoolExecutor(max_workers=1) as executor:
            executor.submit(compare_with_torch, library).result()
    except (BuildError, OSError) as error:
        warnings.warn(
            f"kernel backend 'cpu' cannot be used ({error}); the torch backend is used instead",
            RuntimeWarning,
            stacklevel=2,
        )
        return Loaded(None, str(error))
    return Loaded(library, None)


def unusable() -> str | None:
    """Why this machine cannot run the backend, or None; compiles the library at its first use on a machine."""
    return _loaded().reason


def compare_with_torch(library: ctypes.CDLL) -> None:
    """Runs every function of the library on small random cases.

    Raises:
        BuildError: It differs from the `torch` backend.
    """
    generator = torch.Generator(device="cpu").manual_seed(0)
    batch, n, width = 2, 70, 11  # over a block of positions, over a vector
    for dtype, tolerance in TOLERANCE.items():
        uniform = functools.partial(torch.rand, generator=generator, dtype=dtype, device="cpu")
        for heads, positions in ((17, n), (40, 1)):  # tiles with a rest, and lanes straight from tensor to tensor
            potential, hop = 4 * uniform((batch, n, heads)).transpose(1, 2) - 2, uniform((heads, 1)) + 0.5
            shift = torch.complex(uniform((heads, positions)), uniform((heads, positions)) + 0.2)
            values = uniform((batch, heads, n, width))
            for causal in (True, False):
                _compare(library, "diagonal", (potential, hop**2, shift), causal, uniform, tolerance)
                _compare(library, "apply", (potential, hop, shift, values), causal, uniform, tolerance)


def _compare(
    library: ctypes.CDLL, op: str, arguments: tuple[Tensor, ...], causal: bool, uniform: Any, tolerance: float
) -> None:
    mine: Any = _OPS[op]
    wanted = getattr(torch_backend, op)(*arguments, causal)
    grad = output_like(wanted, tuple(wanted.shape), complex_dtype(arguments[0]))
    grad.copy_(torch.complex(uniform(wanted.shape), uniform(wanted.shape)))
    saved = () if op == "diagonal" else (wanted,)
    pairs = [(mine.forward(library, *arguments, causal), wanted)]
    pairs += zip(
        mine.backward(library, grad, *arguments, *saved, causal),
        getattr(torch_backend, f"{op}_backward")(grad, *arguments, *saved, causal),
        strict=True,
    )
    for i, (have, want) in enumerate(pairs):
        want = want.sum_to_size(have.shape)
        error = float((have - want).abs().max() / want.abs().max())
        if not error <= tolerance:
            raise BuildError(
                f"resolvent_{op}, {'causal' if causal else 'two-sided'}, {grad.dtype}: result {i} differs from the"
                f" torch backend's by {error:.1e} of its largest value (allowed {tolerance:.0e})"
            )


# ------------------------------------------------------------------------------------------- tensors, as C sees them


def _plain(x: Tensor) -> Tensor:
    """A tensor that an address and strides describe: at least float32, nothing negated or conjugated on reading."""
    if x.dtype not in _KINDS:
        x = x.float()
    return x.resolve_conj().resolve_neg() if x.is_conj() or x.is_neg() else x


def _described(x: Tensor, axes: int) -> tuple[int, ...]:
    """Address, strides of batch, head, position and width, kind. `axes`: 3, or 4 with a width."""
    strides = [0 if size == 1 else stride for size, stride in zip(x.shape, x.stride(), strict=True)]
    return (x.data_ptr(), *_ZEROS[axes - len(strides)], *strides, *_ZEROS[4 - axes], _KINDS[x.dtype])


def _written(x: Tensor) -> tuple[int, ...]:
    """The same of a fresh tensor from `output_like`, whose own strides are kept."""
    return (x.data_ptr(), *x.stride(), *_ZEROS[4 - x.ndim], _KINDS[x.dtype])


def _call(function: Any, sizes: tuple[int, ...], causal: bool, arrays: list[tuple[int, ...]]) -> None:
    batch, heads, n, width = sizes
    threads = max(min(torch.get_num_threads(), batch * heads * n * max(width, 1) // MIN_ELEMENTS_A_THREAD), 1)
    numbers = array("q", (batch, heads, n, width, causal, threads))
    for described in arrays:
        numbers.extend(described)
    address, _ = numbers.buffer_info()
    if function(address) != 0:
        raise MemoryError("the cpu backend of the resolvent ops could not allocate its work space")


class _Gradient(NamedTuple):
    """Where a gradient goes: a tensor of its argument's shape, and what C writes before it sums."""

    tensor: Tensor
    written: tuple[int, ...]
    summed: tuple[int, ...]
    scratch: Tensor | None  # float64, to be kept alive for the call


def _gradient(argument: Tensor, full: tuple[int, int, int]) -> _Gradient:
    shape = argument.shape
    if shape == full:
        tensor = output_like(argument, full, argument.dtype)
        return _Gradient(tensor, _written(tensor) if tensor.numel() else _NOTHING, _NOTHING, None)
    tensor = argument.new_empty(shape)
    if tensor.numel() == 0:
        return _Gradient(tensor, _NOTHING, _NOTHING, None)
    batch, heads, n = full
    by_position = len(shape) > 0 and shape[-1] == n
    rows = n if by_position else 1
    kind = _KINDS[argument.dtype] | _DOUBLE
    scratch = torch.empty(batch * rows * heads * (2 if kind & _COMPLEX else 1), dtype=torch.float64)
    written = (scratch.data_ptr(), rows * heads, 1, heads if by_position else 0, 0, kind)
    return _Gradient(tensor, written, _described(tensor, 3), scratch)


# --------------------------------------------------------------------------------------------------------- the ops


class _Diagonal:
    """`resolvent_diagonal` and its backward pass."""

    @staticmethod
    def forward(library: ctypes.CDLL, potential: Tensor, coupling: Tensor, shift: Tensor, causal: bool) -> Tensor:
        arguments = [_plain(potential), _plain(coupling), _plain(shift)]
        output = output_like(potential, tuple(potential.shape), complex_dtype(potential))
        arrays = [_described(x, 3) for x in arguments]
        _call(library.bk_diagonal, (*potential.shape, 0), causal, [*arrays, _written(output)])
        return output

    @staticmethod
    def backward(
        library: ctypes.CDLL, grad: Tensor, potential: Tensor, coupling: Tensor, shift: Tensor, causal: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        arguments = [_plain(x) for x in (potential, coupling, shift, grad)]
        gradients = _gradients(arguments)
        arrays = [_described(x, 3) for x in arguments]
        _call(
            library.bk_diagonal_backward,
            (*potential.shape, 0),
            causal,
            [*arrays, *(x.written for x in gradients), *(x.summed for x in gradients[1:])],
        )
        first, second, third = gradients
        return first.tensor, second.tensor, third.tensor


class _Apply:
    """`resolvent_apply` and its backward pass."""

    @staticmethod
    def forward(
        library: ctypes.CDLL, potential: Tensor, hop: Tensor, shift: Tensor, values: Tensor, causal: bool
    ) -> Tensor:
        arguments = [_plain(potential), _plain(hop), _plain(shift)]
        values = _plain(values)
        output = output_like(potential, tuple(values.shape), complex_dtype(potential))
        arrays = [*(_described(x, 3) for x in arguments), _described(values, 4), _written(output)]
        _call(library.bk_apply, tuple(values.shape), causal, arrays)
        return output

    @staticmethod
    def backward(
        library: ctypes.CDLL,
        grad: Tensor,
        potential: Tensor,
        hop: Tensor,
        shift: Tensor,
        values: Tensor,
        output: Tensor,
        causal: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        arguments = [_plain(potential), _plain(hop), _plain(shift)]
        wide = [_plain(values), _plain(output), _plain(grad)]
        gradients = _gradients(arguments)
        grad_values = output_like(values, tuple(values.shape), wide[0].dtype)
        _call(
            library.bk_apply_backward,
            tuple(values.shape),
            causal,
            [
                *(_described(x, 3) for x in arguments),
                *(_described(x, 4) for x in wide),
                *(x.written for x in gradients),
                _written(grad_values),
                *(x.summed for x in gradients[1:]),
            ],
        )
        first, second, third = gradients
        return first.tensor, second.tensor, third.tensor, grad_values


def _gradients(arguments: list[Tensor]) -> tuple[_Gradient, _Gradient, _Gradient]:
    """Of potential, coupling or hop, and shift."""
    batch, heads, n = arguments[0].shape
    return (
        _gradient(arguments[0], (batch, heads, n)),
        _gradient(arguments[1], (batch, heads, max(n - 1, 0))),
        _gradient(arguments[2], (batch, heads, n)),
    )


_OPS = {"diagonal": _Diagonal, "apply": _Apply}


def _library() -> ctypes.CDLL:
    library = _loaded().library
    if library is None:
        raise RuntimeError(f"kernel backend 'cpu' cannot run here: {_loaded().reason}")
    return library


def diagonal(potential: Tensor, coupling: Tensor, shift: Tensor, causal: bool) -> Tensor:
    """See `reference.diagonal`; in the op's own type and layout."""
    return _Diagonal.forward(_library(), potential, coupling, shift, causal)


def diagonal_backward(
    grad: Tensor, potential: Tensor, coupling: Tensor, shift: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """See `reference.diagonal_backward`; reduced to the arguments' shapes."""
    return _Diagonal.backward(_library(), grad, potential, coupling, shift, causal)


def apply(potential: Tensor, hop: Tensor, shift: Tensor, values: Tensor, causal: bool) -> Tensor:
    """See `reference.apply`; in the op's own type and layout."""
    return _Apply.forward(_library(), potential, hop, shift, values, causal)


def apply_backward(
    grad: Tensor, potential: Tensor, hop: Tensor, shift: Tensor, values: Tensor, output: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `reference.apply_backward`; reads the saved output, reduced to the arguments' shapes."""
    return _Apply.backward(_library(), grad, potential, hop, shift, values, output, causal)


BACKENDS.register("cpu")(
    Backend(
        name="cpu",
        rank=10,
        unusable=unusable,
        devices=frozenset({"cpu"}),
        diagonal=diagonal,
        diagonal_backward=diagonal_backward,
        apply=apply,
        apply_backward=apply_backward,
    )
)
