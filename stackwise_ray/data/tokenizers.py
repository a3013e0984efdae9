"""Text to token ids: bytes, words, trained BPE, and any transformers tokenizer.

`tokenizer_source` reads the name in a config; the source's `build` gives an `Encoder`, which encodes plain text (no
special token is added, and one that occurs in the text is text) and saves itself as files that transformers loads,
so that a model's folder carries its tokenizer. transformers itself is imported only where its own tokenizers are
asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data.encoder import Encoder, FastEncoder, TokenizerSource, TrainTexts

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = {"pad": "<|pad|>", "bos": "<|bos|>", "eos": "<|eos|>", "mask": "<|mask|>"}
"""Of the tokenizers made here, by role: what no ordinary text holds. The mask is for masked language models."""

END_OF_LINE, UNKNOWN = "<eos>", "<unk>"
"""Of the `words` tokenizer: the names that the benchmarks use themselves."""


def tokenizer_source(spec: str) -> TokenizerSource:
    """The source that `data.tokenizer` names: bytes | words | bpe:<size> | a path or hub name.

    Raises:
        ConfigError: The name is malformed, or a path that holds no tokenizer.
    """
    if spec == "bytes":
        return ByteSource()
    if spec == "words":
        return WordSource()
    kind, colon, size = spec.partition(":")
    if kind == "bpe" and colon:
        return BpeSource(_bpe_size(spec, size))
    from stackwise_ray.data.pretrained_tokenizers import PretrainedSource

    return PretrainedSource(spec)


def _bpe_size(spec: str, size: str) -> int:
    least = 256 + len(SPECIAL_TOKENS)
    try:
        value = int(size.replace("_", ""))
    except ValueError:
        value = 0
    if value < least:
        raise ConfigError(
            f"= {spec}: write bpe:<entries> with at least {least} entries (256 bytes and {len(SPECIAL_TOKENS)} special "
            "tokens), for example bpe:8000",
            path="data.tokenizer",
        )
    return value


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


# ---------------------------------------------------------------------------------------------------------- words


class WordSource(TokenizerSource):
    """The words of the train split, as the papers on WikiText-2 and PTB count: white space parts them."""

    def signature(self) -> Mapping[str, Any]:
        return {"kind": "words"}

    def build(self, train_texts: TrainTexts) -> Encoder:
        counts: Counter[str] = Counter()
        for text in train_texts():
            counts.update(text.split())
        for special in (END_OF_LINE, UNKNOWN):
            counts.pop(special, None)
        ordered = sorted(counts, key=lambda word: (-counts[word], word))
        return WordEncoder([END_OF_LINE, UNKNOWN, *ordered])


class WordEncoder(Encoder):
    """Token = word; each line end is <eos>, and a word that the train split does not have is <unk>.

    Args:
        words: The vocabulary in the order of its ids.
    """

    end_of_document = None  # the last line's <eos> is there already

    def __init__(self, words: Sequence[str]) -> None:
        self._ids = {word: i for i, word in enumerate(words)}
        self.vocab_size = len(words)
        self.special_ids = {"eos": self._ids[END_OF_LINE], "unk": self._ids[UNKNOWN]}

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        get, unknown = self._ids.get, self.special_ids["unk"]
        encoded = []
        for text in texts:
            words = text.replace("\n", f" {END_OF_LINE} ").split()
            encoded.append(np.fromiter((get(word, unknown) for word in words), dtype=np.uint32, count=len(words)))
        return encoded

    def save(self, folder: Path) -> None:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

        tokenizer = Tokenizer(models.WordLevel(vocab=self._ids, unk_token=UNKNOWN))
        tokenizer.normalizer = normalizers.Replace("\n", f" {END_OF_LINE} ")
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        save_tokenizer(tokenizer, folder, {"eos": END_OF_LINE, "unk": UNKNOWN})

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(["words", *self._ids]).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------------ BPE


class BpeSource(TokenizerSource):
    """Byte-level BPE of a given size, trained on the train split and on nothing else.

    Args:
        size: Entries, the special tokens and the 256 bytes included.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def signature(self) -> Mapping[str, Any]:
        return {"kind": "bpe", "size": self.size, "specials": SPECIAL_TOKENS}

    def build(self, train_texts: TrainTexts) -> Encoder:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.size,
            special_tokens=list(SPECIAL_TOKENS.values()),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(train_texts(), trainer)
        if tokenizer.get_vocab_size() < self.size:
            raise ConfigError(
                f"= bpe:{self.size}: the train split is enough for only {tokenizer.get_vocab_size()} entries; write "
                f"bpe:{tokenizer.get_vocab_size()} or less",
                path="data.tokenizer",
            )
        return BpeEncoder(tokenizer)


class BpeEncoder(FastEncoder):
    """A BPE that was trained here."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer, SPECIAL_TOKENS)

    def save(self, folder: Path) -> None:
        save_tokenizer(self._tokenizer, folder, SPECIAL_TOKENS)


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

    return cast("PreTrainedTokenizerFast", AutoTokenizer.from_pretrained(str(folder)))
