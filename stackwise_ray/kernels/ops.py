"""The resolvent ops as torch custom ops: checks, output types, gradients, reduction over broadcast axes.

`resolvent_diagonal` and `resolvent_apply` are the public face. Each is one `torch.library.custom_op` with a second
one for its backward pass, so that both can be counted, traced, compiled and run on the meta device. The arithmetic
is in `stackwise_ray.kernels.backends`. Derivatives are first order and reverse mode: for a second one torch raises,
for a forward one the ops do.

Outputs are position-major, (batch, n, heads[, p]) in memory, which is how a model's linear layers read and write.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from stackwise_ray.kernels.arguments import check_arguments, check_gradient, check_values
from stackwise_ray.kernels.backend import BACKENDS, Gradient, choose_backend, complex_dtype, output_like, output_strides
from stackwise_ray.kernels.backends import reference


def resolvent_diagonal(
    potential: Tensor,
    coupling: Tensor,
    shift: Tensor,
    *,
    causal: bool,
    backend: str | None = None,
    check: bool = True,
    gradient: Gradient = "adjoint",
) -> Tensor:
    """The diagonal of (T − zI)⁻¹ for tridiagonal T, or its causal form, in O(n).

    T has the diagonal `potential` and off-diagonals −√coupling. The causal form at position i is the last diagonal
    entry of (T_{1..i} − z)⁻¹: it depends on positions up to i alone.

    Args:
        potential: (batch, heads, n) real, the whole diagonal a.
        coupling: k >= 0 real, k_i between positions i and i+1; broadcasts to (batch, heads, max(n − 1, 0)).
        shift: z complex with Im z > 0; broadcasts to (batch, heads, n). One value per head is (heads, 1).
        causal: Whether position i sees positions up to i only.
        backend: A name of `available_backends`; None: `choose_backend`.
        check: Whether values are checked (Im z > 0, k >= 0); a parametrisation that guarantees them may skip it,
            which on a GPU saves a synchronisation.
        gradient: "adjoint" and "autograd" are exact; "diagonal" keeps ∂g_i/∂a_i and ∂g_i/∂z_i of equal position
            only (the original model's truncation) and gives the coupling no gradient.

    Returns:
        (batch, heads, n) complex64 for float32, float16 or bfloat16 arguments, complex128 for float64; float64 is
        computed inside in either case. Without rounding, |g| <= 1 / Im z.

    Raises:
        ValueError: A wrong shape, type, device or value; names the argument.
        ConfigError: The backend is unknown or cannot run here.

    Source: cavity recursion g_i = 1 / (a_i − z − k_{i−1} g_{i−1}) of a tridiagonal Green function, and its adjoint.

    Example:
        >>> import torch
        >>> resolvent_diagonal(torch.zeros(1, 1, 2), torch.ones(1), torch.tensor(1j), causal=True).tolist()
        [[[1j, 0.5j]]]
    """
    check_arguments(potential, shift, {"coupling": coupling})
    check_gradient(gradient, get_args(Gradient))
    name = choose_backend(backend, _device(potential, backend))
    result: Tensor = torch.ops.stackwise_ray.resolvent_diagonal(
        potential, coupling, shift, causal, name, gradient, check
    )
    return result


def resolvent_apply(
    potential: Tensor,
    hop: Tensor,
    shift: Tensor,
    values: Tensor,
    *,
    causal: bool,
    backend: str | None = None,
    check: bool = True,
    gradient: Gradient = "adjoint",
) -> Tensor:
    """(T − zI)⁻¹ applied to values, or its causal form, in O(n).

    T has the diagonal `potential` and off-diagonals −hop. The causal form is
    u_i = Σ_{j <= i} [(T_{1..i} − z)⁻¹]_ij x_j, which depends on positions up to i alone.

    Args:
        potential, shift, causal, backend, check: As in `resolvent_diagonal`.
        hop: t real, of any sign; broadcasts to (batch, heads, max(n − 1, 0)).
        values: (batch, heads, n, p) real or complex.
        gradient: "adjoint" or "autograd", both exact.

    Returns:
        (batch, heads, n, p) complex; the type as in `resolvent_diagonal`.

    Raises:
        ValueError, ConfigError: As in `resolvent_diagonal`.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1)
        >>> resolvent_apply(torch.zeros(1, 1, 2), torch.ones(1), torch.tensor(1j), x, causal=True).flatten().tolist()
        [1j, (-0.5+0j)]
    """
    check_arguments(potential, shift, {"hop": hop}, values)
    check_gradient(gradient, ("adjoint", "autograd"))
    name = choose_backend(backend, _device(potential, backend))
    result: Tensor = torch.ops.stackwise_ray.resolvent_apply(
        potential, hop, shift, values, causal, name, gradient, check
    )
    return result


def _device(potential: Tensor, backend: str | None) -> str | None:
    """Where the backend has to compute; None: anywhere.

    On a fake tensor nothing is computed: a backend that was named may stay, as when a model for a GPU is planned.
    """
    fake = backend is not None and isinstance(potential, FakeTensor)
    return None if fake else potential.device.type


# ------------------------------------------------------------------------------------------------- the custom ops


def _finished(result: Tensor, like: Tensor, dtype: torch.dtype) -> Tensor:
    if result.dtype == dtype and result.stride() == output_strides(result.shape) and not result.is_conj():
        return result
    return output_like(like, tuple(result.shape), dtype).copy_(result)


def _gradient_for(argument: Tensor, gradient: Tensor, full: tuple[int, ...]) -> Tensor:
    """`gradient`, summed over the axes along which `argument` was broadcast, in the argument's type."""
    shape = argument.shape
    if gradient.is_complex() and not argument.is_complex():
        gradient = gradient.real
    if shape == full and len(full) > 2:
        return _finished(gradient, argument, argument.dtype)
    if gradient.shape == shape and gradient.dtype == argument.dtype and gradient.is_contiguous():
        return gradient  # a backend's own sum, made for it
    if gradient.shape != shape:
        gradient = gradient.sum_to_size(shape) if gradient.numel() else gradient.new_zeros(shape)
    return torch.empty(shape, dtype=argument.dtype, device=argument.device).copy_(gradient)


