"""The `triton` backend on a CUDA device, against the reference, at sizes of models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from stackwise_ray.kernels import BACKENDS, available_backends, choose_backend, resolvent_apply, resolvent_diagonal

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif("triton" not in available_backends(), reason=f"no triton: {BACKENDS.get('triton').unusable()}"),
]

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def arguments(
    batch: int, heads: int, n: int, width: int, *, by_position: bool, dtype: torch.dtype, device: str = "cuda"
) -> dict[str, Tensor]:
    """As a model makes them: position-major, η from 0.02."""
    generator = torch.Generator(device=device).manual_seed(n)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, dtype=dtype, generator=generator, device=device)

    bonds, shifts = ((n - 1, heads), (n, heads)) if by_position else ((1, heads), (1, heads))
    hop = (0.3 + uniform(*bonds)).T
    made = {
        "potential": 4 * uniform(batch, n, heads).transpose(1, 2) - 2,
        "coupling": hop**2,
        "hop": hop,
        "shift": torch.complex(uniform(*shifts) - 0.5, 0.02 + uniform(*shifts)).T,
        "values": 2 * uniform(batch, n, heads, width).transpose(1, 2) - 1,
    }
    return {name: tensor.detach().requires_grad_() for name, tensor in made.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "two-sided"])
@pytest.mark.parametrize("by_position", [True, False], ids=["by position", "by head"])
@pytest.mark.parametrize(
    ("batch", "heads", "n", "width"), [(1, 1, 1, 1), (3, 5, 2, 3), (2, 7, 97, 45), (8, 32, 2048, 8), (2, 16, 5001, 64)]
)
def test_values_and_every_gradient_equal_the_reference(
    batch: int, heads: int, n: int, width: int, by_position: bool, causal: bool, dtype: torch.dtype
) -> None:
    made = arguments(batch, heads, n, width, by_position=by_position, dtype=dtype)
    ops: tuple[tuple[Any, tuple[str, ...]], ...] = (
        (resolvent_diagonal, ("potential", "coupling", "shift")),
        (resolvent_apply, ("potential", "hop", "shift", "values")),
    )
    for call, names in ops:
        leaves = [made[name] for name in names]
        double = [x.detach().to(torch.complex128 if x.is_complex() else torch.float64).requires_grad_() for x in leaves]
        have, want = call(*leaves, causal=causal), call(*double, causal=causal, backend="reference")
        assert float((have - want).detach().abs().max()) <= TOLERANCE[dtype] * float(want.detach().abs().max())
        weight = torch.randn_like(have)
        have_gradients = torch.autograd.grad(have, leaves, weight)
        want_gradients = torch.autograd.grad(want, double, weight.to(torch.complex128), materialize_grads=True)
        for name, mine, theirs in zip(names, have_gradients, want_gradients, strict=True):
            if theirs.numel() == 0:
                continue
            # Sums over up to 16,384 summands of either sign: their magnitudes are some sqrt(summands) above the sum.
            summands = made["potential"].numel() // theirs.numel() if name not in ("potential", "values") else 1
            allowed = TOLERANCE[dtype] * max(1.0, summands**0.5) * max(float(theirs.abs().max()), 1e-12)
            assert float((mine - theirs).abs().max()) <= allowed, name


def test_first_choice_for_tensors_on_the_gpu() -> None:
    assert choose_backend(device="cuda") == "triton"
    assert choose_backend(device="cpu") != "triton"


def test_causal_forms_do_not_change_by_one_bit_when_the_future_does() -> None:
    made = {name: x.detach() for name, x in arguments(4, 8, 3000, 8, by_position=True, dtype=torch.float32).items()}
    names = ("potential", "hop", "shift", "values")
    before = resolvent_apply(*(made[name] for name in names), causal=True, backend="triton")
    for position in (1, 63, 64, 1000, 2048, 2999):
        changed = {name: x.clone() for name, x in made.items()}
        changed["potential"][..., position] += 1.0
        changed["values"][..., position, :] = float("inf")
        after = resolvent_apply(*(changed[name] for name in names), causal=True, backend="triton")
        assert torch.equal(before[:, :, :position], after[:, :, :position])


def test_equal_calls_give_equal_bits() -> None:
    made = arguments(8, 32, 1024, 8, by_position=False, dtype=torch.float32)
    leaves = [made[name] for name in ("potential", "hop", "shift", "values")]
    runs = []
    for _ in range(2):
        u = resolvent_apply(*leaves, causal=True, backend="triton")
        runs.append([u.detach(), *torch.autograd.grad(u.abs().sum(), leaves)])
    assert all(torch.equal(x, y) for x, y in zip(*runs, strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_kernels_run_on_the_device_of_the_tensors() -> None:
    made = arguments(2, 8, 300, 4, by_position=False, dtype=torch.float32, device="cuda:1")
    leaves = [made[name] for name in ("potential", "hop", "shift", "values")]
    with torch.cuda.device(0):
        have = resolvent_apply(*leaves, causal=True, backend="triton")
        want = resolvent_apply(*leaves, causal=True, backend="torch")
    assert have.device == torch.device("cuda:1")
    assert float((have - want).detach().abs().max()) <= 1e-6 * float(want.detach().abs().max())
