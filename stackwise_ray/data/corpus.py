"""What a corpus is: documents, each in one split, and the facts that identify them.

`stackwise_ray.data.corpora` has one file for each; `stackwise_ray.data.preparing` turns them into token files.
Nothing here knows of tokens, but what a generated source knows about its own.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from stackwise_ray.config.trial import DataConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.metric import Needs

if TYPE_CHECKING:  # a corpus is asked for its options when a trial is validated, which loads no numpy
    import numpy as np
    from numpy.typing import NDArray

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

WordRule = Literal["whitespace", "whitespace and line ends", "symbols"]
"""What counts as a word in a perplexity per word. `whitespace and line ends` is how the WikiText and PTB papers
count (one <eos> per line); `symbols` takes every character as a word (generated sources)."""

HASH_SPLIT = "sha256 of the text, 90/5/5"
_TRAIN_SHARE, _VALIDATION_SHARE = 0.90, 0.05


@dataclass(frozen=True, slots=True)
class Document:
    """One text of one split.

    Attributes:
        name: Where it comes from, for messages: a file, or file:line.
    """

    split: Split
    text: str
    name: str


class Corpus(ABC):
    """A source of documents.

    One instance serves one preparation: `documents` may be read several times and yields the same each time.

    Attributes:
        word_rule: How the words of a perplexity per word are counted.
        separated: Whether the tokenizer's end-of-document id is put after each document. The benchmarks with
            published counts add nothing.
        symbol_tokens: Whether the corpus only makes sense with one token per character (the `bytes` tokenizer).
    """

    options: ClassVar[type[DataConfig]] = DataConfig
    """Its data options: `DataConfig`, or a frozen subclass with fields of its own."""
    word_rule: WordRule = "whitespace"
    separated: bool = True
    symbol_tokens: bool = False

    def __init__(self, config: DataConfig) -> None:
        if not isinstance(config, self.options):
            raise TypeError(f"{type(self).__name__} reads {self.options.__name__}, not {type(config).__name__}")
        self.check(config)
        self.config = config

    @classmethod
    def check(cls, config: DataConfig) -> None:
        """Refuses options that contradict each other; asked when a trial is validated, before any text is read.

        Args:
            config: Of the class `options`.

        Raises:
            ConfigError: Names the field, its value and what to choose instead.
        """
        if cls.symbol_tokens and config.tokenizer != "bytes":
            raise ConfigError(
                f"= {config.tokenizer}: the exact floor of the corpus {config.corpus} is per symbol, so "
                "each symbol must be one token; choose bytes",
                path="data.tokenizer",
            )

    @classmethod
    def offers(cls) -> frozenset[Needs]:
        """What this corpus has of all that metrics may need: a known law (`entropy_rate`), questions (`answers`)."""
        methods: dict[Needs, str] = {"known law": "entropy_rate", "answers": "answers"}
        return frozenset(need for need, name in methods.items() if getattr(cls, name) is not getattr(Corpus, name))

    @abstractmethod
    def recipe(self) -> Mapping[str, Any]:
        """What decides the text, as JSON data without paths or times: the same on every machine."""

    @abstractmethod
    def signature(self) -> Mapping[str, Any]:
        """What a change of the source shows in, read in milliseconds (paths, sizes, times): the key of the cache.

        Raises:
            ConfigError: The source is not there.
        """

    def splits(self) -> tuple[Split, ...]:
        """The splits that the source has: train, validation, and mostly test."""
        return SPLITS

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """All documents in a fixed order."""

    def facts(self) -> Mapping[str, Any]:
        """What reading the documents has shown (files read, duplicates dropped): for `metadata/data.json`."""
        return {}

    def notes(self) -> tuple[str, ...]:
        """What a user should know about how the source was read (whose split it is, what was not read)."""
        return ()

    def expected_words(self) -> Mapping[Split, int] | None:
        """The published word counts of a benchmark, which what was found must have; None: nothing is published."""
        return None

    def entropy_rate(self) -> float | None:
        """Nats per token that remain to the best prediction from an endless past; None where it is unknown."""
        return None

    def oracle_losses(self, windows: NDArray[np.integer], offsets: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Nats of each token but a window's first, by the best prediction from the window's own past.

        Args:
            windows: Tokens, shape (n_windows, length).
            offsets: Where each window begins in its split, shape (n_windows,).

        Returns:
            Shape (n_windows, length − 1); None exactly where `entropy_rate` is.
        """
        return None

    def answers(self, offsets: NDArray[np.int64], seq_len: int) -> NDArray[np.bool_] | None:
        """Which targets of the windows are answers that the text before them decides; None: there are none.

        Args:
            offsets: As for `windows.gather`, shape (n_windows,).

        Returns:
            Shape (n_windows, seq_len).
        """
        return None

    def size_bytes(self) -> int | None:
        """About how much text there is, for a progress display; None: not known beforehand."""
        return None


def split_of(digest: bytes) -> Split:
    """The split of a document by the hash of its text: 90 % train, 5 % validation, 5 % test.

    The same text falls into the same split wherever it occurs, so copies never straddle two splits.

    >>> split_of(bytes(32)), split_of(b"\\xff" * 32)
    ('train', 'test')
    """
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < _TRAIN_SHARE:
        return "train"
    return "validation" if place < _TRAIN_SHARE + _VALIDATION_SHARE else "test"


class DuplicateFilter:
    """Drops texts that occurred before and gives the others their split by hash."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self.dropped = 0

    def split(self, text: str) -> Split | None:
        """The split of `text`, or None where the same text has been seen."""
        # "surrogatepass": a text that is no valid Unicode is refused by name when it is encoded, not here.
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        if digest[:16] in self._seen:
            self.dropped += 1
            return None
        self._seen.add(digest[:16])
        return split_of(digest)


def file_signature(path: Path) -> list[Any]:
    """Path, size and modification time of a file: a cheap sign of change."""
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]
