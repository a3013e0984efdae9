"""Masking: 80/10/10, independent of batching, and nothing but the selected positions changes."""

import functools

import numpy as np
import pytest

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data.corruption import denoising_mask, drawn_ratios, mlm_mask

SPECIAL = {"pad": 256, "bos": 257, "eos": 258, "mask": 259}
TOKENS = np.random.RandomState(0).randint(0, 259, size=(400, 128))


def mask(tokens=TOKENS, ids=None, **changes):
    settings = {"epoch": 0, "seed": 0, "ratios": 0.15, "special_ids": SPECIAL, "vocab_size": 260, **changes}
    return mlm_mask(tokens, np.arange(len(tokens)) if ids is None else ids, **settings)


def test_inputs_differ_from_targets_only_at_selected_positions():
    batch = mask()
    np.testing.assert_array_equal(batch.targets, TOKENS)
    np.testing.assert_array_equal(batch.inputs[~batch.selected], TOKENS[~batch.selected])
    assert batch.selected.any()


def test_selected_tokens_are_masked_replaced_and_kept_80_10_10():
    """Shares within 5 binomial standard deviations of their values."""
    batch = mask()
    ordinary = TOKENS < 256
    n = int(batch.selected.sum())
    assert abs(n - 0.15 * ordinary.sum()) < 5 * np.sqrt(ordinary.sum() * 0.15 * 0.85)
    masked = batch.inputs[batch.selected] == SPECIAL["mask"]
    same = batch.inputs[batch.selected] == TOKENS[batch.selected]
    changed = ~masked & ~same
    kept = 0.1 + 0.1 / 256  # a random token is the old one once in 256
    for share, expected in ((masked.mean(), 0.8), (same.mean(), kept), (changed.mean(), 0.2 - kept)):
        assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / n)


def test_special_tokens_are_neither_selected_nor_drawn():
    batch = mask(ratios=1.0)
    assert not batch.selected[TOKENS >= 256].any()
    assert batch.selected[TOKENS < 256].all()
    replaced = (batch.inputs != TOKENS) & (batch.inputs != SPECIAL["mask"])
    assert (batch.inputs[replaced] < 256).all()
    counts = np.bincount(batch.inputs[replaced], minlength=256)
    assert counts.min() > 0  # about 5,000 draws over 256 tokens: each one comes


def test_an_unknown_word_is_a_word_and_may_be_selected():
    batch = mask(np.full((4, 64), 1), ratios=1.0, special_ids={"unk": 1, "mask": 2}, vocab_size=10)
    assert batch.selected.all()


def test_the_corruption_of_a_sequence_does_not_depend_on_its_batch():
    whole = mask()
    for start in (0, 7, 399):
        alone = mask(TOKENS[start : start + 1], [start])
        np.testing.assert_array_equal(alone.inputs[0], whole.inputs[start])
    shuffled = np.random.RandomState(1).permutation(400)
    np.testing.assert_array_equal(mask(TOKENS[shuffled], shuffled).inputs, whole.inputs[shuffled])


@pytest.mark.parametrize("changes", [{"seed": 1}, {"epoch": 1}, {"ids": np.arange(400) + 400}])
def test_another_seed_epoch_or_sequence_is_corrupted_elsewhere(changes):
    assert (mask(**changes).selected != mask().selected).mean() > 0.2  # independent: 2 · 0.15 · 0.85 = 0.255


def test_masks_of_neighbouring_sequences_and_positions_are_uncorrelated():
    """Correlation of 50,000 pairs within 5/√n of zero."""
    selected = mask(np.zeros((400, 128), dtype=int)).selected.astype(float) - 0.15
    variance = 0.15 * 0.85
    for a, b in ((selected[1:], selected[:-1]), (selected[:, 1:], selected[:, :-1])):
        assert abs((a * b).mean() / variance) < 5 / np.sqrt(a.size)


