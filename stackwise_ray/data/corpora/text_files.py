"""The user's own text: a file, a folder or a glob of plain text or JSONL.

A `.jsonl` file has one document per line (`data.text_field`), any other file is one document. Copies are dropped and
the split is by hash of the text. Two layouts bring their own split: a folder with train, validation (or valid, val)
and test files, and a single plain file, which is cut by position at line ends, 90/5/5.
"""

from __future__ import annotations

import glob
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stackwise_ray.config.trial import DataConfig
from stackwise_ray.core.errors import ConfigError, did_you_mean
from stackwise_ray.data.corpora import CORPORA
from stackwise_ray.data.corpus import HASH_SPLIT, SPLITS, Corpus, Document, DuplicateFilter, Split, file_signature

_FOLDER_SUFFIXES = (".txt", ".md", ".jsonl")
_SPLIT_STEMS: Mapping[str, Split] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


@dataclass(frozen=True, kw_only=True)
class TextFilesData(DataConfig):
    """The options of the user's own text."""

    path: str | None = None  # file, folder or glob of text or JSONL; required
    text_field: str = "text"  # key that holds the text in JSONL


@CORPORA.register("text_files")
class TextFiles(Corpus):
    """Documents from files that the user names."""

    options = TextFilesData

    def __init__(self, config: TextFilesData) -> None:
        super().__init__(config)
        assert config.path is not None, "checked"
        self._path, self._text_field = config.path, config.text_field
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

    def signature(self) -> Mapping[str, Any]:
        return {"files": [file_signature(path) for path in self._files]}

    def documents(self) -> Iterator[Document]:
        rule, filter_ = self._split_rule, DuplicateFilter()
        if rule == _BY_POSITION:
            yield from _cut_by_position(self._files[0])
            self._facts = {"files": 1}
            return
        # Held-out files first: what is also in them is dropped from train, not the other way round.
        held_out_first = sorted(self._files, key=lambda path: _SPLIT_STEMS.get(path.stem) == "train")
        for path in held_out_first if rule == _BY_FILE else self._files:
            for text, name in _read(path, self._text_field):
                split = filter_.split(text)
                if split is not None:
                    yield Document(_SPLIT_STEMS[path.stem] if rule == _BY_FILE else split, text, name)
        self._facts = {"files": len(self._files), "duplicates_dropped": filter_.dropped}

    def facts(self) -> Mapping[str, Any]:
        return self._facts

    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._files)

    @cached_property
    def _files(self) -> list[Path]:
        path = Path(self._path).expanduser()
        if path.is_file():
            return [path]
        if path.is_dir():
            found = _texts_of(path)
            wanted = (
                f"no {', '.join(_FOLDER_SUFFIXES)} file in this folder; name others by a glob like '{path}/**/*.py'"
            )
        else:
            found = [Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file()]
            wanted = f"no file matches (looked from {Path.cwd()})"
        if not found:
            raise ConfigError(f"= {self._path}: {wanted}", path="data.path")
        # By the path below what was named, so that the order does not depend on where it lies.
        return sorted(found, key=lambda file: file.as_posix())

    @cached_property
    def _split_rule(self) -> str:
        stems = sorted(_SPLIT_STEMS.get(path.stem, "") for path in self._files)
        if Path(self._path).expanduser().is_dir() and stems == sorted(SPLITS):
            return _BY_FILE
        if len(self._files) == 1 and self._files[0].suffix != ".jsonl":
            return _BY_POSITION
        return HASH_SPLIT


_BY_FILE = "files named train, validation and test"
_BY_POSITION = "one text by position at line ends, 90/5/5"


def _texts_of(folder: Path) -> list[Path]:
    """The text files below a folder, which has to hold text above all: a corpus must not be a few of its files.

    Raises:
        ConfigError: More files than not would be left out.
    """
    everything = [file for file in folder.rglob("*") if file.is_file()]
    files = [file for file in everything if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    found = [file for file in files if file.suffix in _FOLDER_SUFFIXES]
    others = Counter(file.suffix or "no suffix" for file in files if file.suffix not in _FOLDER_SUFFIXES)
    if found and others.total() > len(found):
        most = ", ".join(f"{suffix} {count:,}" for suffix, count in others.most_common(3))
        suffix = others.most_common(1)[0][0]
        raise ConfigError(
            f"= {folder}: from a folder only {', '.join(_FOLDER_SUFFIXES)} files are read. Here these are "
            f"{len(found):,}; {others.total():,} others would be left out ({most}). Name the files that you mean by a "
            f"glob, like '{folder}/**/*{suffix if suffix.startswith('.') else '.txt'}'",
            path="data.path",
        )
    return found


def _read(path: Path, text_field: str) -> Iterator[tuple[str, str]]:
    """(text, name) of each document in a file."""
    if path.suffix != ".jsonl":
        yield _text(path), str(path)
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                name = f"{path}:{number}"
                yield _field(line, text_field, name), name


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text (byte {error.start}); convert it (iconv -f latin1 -t utf-8), or leave it out of "
            "data.path",
            path="data.path",
        ) from None


def _field(line: bytes, text_field: str, name: str) -> str:
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
    text = _text(path)
    places = [0]
    for share in (0.90, 0.95):
        line_end = text.find("\n", int(len(text) * share))
        places.append(max(places[-1], line_end + 1 if line_end >= 0 else int(len(text) * share)))
    for split, start, end in zip(SPLITS, places, [*places[1:], len(text)], strict=True):
        if end > start:
            yield Document(split, text[start:end], f"{path} ({split} part)")
