"""Filling in masked tokens: every mask goes, nothing else changes, the surest first, at the stated cost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stackwise_ray.models import build_model
from stackwise_ray.models.growth.insertion import make_growable
from stackwise_ray.models.growth.sampling import rounds, sweep
from stackwise_ray.models.stack_view import stack_view
from tests.small_models import MODELS
from tests.small_trials import with_model

MASK = 3


def encoder(name: str = "bk encoder", n_layers: int = 4) -> PreTrainedModel:
    torch.manual_seed(0)
    fields = {**vars(MODELS[name]), "n_layers": n_layers}
    model = build_model(with_model(**fields).model, vocab_size=30, seq_len=16).eval()
    make_growable(model)
    return model


def windows(share: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, 30, (3, 16), generator=generator)
    return torch.where(torch.rand(3, 16, generator=generator) < share, MASK, tokens)


@pytest.mark.parametrize("name", ["bk encoder", "bert", "modernbert"])
def test_every_mask_is_filled_and_no_other_token_changes(name: str) -> None:
    model, tokens = encoder(name), windows()
    for filled in (
        sweep(model, tokens, mask_id=MASK, levels=(0.9, 0.6, 0.4, 0.2)),
        rounds(model, tokens, mask_id=MASK, n_rounds=3),
    ):
        assert not bool((filled.tokens == MASK).any())
        assert torch.equal(filled.tokens[tokens != MASK], tokens[tokens != MASK])


def test_a_sweep_costs_every_suffix_once_and_rounds_cost_the_whole_model_each() -> None:
    model = encoder()
    assert sweep(model, windows(), mask_id=MASK, levels=(0.9, 0.6, 0.4, 0.2)).block_passes == 4 + 3 + 2 + 1
    assert sweep(model, windows(), mask_id=MASK, levels=(0.9, 0.4)).block_passes == 4 + 2
    assert rounds(model, windows(), mask_id=MASK, n_rounds=5).block_passes == 20
    ids = torch.zeros(1, 4, dtype=torch.long)
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
    assert all(block.active for block in stack_view(model).blocks), "a sweep leaves blocks switched off"
    with pytest.raises(ValueError, match="4 blocks cannot be divided evenly among 3 levels"):
        sweep(model, windows(), mask_id=MASK, levels=(0.9, 0.5, 0.1))


class Sure(nn.Module):
    """Knows that position i holds token 4 + i, and is the surer the further right."""

    def forward(self, input_ids: Tensor) -> object:
        self.seen.append(int((input_ids == MASK).sum()))
        logits = torch.zeros(*input_ids.shape, 30)
        for i in range(input_ids.shape[1]):
            logits[:, i, 4 + i] = 1.0 + i
            logits[:, i, MASK] = 100.0  # it would rather not say
        return type("Output", (), {"logits": logits})()


def test_the_surest_tokens_are_committed_first_and_a_mask_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = encoder()
    sure = Sure()
    sure.seen = []
    monkeypatch.setattr(type(model), "forward", lambda self, input_ids: sure.forward(input_ids))
    tokens = torch.full((1, 16), MASK)
    filled = sweep(model, tokens, mask_id=MASK, levels=(0.8, 0.6, 0.4, 0.2))
    assert sure.seen == [16, 12, 8, 4]
    assert filled.tokens.tolist() == [[4 + i for i in range(16)]]
    sure.seen = []
    rounds(model, tokens, mask_id=MASK, n_rounds=2)
    assert sure.seen == [16, 11]  # cos(π/4) · 16 = 11.3 are left after the first


def test_rounds_may_enter_where_their_masks_belong() -> None:
    model, seen = encoder(), []

    def entered(share: float) -> range:
        seen.append(share)
        return range(0 if share > 0.3 else 2, 4)

    filled = rounds(model, windows(0.9), mask_id=MASK, n_rounds=3, entered=entered)
    share = float((windows(0.9) == MASK).float().mean())
    assert seen == pytest.approx([share, share * 0.75**0.5, share * 0.5])
    assert filled.block_passes == sum(4 if s > 0.3 else 2 for s in seen) == 12
    assert rounds(model, windows(0.25), mask_id=MASK, n_rounds=3, entered=entered).block_passes == 6
    assert all(block.active for block in stack_view(model).blocks)
