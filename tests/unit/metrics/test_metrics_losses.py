"""The summed cross-entropy against its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stackwise_ray.metrics import losses
from stackwise_ray.metrics.losses import IGNORED, summed_cross_entropy
from stackwise_ray.metrics.memory import LiveTensorPeak


def case(batch: int, n: int, vocab: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch * 100 + n)
    logits = torch.randn(batch, n, vocab, generator=generator, dtype=dtype)
    return logits, torch.randint(0, vocab, (batch, n), generator=generator)


def test_the_sum_is_minus_the_log_probability_of_the_targets() -> None:
    logits, targets = case(2, 5, 7)
    total, count = summed_cross_entropy(logits, targets)
    by_hand = sum(-torch.log_softmax(logits[b, i], -1)[targets[b, i]].item() for b in range(2) for i in range(5))
    assert total.item() == pytest.approx(by_hand, rel=1e-12)
    assert count.item() == 10


def test_ignored_positions_count_for_nothing() -> None:
    logits, targets = case(2, 5, 7)
    targets[0, :3] = IGNORED
    total, count = summed_cross_entropy(logits, targets)
    kept = summed_cross_entropy(logits[targets != IGNORED], targets[targets != IGNORED])
    assert (total.item(), count.item()) == (kept[0].item(), 7)


def test_a_batch_without_targets_has_loss_zero_of_zero_positions() -> None:
    logits, targets = case(1, 4, 7)
    total, count = summed_cross_entropy(logits.requires_grad_(), torch.full_like(targets, IGNORED))
    assert (total.item(), count.item()) == (0.0, 0)
    total.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@given(batch=st.integers(1, 6), cut=st.integers(1, 6))
@settings(deadline=None, max_examples=20)
def test_micro_batches_add_up_to_the_batch(batch: int, cut: int) -> None:
    logits, targets = case(batch, 9, 11, torch.float32)
    whole = summed_cross_entropy(logits, targets)
    parts = [summed_cross_entropy(a, b) for a, b in zip(logits.split(cut), targets.split(cut), strict=True)]
    assert sum(count.item() for _, count in parts) == whole[1].item()
    # Added up in float64: the cut moves only the last bits of that.
    assert sum(total.item() for total, _ in parts) == pytest.approx(whole[0].item(), rel=1e-14)


def test_the_gradient_is_that_of_the_mean_times_the_count() -> None:
    logits, targets = case(2, 5, 7, torch.float32)
    logits.requires_grad_()
    total, count = summed_cross_entropy(logits, targets)
    (gradient,) = torch.autograd.grad(total / count, [logits])
    mean = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    (expected,) = torch.autograd.grad(mean, [logits])
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9)
    assert gradient.dtype == torch.float32


def test_half_precision_logits_are_widened_before_the_softmax() -> None:
    logits, targets = case(2, 5, 7, torch.float32)
    half = logits.bfloat16()
    assert summed_cross_entropy(half, targets)[0].item() == summed_cross_entropy(half.float(), targets)[0].item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gradients_are_rounded_once_and_pieces_change_nothing(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, targets = case(4, 50, 37, torch.float32)
    targets[1, :7] = IGNORED
    wide = (3 * logits).to(dtype).double().requires_grad_()
    exact = torch.nn.functional.cross_entropy(wide.flatten(0, 1), targets.flatten(), reduction="none")
    weights = torch.linspace(0.1, 2, exact.numel()).double()  # every position has a gradient of its own
    (exact * weights).sum().backward()
    gradients = []
    # Whole; 7 positions at a time, the last 4 positions being fewer; one position, which is more than a piece.
    for piece in (losses.PIECE, 37 * 7, 36):
        monkeypatch.setattr(losses, "PIECE", piece)
        half = (3 * logits).to(dtype).requires_grad_()
        found = losses.cross_entropies(half, targets)
        assert (found.dtype, found.shape) == (torch.float32, targets.shape)
        torch.testing.assert_close(found.flatten().double(), exact, rtol=1e-5, atol=1e-6)
        (found.flatten().double() * weights).sum().backward()
        gradients.append(half.grad)
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])
    # Half a unit in the last place of the type, and where a number is tiny the least step that float16 has.
    torch.testing.assert_close(gradients[0].double(), wide.grad, rtol=0.51 * torch.finfo(dtype).eps, atol=3.1e-8)
    assert torch.equal(gradients[0][1, :7], torch.zeros(7, 37, dtype=dtype))


def test_half_precision_logits_have_no_float32_copy_in_either_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "PIECE", 4096)
    logits = torch.zeros(64, 1024, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.zeros(64, dtype=torch.int64)
    with LiveTensorPeak([logits, targets]) as memory:
        summed_cross_entropy(logits, targets)[0].backward()
    # Logits and gradient, and of pieces of 16 KiB as many as a kernel reads and writes; float32 logits are 256 KiB.
    assert memory.peak_bytes < 2 * logits.nbytes + 4 * 4 * 4096


def test_float32_losses_and_gradients_are_those_of_torch_bit_for_bit() -> None:
    logits, targets = case(3, 5, 7, torch.float32)
    own, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    summed_cross_entropy(own, targets)[0].backward()
    each = torch.nn.functional.cross_entropy(theirs.flatten(0, 1), targets.flatten(), reduction="none")
    each.sum(dtype=torch.float64).backward()
    assert torch.equal(own.grad, theirs.grad)


def test_a_million_positions_are_added_without_drift() -> None:
    logits = torch.zeros(1_000_000, 2)
    total, count = summed_cross_entropy(logits, torch.zeros(1_000_000, dtype=torch.int64))
    # ln 2 rounded to float32, a million times: exact in float64 to its last bits.
    assert total.item() == pytest.approx(float(torch.log(torch.tensor(2.0))) * count.item(), rel=1e-12)
