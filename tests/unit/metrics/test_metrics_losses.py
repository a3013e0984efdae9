"""The summed cross-entropy against its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stackwise_ray.metrics.losses import IGNORED, summed_cross_entropy


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


def test_a_million_positions_are_added_without_drift() -> None:
    logits = torch.zeros(1_000_000, 2)
    total, count = summed_cross_entropy(logits, torch.zeros(1_000_000, dtype=torch.int64))
    # ln 2 rounded to float32, a million times: exact in float64 to its last bits.
    assert total.item() == pytest.approx(float(torch.log(torch.tensor(2.0))) * count.item(), rel=1e-12)
