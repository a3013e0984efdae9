"""Text to token ids: bytes, words, trained BPE, and any transformers tokenizer.

`tokenizer_source` reads the name in a config; the source's `build` gives an `Encoder`, which encodes plain text (no
special token is added, and one that stands in the text is text) and saves itself as files that transformers loads,
so that a model's folder carries its tokenizer. transformers itself is imported only where its own tokenizers are
asked for.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

TrainTexts = Callable[[], Iterator[str]]
"""Reads the train split from its beginning."""

SPECIAL_TOKENS = {"pad": "<|pad|>", "bos": "<|bos|>", "eos": "<|eos|>", "mask": "<|mask|>"}
"""Of the tokenizers made here, by role: what no ordinary text holds. The mask is for masked language models."""


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


def tokenizer_source(spec: str) -> TokenizerSource:
    """The source that `data.tokenizer` names: bytes | words | bpe:<size> | a path or hub name.

    Raises:
        ConfigError: The name is malformed, or nothing is found under it.
    """
    return ByteSource()


# ---------------------------------------------------------------------------------------------------------- bytes


class ByteSource(TokenizerSource):
    """256 bytes, then the special tokens."""

    def signature(self) -> Mapping[str, Any]:
        return {"kind": "bytes", "specials": SPECIAL_TOKENS}

    def build(self, train_texts: TrainTexts) -> Encoder:
        return ByteEncoder()


class ByteEncoder(Encoder):
    """Token = byte of the UTF-8 text. Encoded by numpy; saved as a byte-level BPE without merges."""

    vocab_size = 256 + len(SPECIAL_TOKENS)
    special_ids: Mapping[str, int] = {role: 256 + i for i, role in enumerate(SPECIAL_TOKENS)}
    end_of_document = special_ids["eos"]

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        return [np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.uint32) for text in texts]

    def save(self, folder: Path) -> None:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

        vocabulary = {character: byte for byte, character in enumerate(_byte_characters())}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS.values()])
        save_tokenizer(tokenizer, folder, SPECIAL_TOKENS)

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(["bytes", self.special_ids]).encode()).hexdigest()


def _byte_characters() -> list[str]:
    """The printable character that stands for each byte in byte-level BPE files (GPT-2's table)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    characters, extra = [], 256
    for byte in range(256):
        if byte in printable:
            characters.append(chr(byte))
        else:
            characters.append(chr(extra))
            extra += 1
    return characters


# ------------------------------------------------------------------------------------------------- saved on disk


def save_tokenizer(tokenizer: Tokenizer, folder: Path, specials: Mapping[str, str]) -> None:
    """Write `tokenizer.json` and the configuration that transformers reads beside it."""
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    configuration: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30),
        **{f"{role}_token": token for role, token in specials.items()},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration, indent=1), encoding="utf-8")


def load_saved(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer that `Encoder.save` has written."""
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(str(folder))
    return tokenizer