def _empty_gradient(argument: Tensor, full: tuple[int, ...]) -> Tensor:
    if tuple(argument.shape) == full and len(full) > 2:
        return output_like(argument, full, argument.dtype)
    return argument.new_empty(argument.shape)


def _full_shapes(potential: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    batch, heads, n = potential.shape
    return (batch, heads, n), (batch, heads, max(n - 1, 0))


@torch.library.custom_op("stackwise_ray::resolvent_diagonal", mutates_args=())
def _diagonal(
    potential: Tensor, coupling: Tensor, shift: Tensor, causal: bool, backend: str, gradient: str, check: bool
) -> Tensor:
    if check:
        check_values(shift, coupling)
    dtype = complex_dtype(potential)
    if potential.numel() == 0:
        return output_like(potential, tuple(potential.shape), dtype)
    result = BACKENDS.get(backend).diagonal(potential, coupling, shift, causal)
    return _finished(result, potential, dtype)


@_diagonal.register_fake
def _(
    potential: Tensor, coupling: Tensor, shift: Tensor, causal: bool, backend: str, gradient: str, check: bool
) -> Tensor:
    return output_like(potential, tuple(potential.shape), complex_dtype(potential))


@torch.library.custom_op("stackwise_ray::resolvent_diagonal_backward", mutates_args=())
def _diagonal_backward(
    grad: Tensor, potential: Tensor, coupling: Tensor, shift: Tensor, causal: bool, backend: str, gradient: str
) -> tuple[Tensor, Tensor, Tensor]:
    full, bonds = _full_shapes(potential)
    arguments = ((potential, full), (coupling, bonds), (shift, full))
    if potential.numel() == 0:
        results: tuple[Tensor, ...] = tuple(grad.new_zeros(shape) for _, shape in arguments)
    elif gradient == "autograd":
        results = _by_autograd(reference.diagonal, grad, (potential, coupling, shift), causal)
    elif gradient == "diagonal":
        g = BACKENDS.get(backend).diagonal(potential, coupling, shift, causal)
        own = -(g * g) * grad.to(g.dtype).conj()
        results = (own.real, own.real.new_zeros(bonds), -own.conj())
    else:
        results = BACKENDS.get(backend).diagonal_backward(grad, potential, coupling, shift, causal)
    first, second, third = (
        _gradient_for(argument, result, shape) for (argument, shape), result in zip(arguments, results, strict=True)
    )
    return first, second, third


@_diagonal_backward.register_fake
def _(
    grad: Tensor, potential: Tensor, coupling: Tensor, shift: Tensor, causal: bool, backend: str, gradient: str
) -> tuple[Tensor, Tensor, Tensor]:
    full, bonds = _full_shapes(potential)
    return _empty_gradient(potential, full), _empty_gradient(coupling, bonds), _empty_gradient(shift, full)


@torch.library.custom_op("stackwise_ray::resolvent_apply", mutates_args=())
def _apply(
    potential: Tensor,
    hop: Tensor,
    shift: Tensor,
    values: Tensor,
    causal: bool,
    backend: str,
    gradient: str,
    check: bool,
) -> Tensor:
    if check:
        check_values(shift)
    dtype = complex_dtype(potential)
    if values.numel() == 0:
        return output_like(values, tuple(values.shape), dtype)
    result = BACKENDS.get(backend).apply(potential, hop, shift, values, causal)
    return _finished(result, potential, dtype)


@_apply.register_fake
def _(
    potential: Tensor,
    hop: Tensor,
    shift: Tensor,
    values: Tensor,
    causal: bool,
    backend: str,
    gradient: str,
    check: bool,
) -> Tensor:
    return output_like(potential, tuple(values.shape), complex_dtype(potential))


@torch.library.custom_op("stackwise_ray::resolvent_apply_backward", mutates_args=())
def _apply_backward(
    grad: Tensor,
    potential: Tensor,
    hop: Tensor,
    shift: Tensor,
    values: Tensor,
    output: Tensor,
    causal: bool,
    backend: str,
    gradient: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    full, bonds = _full_shapes(potential)
    arguments = ((potential, full), (hop, bonds), (shift, full), (values, tuple(values.shape)))
    if values.numel() == 0:
        results: tuple[Tensor, ...] = tuple(grad.new_zeros(shape) for _, shape in arguments)
    elif gradient == "autograd":
        results = _by_autograd(reference.apply, grad, (potential, hop, shift, values), causal)
    else:
        results = BACKENDS.get(backend).apply_backward(grad, potential, hop, shift, values, output, causal)
    first, second, third, fourth = (
        _gradient_for(argument, result, shape) for (argument, shape), result in zip(arguments, results, strict=True)
    )
    return first, second, third, fourth


@_apply_backward.register_fake
def _(
    grad: Tensor,
    potential: Tensor,
    hop: Tensor,
    shift: Tensor,
    values: Tensor,
    output: Tensor,
    causal: bool,
    backend: str,
    gradient: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    full, bonds = _full_shapes(potential)
    return (
        _empty_gradient(potential, full),
        _empty_gradient(hop, bonds),
        _empty_gradient(shift, full),
        _empty_gradient(values, tuple(values.shape)),
    )


def _by_autograd(forward: Any, grad: Tensor, arguments: tuple[Tensor, ...], causal: bool) -> tuple[Tensor, ...]:
    """Gradients by differentiating the reference recursion, in double precision.

    In a thread of its own: inside a custom op torch dispatches below autograd, and that state is a thread's.
    """

    def differentiate() -> tuple[Tensor, ...]:
        wide = [
            argument.detach().to(torch.complex128 if argument.is_complex() else torch.float64).requires_grad_()
            for argument in arguments
        ]
        output = forward(*wide, causal)
        return torch.autograd.grad(output, wide, grad.to(output.dtype), materialize_grads=True)

    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(differentiate).result()


# -------------------------------------------------------------------------------------------------------- autograd


def _diagonal_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *arguments, ctx.causal, ctx.backend, ctx.gradient, _ = inputs
    ctx.save_for_backward(*arguments)


def _diagonal_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    results = torch.ops.stackwise_ray.resolvent_diagonal_backward(
        grad, *ctx.saved_tensors, ctx.causal, ctx.backend, ctx.gradient
    )
    return *results, None, None, None, None


def _apply_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *arguments, ctx.causal, ctx.backend, ctx.gradient, _ = inputs
    ctx.save_for_backward(*arguments, output)


def _apply_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    results = torch.ops.stackwise_ray.resolvent_apply_backward(
        grad, *ctx.saved_tensors, ctx.causal, ctx.backend, ctx.gradient
    )
    return *results, None, None, None, None


_diagonal.register_autograd(_diagonal_gradients, setup_context=_diagonal_context)
_apply.register_autograd(_apply_gradients, setup_context=_apply_context)
