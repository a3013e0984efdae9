"""The user's own text: a file, a folder or a glob of plain text or JSONL, packed by gzip or not.

A `.jsonl` file has one document per line (`data.text_field`), any other file is one document. Copies are dropped. A
split that the names of files or folders say is kept; otherwise documents are split by the hash of their text, and a
single plain file is cut by position at line ends, 90/5/5.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from stackwise_ray.config.trial import DataConfig
from stackwise_ray.core.errors import ConfigError, did_you_mean
from stackwise_ray.data.corpora import CORPORA
from stackwise_ray.data.corpora._text_encoding import decoded, is_packed, open_text
from stackwise_ray.data.corpora._text_layout import TextLayout, find_texts, kind_of
from stackwise_ray.data.corpus import HASH_SPLIT, SPLITS, Corpus, Document, DuplicateFilter, Split, file_signature

_BY_POSITION = "one text by position at line ends, 90/5/5"


@dataclass(frozen=True, kw_only=True)
class TextFilesData(DataConfig):
    """The options of the user's own text."""

    path: str | None = None  # file, folder or glob of text or JSONL; required
    text_field: str = "text"  # key that holds the text in JSONL
    split: Literal["own", "hash"] = "own"  # own: as files and folders are named, if they are; hash: all anew


@CORPORA.register("text_files")
class TextFiles(Corpus):
    """Documents from files that the user names."""

    options = TextFilesData

    def __init__(self, config: TextFilesData) -> None:
        super().__init__(config)
        assert config.path is not None, "checked"
        self._path, self._text_field, self._split = config.path, config.text_field, config.split
        self._facts: dict[str, Any] = {}

    @classmethod
    def check(cls, config: DataConfig) -> None:
        super().check(config)
        assert isinstance(config, TextFilesData)
        if config.path is None:
            raise ConfigError(
                "is required with corpus: text_files; give a file, a folder or a glob, for example "
                "data.path='notes/**/*.txt'",
                path="data.path",
            )

    def recipe(self) -> Mapping[str, Any]:
        return {"corpus": "text_files", "text_field": self._text_field, "split": self._split_rule}

    def splits(self) -> tuple[Split, ...]:
        own = set(self._layout.splits.values())
        return tuple(split for split in SPLITS if split in own) or SPLITS

    def signature(self) -> Mapping[str, Any]:
        return {"files": [file_signature(path) for path in self._layout.files]}

    def documents(self) -> Iterator[Document]:
        files, own, filter_ = self._layout.files, self._layout.splits, DuplicateFilter()
        if self._split_rule == _BY_POSITION:
            yield from _cut_by_position(files[0])
            self._facts = {"files": 1}
            return
        # Held-out files first: what is also in them is dropped from train, not the other way round.
        for path in sorted(files, key=lambda path: own.get(path) == "train"):
            for text, name in _read(path, self._text_field):
                by_hash = filter_.split(text)
                if by_hash is not None:
                    yield Document(own.get(path, by_hash), text, name)
        self._facts = {"files": len(files), "duplicates_dropped": filter_.dropped}

    def facts(self) -> Mapping[str, Any]:
        return self._facts

    def notes(self) -> tuple[str, ...]:
        if not self._layout.splits:
            return self._layout.notes
        without = [] if "test" in self.splits() else ["there is no test split, and nothing measures it"]
        return (f"the split is that of the {self._split_rule}", *without, *self._layout.notes)

    def size_bytes(self) -> int | None:
        files = self._layout.files
        return None if any(map(is_packed, files)) else sum(path.stat().st_size for path in files)

    @cached_property
    def _layout(self) -> TextLayout:
        return find_texts(self._path, keep_split=self._split == "own")

    @cached_property
    def _split_rule(self) -> str:
        if self._layout.splits:
            *first, last = self.splits()
            return f"files named {', '.join(first)} and {last}"
        if len(self._layout.files) == 1 and kind_of(self._layout.files[0]) != ".jsonl":
            return _BY_POSITION
        return HASH_SPLIT


def _read(path: Path, text_field: str) -> Iterator[tuple[str, str]]:
    """(text, name) of each document in a file."""
    with open_text(path) as file:
        if kind_of(path) != ".jsonl":
            yield decoded(file.read(), path), str(path)
            return
        for number, line in enumerate(file, start=1):
            if line.strip():
                name = f"{path}:{number}"
                yield _field(decoded(line, path, number), text_field, name), name


def _field(line: str, text_field: str, name: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(
            f"{name} is not JSON ({error}); a .jsonl file has one object per line", path="data.path"
        ) from None
    if not isinstance(row, dict):
        raise ConfigError(f"{name} is a {type(row).__name__}; each line must be a JSON object", path="data.path")
    if text_field not in row:
        raise ConfigError(
            f"= {text_field}: {name} has no such key; {did_you_mean(text_field, row)}", path="data.text_field"
        )
    text = row[text_field]
    if not isinstance(text, str):
        raise ConfigError(
            f"= {text_field}: {name} has a {type(text).__name__} there; it must be text", path="data.text_field"
        )
    return text


def _cut_by_position(path: Path) -> Iterator[Document]:
    with open_text(path) as file:
        text = decoded(file.read(), path)
    places = [0]
    for share in (0.90, 0.95):
        line_end = text.find("\n", int(len(text) * share))
        places.append(max(places[-1], line_end + 1 if line_end >= 0 else int(len(text) * share)))
    for split, start, end in zip(SPLITS, places, [*places[1:], len(text)], strict=True):
        if end > start:
            yield Document(split, text[start:end], f"{path} ({split} part)")
