"""A prepared corpus: memory-mapped token streams with their counts, tokenizer and fingerprint.

Made by `stackwise_ray.data.prepare`; used by training, evaluation and planning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stackwise_ray.config.trial import DataConfig
from stackwise_ray.core.errors import TrialError
from stackwise_ray.data.cache import file_digest
from stackwise_ray.data.corpus import Corpus, Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class TokenSplit:
    """One split as a token stream.

    Attributes:
        tokens: Shape (n_tokens,), uint16 where the vocabulary fits and uint32 otherwise; read-only.
        n_tokens: Tokens, end-of-document ids included.
        n_words: Words by the corpus's rule (see `PreparedData.describe`): the divisor of a perplexity per word.
        n_bytes: UTF-8 bytes of the documents: the divisor of a perplexity per byte.
        n_documents: Documents.
        sha256: Of the stream's bytes.
    """

    tokens: NDArray[np.unsignedinteger]
    n_tokens: int
    n_words: int
    n_bytes: int
    n_documents: int
    sha256: str


@dataclass(frozen=True)
class PreparedData:
    """The token streams of a corpus under a tokenizer.

    Attributes:
        fingerprint: sha256 of the token streams and of the recipe: equal on two machines exactly when they train on
            the same tokens.
        vocab_size: Entries of the tokenizer, special ones included; every token is below it.
        special_ids: Ids of the special tokens that the tokenizer has, by role: pad, bos, eos, unk, mask, cls, sep.
        splits: ``train``, ``validation`` and, where the corpus has one, ``test``.
        directory: The cache entry.
        rebuilt: The cache entry was damaged and had to be made again.
    """

    config: DataConfig
    fingerprint: str
    vocab_size: int
    special_ids: Mapping[str, int]
    splits: Mapping[Split, TokenSplit]
    directory: Path
    rebuilt: bool
    _metadata: Mapping[str, Any] = field(repr=False)
    _corpus: Corpus = field(repr=False)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, to be saved with a model; loads transformers."""
        from stackwise_ray.data.tokenizers import load_saved

        return load_saved(self.directory / "tokenizer")

    @property
    def held_out(self) -> tuple[Split, ...]:
        """The splits that no model is trained on."""
        return tuple(name for name in self.splits if name != "train")

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know about how the source was read, each with the name of the source."""
        source = getattr(self.config, "path", None) or self.config.corpus
        return tuple(f"{source}: {note}" for note in self._corpus.notes())

    @property
    def entropy_rate(self) -> float | None:
        """Nats per token that remain to the best prediction from an endless past; None where it is unknown."""
        return self._corpus.entropy_rate()

    def oracle_loss(
        self, offsets: ArrayLike, *, seq_len: int | None = None, split: Split = "validation"
    ) -> NDArray[np.float64] | None:
        """Mean nats per token of the best left-to-right prediction inside each window; None without a known source.

        It sees what a model sees, the window's own past, so in expectation no decoder is below it. (An encoder that
        sees both sides may be.)

        Args:
            offsets: Windows as for `windows.gather`, shape (n_windows,).
            seq_len: Predictions per window; None: the config's.

        Returns:
            Shape (n_windows,).
        """
        if self.entropy_rate is None:
            return None
        from stackwise_ray.data.windows import gather

        starts = np.asarray(offsets, dtype=np.int64).reshape(-1)
        inputs, targets = gather(self.splits[split].tokens, starts, seq_len or self.config.seq_len)
        losses = self._corpus.oracle_losses(np.concatenate([inputs, targets[:, -1:]], axis=1), starts)
        return None if losses is None else losses.mean(axis=1)

    def answers(self, offsets: ArrayLike, *, seq_len: int | None = None) -> NDArray[np.bool_] | None:
        """Which targets of windows are answers that the text before them decides; None for a corpus that never asks.

        Args:
            offsets: Windows as for `windows.gather`, shape (n_windows,).
            seq_len: Predictions per window; None: the config's.

        Returns:
            Shape (n_windows, seq_len).
        """
        return self._corpus.answers(np.asarray(offsets, dtype=np.int64).reshape(-1), seq_len or self.config.seq_len)

    def describe(self) -> dict[str, Any]:
        """What was prepared, as JSON data, for a trial's `metadata/data.json`."""
        return {
            "corpus": self.config.corpus,
            "tokenizer": self.config.tokenizer,
            "fingerprint": self.fingerprint,
            "vocab_size": self.vocab_size,
            "special_ids": dict(self.special_ids),
            "splits": {
                name: {
                    "n_tokens": split.n_tokens,
                    "n_words": split.n_words,
                    "n_bytes": split.n_bytes,
                    "n_documents": split.n_documents,
                    "sha256": split.sha256,
                }
                for name, split in self.splits.items()
            },
            "recipe": self._metadata["recipe"],
            "facts": self._metadata["facts"],
        }

    def verify(self) -> None:
        """Read every stream in full against its hash.

        Raises:
            TrialError: A stream has changed since it was prepared.
        """
        for name, split in self.splits.items():
            if file_digest(self.directory / f"{name}.bin") != split.sha256:
                raise TrialError(f"the prepared {name} split in {self.directory} is damaged; delete that folder")


def leak_check(model_losses: ArrayLike, oracle_losses: ArrayLike) -> float:
    """Mean of (model − oracle) in nats per token; an error where a model beats the source that made the text.

    Args:
        model_losses: Mean loss of each validation window, shape (n_windows ≥ 2,).
        oracle_losses: Those of `PreparedData.oracle_loss` for the same windows.

    Raises:
        TrialError: The mean is below 0 by more than 5 standard errors over windows: the model saw its targets.
        ValueError: Shapes differ, there are fewer than two windows, or a loss is not finite.
    """
    model, oracle = np.asarray(model_losses, dtype=np.float64), np.asarray(oracle_losses, dtype=np.float64)
    if model.shape != oracle.shape or model.ndim != 1 or len(model) < 2:
        raise ValueError(f"losses of the same two or more windows are needed, not {model.shape} and {oracle.shape}")
    difference = model - oracle
    if not np.isfinite(difference).all():
        raise ValueError("a loss is not finite")
    mean = float(difference.mean())
    error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
    if mean < -5 * error:
        raise TrialError(
            f"leak: the validation loss {model.mean():.4f} is below the loss of the source itself, {oracle.mean():.4f} "
            f"nats per token, by {-mean:.4f} ({_ratio(-mean, error)} standard errors over {len(model)} windows). No "
            "model can be better than the source, so this one sees the tokens that it has to predict; look for the "
            "leak in the model, such as a mixer that is not causal"
        )
    return mean


def _ratio(value: float, error: float) -> str:
    return f"{value / error:.0f}" if error > 0 else "infinitely many"
