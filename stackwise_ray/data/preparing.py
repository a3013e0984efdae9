"""From a `DataConfig` to memory-mapped token streams: read, tokenise, write once, check when used again.

`prepare` is called by the commands (for the fingerprint) and by every worker (for the tokens); the second call on a
machine reads the cache. Text is tokenised document by document. A document longer than a megabyte is cut at line
ends into pieces, which are tokenised by themselves and in parallel: part of the recipe, since a tokenizer could see
a difference.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stackwise_ray.config.trial import DataConfig
from stackwise_ray.core import cache_place
from stackwise_ray.core.callbacks import ProgressCallback
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.plugins import owner
from stackwise_ray.data import cache
from stackwise_ray.data.corpora import CORPORA
from stackwise_ray.data.corpus import HASH_SPLIT, SPLITS, Corpus, Document, Split, WordRule
from stackwise_ray.data.encoder import Encoder, TokenizerSource
from stackwise_ray.data.prepared import PreparedData, TokenSplit
from stackwise_ray.data.tokenizers import tokenizer_source
from stackwise_ray.data.windows import count_windows

_FORMAT = 1  # raised when an older cache entry cannot be read
_PIECE_CHARACTERS = 1 << 20
_BATCH_CHARACTERS = 4 << 20
_PROGRESS_SECONDS = 0.5

logger = logging.getLogger(__name__)


def prepare(
    config: DataConfig,
    *,
    cache_directory: Path | None = None,
    progress: ProgressCallback | None = None,
    verify: bool = False,
) -> PreparedData:
    """The corpus that `config` names as token streams, from the cache where they are there.

    Args:
        cache_directory: Where prepared data lies; None: `core.cache_place.cache_directory()`.
        progress: Told how far the work is.
        verify: Read the cached streams in full against their hashes instead of in samples.

    Raises:
        ConfigError: The corpus or tokenizer is unknown or not found, they do not go together, or a split is too
            short for one window.
        DiskFullError: The cache's disk is full.
    """
    corpus = CORPORA.get(config.corpus)(config)
    tokenizer = tokenizer_source(config.tokenizer)
    root = (cache_directory or cache_place.cache_directory()) / "tokens"
    plugin = owner("corpora", config.corpus)
    key = cache.key_of(
        {
            "format": _FORMAT,
            "recipe": corpus.recipe(),
            "signature": corpus.signature(),
            "tokenizer": tokenizer.signature(),
            **({} if plugin is None else {"plugin": plugin.sha256}),  # an edited file is prepared again
        }
    )
    ticker = _Ticker(progress)
    place, damaged = cache.entry(
        root,
        key,
        intact=lambda folder: _intact(folder, verify=verify),
        build=lambda folder: _build(folder, corpus, tokenizer, ticker),
    )
    if damaged:
        logger.warning("the prepared data in %s were damaged; they were made again from the source", place)
    return _open(place, corpus, rebuilt=damaged)


def _open(place: Path, corpus: Corpus, *, rebuilt: bool) -> PreparedData:
    config = corpus.config
    metadata = _read_metadata(place)
    splits: dict[Split, TokenSplit] = {}
    for name in (split for split in SPLITS if split in metadata["splits"]):
        facts = metadata["splits"][name]
        count_windows(facts["n_tokens"], config.seq_len, split=name)
        splits[name] = TokenSplit(
            tokens=np.memmap(place / f"{name}.bin", dtype=np.dtype(metadata["dtype"]), mode="r"),
            n_tokens=facts["n_tokens"],
            n_words=facts["n_words"],
            n_bytes=facts["n_bytes"],
            n_documents=facts["n_documents"],
            sha256=facts["sha256"],
        )
    return PreparedData(
        config=config,
        fingerprint=metadata["fingerprint"],
        vocab_size=metadata["vocab_size"],
        special_ids=metadata["special_ids"],
        splits=splits,
        directory=place,
        rebuilt=rebuilt,
        _metadata=metadata,
        _corpus=corpus,
    )


# ------------------------------------------------------------------------------------------------- a cache entry


def _intact(place: Path, *, verify: bool) -> bool:
    """Whether an entry is whole: its metadata reads, and every file has the size and hash it was written with."""
    try:
        metadata = _read_metadata(place)
        for name, facts in metadata["files"].items():
            path = place / name
            if path.stat().st_size != facts["bytes"] or cache.sample_digest(path) != facts["sample"]:
                return False
            if verify and cache.file_digest(path) != facts["sha256"]:
                return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def _read_metadata(place: Path) -> dict[str, Any]:
    metadata = json.loads((place / "metadata.json").read_text(encoding="utf-8"))
    if not isinstance(metadata, dict) or metadata.get("format") != _FORMAT:
        raise ValueError(f"{place} holds no prepared data of format {_FORMAT}")
    content = {name: value for name, value in metadata.items() if name != "checksum"}
    if metadata.get("checksum") != hashlib.sha256(cache.canonical(content)).hexdigest():
        raise ValueError(f"{place}/metadata.json is damaged")
    return metadata


def _build(folder: Path, corpus: Corpus, tokenizer: TokenizerSource, ticker: _Ticker) -> None:
    """Write one entry: one stream per split, the tokenizer, and last the metadata that makes it valid."""
    encoder = tokenizer.build(_train_texts(corpus, ticker))
    dtype = np.dtype("<u2") if encoder.vocab_size <= 1 << 16 else np.dtype("<u4")
    streams = _write_streams(folder, corpus, encoder, dtype, ticker)
    _check_streams(corpus, streams)
    encoder.save(folder / "tokenizer")
    recipe = {
        **corpus.recipe(),
        "tokenizer_sha256": encoder.digest(),
        "vocab_size": encoder.vocab_size,
        "end_of_document": _separator(corpus, encoder),
        "piece_characters": _PIECE_CHARACTERS,
        "words": corpus.word_rule,
    }
    identity = {"recipe": recipe, "streams": {name: stream.sha256.hexdigest() for name, stream in streams.items()}}
    content = {
        "format": _FORMAT,
        "fingerprint": hashlib.sha256(cache.canonical(identity)).hexdigest(),
        "vocab_size": encoder.vocab_size,
        "special_ids": dict(encoder.special_ids),
        "dtype": dtype.str,
        "recipe": recipe,
        "facts": dict(corpus.facts()),
        "splits": {name: stream.describe() for name, stream in streams.items()},
        "files": {
            str(path.relative_to(folder)): {
                "bytes": path.stat().st_size,
                "sample": cache.sample_digest(path),
                "sha256": cache.file_digest(path),
            }
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    }
    content["checksum"] = hashlib.sha256(cache.canonical(content)).hexdigest()
    (folder / "metadata.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


# ----------------------------------------------------------------------------------------------------- tokenising


@dataclass
class _Stream:
    """A split while it is written."""

    file: BinaryIO
    word_rule: WordRule
    sha256: Any = field(default_factory=hashlib.sha256)
    n_tokens: int = 0
    n_words: int = 0
    n_bytes: int = 0
    n_documents: int = 0

    def count(self, document: Document) -> None:
        self.n_documents += 1
        self.n_words += count_words(document.text, self.word_rule)
        try:
            self.n_bytes += len(document.text.encode("utf-8"))
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"{document.name}: character {error.start} is half of a surrogate pair, which is not valid text; "
                "correct or remove this document"
            ) from None

    def write(self, ids: np.ndarray) -> None:
        data = ids.tobytes()
        self.file.write(data)
        self.sha256.update(data)
        self.n_tokens += len(ids)

    def describe(self) -> dict[str, Any]:
        return {
            "n_tokens": self.n_tokens,
            "n_words": self.n_words,
            "n_bytes": self.n_bytes,
            "n_documents": self.n_documents,
            "sha256": self.sha256.hexdigest(),
        }


def _write_streams(
    folder: Path, corpus: Corpus, encoder: Encoder, dtype: np.dtype[Any], ticker: _Ticker
) -> dict[Split, _Stream]:
    separator = _separator(corpus, encoder)
    end = np.array([] if separator is None else [separator], dtype=dtype)
    streams: dict[Split, _Stream] = {}
    batch: list[tuple[Split, str, bool]] = []  # (split, piece, whether it ends its document)
    waiting = done = 0
    ticker.start(f"tokenising {corpus.config.corpus}", corpus.size_bytes())

    def flush() -> None:
        for (split, _, last), ids in zip(batch, encoder.encode([piece for _, piece, _ in batch]), strict=True):
            streams[split].write(ids.astype(dtype))
            if last:
                streams[split].write(end)
        batch.clear()

    try:
        for name in corpus.splits():
            streams[name] = _Stream((folder / f"{name}.bin").open("wb"), corpus.word_rule)
        for document in corpus.documents():
            streams[document.split].count(document)
            for piece, last in pieces(document.text):
                batch.append((document.split, piece, last))
                waiting += len(piece)
                if waiting >= _BATCH_CHARACTERS:
                    flush()
                    done, waiting = done + waiting, 0
                    ticker.tick(done)
        flush()
        ticker.finish(done + waiting)
    finally:
        for stream in streams.values():
            stream.file.close()
    return streams


def pieces(text: str, most: int = _PIECE_CHARACTERS) -> Iterator[tuple[str, bool]]:
    """(piece, whether it is the last): a text cut before lines that begin with a word, at most `most` characters each.

    A run of white space stays whole, because byte-level tokenizers join it. Where no such line begins within `most`
    characters, the cut is before a space, or without one at `most`.

    >>> list(pieces("one two\\nthree", 10))
    [('one two\\n', False), ('three', True)]
    """
    start = 0
    while len(text) - start > most:
        cut = _cut(text, start, start + most)
        yield text[start:cut], False
        start = cut
    yield text[start:], True


def _cut(text: str, start: int, limit: int) -> int:
    place = text.rfind("\n", start, limit)
    while place >= start:
        following = text[place + 1 : place + 3]
        if following and not (following[0].isspace() and following[-1:].isspace()):
            return place + 1
        place = text.rfind("\n", start, place)
    space = text.rfind(" ", start + 1, limit)
    return space if space > start else limit


def count_words(text: str, rule: WordRule) -> int:
    """How many words a text has, as a perplexity per word counts them."""
    return len(words_of(text, rule))


def words_of(text: str, rule: WordRule) -> Sequence[str]:
    """The words of a text in order.

    >>> words_of(" a b \\n \\n c \\n", "whitespace and line ends")
    ['a', 'b', '<eos>', '<eos>', 'c', '<eos>']
    """
    if rule == "symbols":
        return text
    if rule == "whitespace and line ends":
        text = text.replace("\n", " <eos> ")
    return text.split()


def _train_texts(corpus: Corpus, ticker: _Ticker) -> Callable[[], Iterator[str]]:
    """The train split's documents in pieces, for tokenizers that learn from it; read only if asked for."""

    def read() -> Iterator[str]:
        ticker.start(f"reading the train split of {corpus.config.corpus} for its tokenizer", corpus.size_bytes())
        done = 0
        for document in corpus.documents():
            done += len(document.text)
            if document.split == "train":
                for piece, _ in pieces(document.text):
                    yield piece
            ticker.tick(done)
        ticker.finish(done)

    return read


