"""Corrupted inputs: which positions are masked or replaced, for masked language models and for denoising.

Every draw is addressed by (seed, sequence, epoch, position), so that the corruption of a sequence does not depend
on its batch, its worker or what ran before. Called by the training loop and by evaluation of encoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.seeding import NOISE, stream_seed
from stackwise_ray.data.counters import hash64, uniform

_MASKED, _REPLACED = 0.8, 0.1  # of the selected positions; the rest keeps its token
_DENOISING, _RATIOS = 3, (4, 5)  # draws of their own, after the three of `mlm_mask`


class MaskedBatch(NamedTuple):
    """A corrupted batch; each field has shape (n_sequences, seq_len).

    Attributes:
        inputs: What the model sees.
        targets: The tokens as they were.
        selected: Where the loss is taken: the only places at which inputs may differ from targets.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    selected: NDArray[np.bool_]


def mlm_mask(
    tokens: ArrayLike,
    sequence_ids: ArrayLike,
    *,
    epoch: int,
    seed: int,
    ratios: ArrayLike,
    special_ids: Mapping[str, int],
    vocab_size: int,
) -> MaskedBatch:
    """Corrupt a batch: each ordinary token is selected with the probability that is its sequence's ratio, one at least.

    A selected token becomes the mask (80 %), a random ordinary token (10 %), or stays (10 %). Special tokens are
    never selected, except <unk>, which stands for a word. Source: Devlin et al. 2019, section 3.1 and appendix A.1;
    selection is by independent draws, not a fixed number per sequence.

    Args:
        tokens: Shape (n_sequences, seq_len).
        sequence_ids: Global number of each sequence, shape (n_sequences,).
        epoch: Anything else that shall change the draws; 0 for validation, where they are always the same.
        seed: The trial's root seed; the draws come from its noise stream.
        ratios: Share of positions to select in each sequence, shape (n_sequences,) or one for all.
        special_ids: Ids by role; the mask must be among them.
        vocab_size: Random tokens are drawn evenly from its ordinary entries.

    Raises:
        ConfigError: The tokenizer has no mask.
    """
    targets, sequences, reserved = _checked(tokens, sequence_ids, special_ids)
    positions = np.arange(targets.shape[1], dtype=np.uint64)
    draws = [hash64(stream_seed(seed, NOISE), epoch, sequences, positions, purpose) for purpose in range(3)]
    selected = _selected(uniform(draws[0]), ratios, targets, reserved)
    action = uniform(draws[1])
    ordinary = np.setdiff1d(np.arange(vocab_size, dtype=np.int64), reserved)
    # The bias of a remainder over 2^64 is below vocab_size / 2^64.
    random_tokens = ordinary[(draws[2] % np.uint64(len(ordinary))).astype(np.int64)]
    inputs = targets.copy()
    masked = selected & (action < _MASKED)
    replaced = selected & (action >= _MASKED) & (action < _MASKED + _REPLACED)
    inputs[masked] = special_ids["mask"]
    inputs[replaced] = random_tokens[replaced]
    return MaskedBatch(inputs, targets, selected)


def denoising_mask(
    tokens: ArrayLike,
    sequence_ids: ArrayLike,
    *,
    epoch: int,
    seed: int,
    ratios: ArrayLike,
    special_ids: Mapping[str, int],
) -> MaskedBatch:
    """Mask a batch: an ordinary token whose u is below its sequence's ratio becomes the mask token, always.

    u is drawn once for a position of a sequence, so the masks of one sequence are nested in the ratio: what is masked
    at .3 is masked at .5; where no u is below it, the lowest is masked. Special tokens are never masked, except <unk>.
    Source: the absorbing state of masked diffusion, Austin et al. 2021 (2107.03006, section 3.1).

    Args:
        tokens, sequence_ids, epoch, seed: As in `mlm_mask`, whose draws these do not meet.
        ratios: Share of positions to mask in each sequence, likewise.

    Raises:
        ConfigError: The tokenizer has no mask.
    """
    targets, sequences, reserved = _checked(tokens, sequence_ids, special_ids)
    positions = np.arange(targets.shape[1], dtype=np.uint64)
    u = uniform(hash64(stream_seed(seed, NOISE), epoch, sequences, positions, _DENOISING))
    selected = _selected(u, ratios, targets, reserved)
    return MaskedBatch(np.where(selected, special_ids["mask"], targets), targets, selected)


def drawn_ratios(
    sequence_ids: ArrayLike, bands: Sequence[tuple[float, float]], *, epoch: int, seed: int
) -> NDArray[np.float64]:
    """A share for each sequence, shape (n_sequences,): one of the bands, all equally likely, and evenly within it."""
    sequences = np.asarray(sequence_ids, dtype=np.uint64)
    choice, within = (uniform(hash64(stream_seed(seed, NOISE), epoch, sequences, 0, purpose)) for purpose in _RATIOS)
    lowest, highest = np.asarray(bands, dtype=np.float64)[(choice * len(bands)).astype(np.int64)].T
    return np.asarray(lowest + (highest - lowest) * within)


def _selected(
    u: NDArray[np.float64], ratios: ArrayLike, targets: NDArray[np.int64], reserved: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Where the loss is taken: ordinary tokens whose u is below their sequence's ratio, or the one with the lowest u.

    That one is for a short sequence at a light ratio, in which often no u is below it: a last step of such a sequence
    alone would have no loss. It depends on the sequence alone and is selected at every heavier ratio too.
    """
    limits = np.broadcast_to(np.asarray(ratios, dtype=np.float64).reshape(-1, 1), (len(targets), 1))
    ordinary = ~np.isin(targets, reserved)
    selected = (u < limits) & ordinary
    bare = ordinary.any(axis=1) & ~selected.any(axis=1) & (limits[:, 0] > 0)
    selected[bare, np.where(ordinary, u, 1.0)[bare].argmin(axis=1)] = True
    return selected


def _checked(
    tokens: ArrayLike, sequence_ids: ArrayLike, special_ids: Mapping[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
    """Tokens (n_sequences, seq_len), sequence ids (n_sequences, 1), and the ids that are never corrupted."""
    if "mask" not in special_ids:
        raise ConfigError(
            "this tokenizer has no mask token, and training on masked input needs one; choose bytes, bpe:<size>, or a "
            "tokenizer with a mask token (bert-base-uncased)",
            path="data.tokenizer",
        )
    targets = np.asarray(tokens, dtype=np.int64)
    sequences = np.asarray(sequence_ids, dtype=np.uint64).reshape(-1, 1)
    if targets.ndim != 2 or len(sequences) != len(targets):
        raise ValueError(f"tokens of shape {targets.shape} do not go with {len(sequences)} sequence ids")
    reserved = np.array(sorted({i for role, i in special_ids.items() if role != "unk"}), dtype=np.int64)
    return targets, sequences, reserved