def test_a_ratio_of_zero_leaves_everything_as_it_is():
    batch = mask(ratios=0.0)
    assert not batch.selected.any()
    np.testing.assert_array_equal(batch.inputs, TOKENS)


def test_a_tokenizer_without_a_mask_is_refused_with_one_that_has():
    with pytest.raises(ConfigError, match=r"data.tokenizer: this tokenizer has no mask token.*choose bytes"):
        mask(special_ids={"eos": 0})


SEQUENCES = np.arange(4 * 40).reshape(4, 40) % 50 + 4
MASK_ONLY = {"pad": 0, "mask": 1}


def denoised(ratios=0.5, tokens=SEQUENCES, ids=(0, 1, 2, 3), epoch=1, seed=0):
    return denoising_mask(tokens, np.array(ids), epoch=epoch, seed=seed, ratios=ratios, special_ids=MASK_ONLY)


def test_denoising_changes_the_input_exactly_where_there_is_a_loss_and_always_to_the_mask():
    batch = denoised()
    assert ((batch.inputs != batch.targets) == batch.selected).all()
    assert (batch.inputs[batch.selected] == 1).all()
    assert (batch.targets == SEQUENCES).all()


def test_the_masks_of_a_sequence_are_nested_in_the_ratio_and_the_same_in_any_company():
    light, heavy = denoised(0.3), denoised(0.7)
    assert (light.selected <= heavy.selected).all()
    assert light.selected.sum() < heavy.selected.sum()
    alone = denoised(0.3, SEQUENCES[2:3], (2,))
    assert (alone.selected[0] == light.selected[2]).all()
    assert (denoised(0.3, epoch=2).selected != light.selected).any()
    assert (denoised(0.3, seed=1).selected != light.selected).any()


def test_every_sequence_has_its_own_ratio_and_special_tokens_are_never_masked():
    tokens = np.where(np.arange(40) < 20, 0, SEQUENCES)  # the first half is padding
    batch = denoised(np.array([0.0, 0.2, 0.8, 1.0]), tokens)
    assert batch.selected.sum(1)[0] == 0
    assert batch.selected.sum(1)[3] == 20
    assert not batch.selected[:, :20].any()


def test_ratios_are_drawn_evenly_over_the_bands_and_within_them():
    ids = np.arange(20_000)
    ratios = drawn_ratios(ids, ((0.1, 0.1), (0.5, 0.9)), epoch=1, seed=0)
    low, high = ratios == 0.1, ratios >= 0.5
    assert (low | high).all()
    assert low.mean() == pytest.approx(0.5, abs=0.02)
    assert ratios[high].mean() == pytest.approx(0.7, abs=0.01)
    assert (drawn_ratios(ids[7:8], ((0.1, 0.1), (0.5, 0.9)), epoch=1, seed=0) == ratios[7]).all()


@pytest.mark.parametrize("masked", [denoising_mask, functools.partial(mlm_mask, vocab_size=260)])
def test_a_short_sequence_has_a_masked_token_at_any_ratio_and_the_masks_stay_nested(masked):
    tokens = np.full((300, 16), 7)
    tokens[:, 0] = SPECIAL["mask"]
    settings = {"epoch": 1, "seed": 0, "special_ids": SPECIAL}
    light, heavy = (masked(tokens, np.arange(300), ratios=ratio, **settings).selected for ratio in (0.05, 0.2))
    assert light.any(axis=1).all()
    assert (light.sum(axis=1) == 1).mean() > 0.8  # no more than that one is added: 46 % have none below .05
    assert not light[:, 0].any()
    assert (heavy[light]).all()
    alone = masked(tokens[:1], np.arange(1), ratios=0.05, **settings).selected
    assert (alone == light[:1]).all()
    nothing = np.full((2, 4), SPECIAL["mask"])
    assert not masked(nothing, np.arange(2), ratios=0.5, **settings).selected.any()