def _separator(corpus: Corpus, encoder: Encoder) -> int | None:
    return encoder.end_of_document if corpus.separated else None


def _check_streams(corpus: Corpus, streams: dict[Split, _Stream]) -> None:
    for name, stream in streams.items():
        if stream.n_tokens == 0:
            raise _empty_split(corpus, name, sum(each.n_documents for each in streams.values()))
    expected = corpus.expected_words()
    for name, words in (expected or {}).items():
        if streams[name].n_words != words:
            raise ConfigError(
                f"= {corpus.config.corpus}: the {name} split has {streams[name].n_words:,} words with one "
                f"<eos> per line, but the published one has {words:,}, so this is not that corpus; use the official "
                "files, or corpus: text_files for your own",
                path="data.corpus",
            )


def _empty_split(corpus: Corpus, name: Split, n_documents: int) -> ConfigError:
    rule = corpus.recipe().get("split")
    if rule != HASH_SPLIT:
        where = "" if rule is None else f" ({rule})"
        return ConfigError(
            f"= {corpus.config.corpus}: the {name} split is empty{where}: the text is too short, or all of it is "
            "also in another split; give more text",
            path="data.corpus",
        )
    dropped = corpus.facts().get("duplicates_dropped", 0)
    return ConfigError(
        f"= {corpus.config.corpus}: the {name} split is empty. The corpus has {n_documents:,} "
        f"different documents ({dropped:,} copies were dropped), too few for a split 90/5/5 by their hashes; "
        f"give fifty or more, or one file, which is split by position",
        path="data.corpus",
    )


class _Ticker:
    """Passes progress on, at most every half second."""

    def __init__(self, progress: ProgressCallback | None) -> None:
        self._progress = progress
        self._what, self._total, self._last = "", None, 0.0

    def start(self, what: str, total: int | None) -> None:
        self._what, self._total = what, total  # type: ignore[assignment]
        self._report(0)

    def tick(self, done: int) -> None:
        if time.monotonic() - self._last >= _PROGRESS_SECONDS:
            self._report(done)

    def finish(self, done: int) -> None:
        self._total = done  # type: ignore[assignment]
        self._report(done)

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress(self._what, done, self._total)
        self._last = time.monotonic()
