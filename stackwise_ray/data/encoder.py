"""What a tokenizer is to the rest of the program: a source that a config names, and the encoder that it becomes.

`data.tokenizers` makes those of this project, `data.pretrained_tokenizers` reads those of others.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TrainTexts = Callable[[], Iterator[str]]
"""Reads the train split from its beginning."""


class Encoder(ABC):
    """A tokenizer ready for use.

    Attributes:
        vocab_size: Entries, special ones included.
        special_ids: Ids by role (pad, bos, eos, unk, mask, cls, sep), those that exist.
        end_of_document: Id put between documents; None: nothing is.
    """

    vocab_size: int
    special_ids: Mapping[str, int]
    end_of_document: int | None

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Token ids of each text by itself."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the files that transformers reads it from into a new folder."""

    @abstractmethod
    def digest(self) -> str:
        """sha256 of everything that decides its ids."""


class TokenizerSource(ABC):
    """What a config names, before anything is trained or loaded."""

    @abstractmethod
    def signature(self) -> Mapping[str, Any]:
        """What a change of the tokenizer shows in, read in milliseconds."""

    @abstractmethod
    def build(self, train_texts: TrainTexts) -> Encoder:
        """The tokenizer itself; one that is trained reads `train_texts`."""


class FastEncoder(Encoder):
    """A tokenizer of the `tokenizers` library, which encodes a batch in parallel.

    Args:
        tokenizer: Used as it is, but for special tokens: those that occur in the text are read as text.
        specials: Token by role.
    """

    def __init__(self, tokenizer: Tokenizer, specials: Mapping[str, str]) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True
        self.vocab_size = max(tokenizer.get_vocab_size(), 1 + max(tokenizer.get_vocab().values()))
        ids = {role: tokenizer.token_to_id(token) for role, token in specials.items()}
        self.special_ids = {role: i for role, i in ids.items() if i is not None}
        self.end_of_document = self.special_ids.get("eos", self.special_ids.get("sep"))

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def digest(self) -> str:
        return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()
