"""Which files below a path are text, and which split each of them is named for.

A split is named by a folder (train, val) or by a file (train.jsonl, train-00000-of-00004.jsonl, wiki.valid.txt). A
split that a user made is kept or refused; documents are split by hash only where no name says otherwise, or where
`data.split: hash` asks for it.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stackwise_ray.core.errors import ConfigError, first_few
from stackwise_ray.data.corpus import SPLITS, Split

TEXT_SUFFIXES = (".txt", ".md", ".jsonl")
PACKED = ".gz"
_NAMES: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "heldout": "validation",
    "holdout": "validation",
    "test": "test",
    "testing": "test",
}
_FILLERS = frozenset({"set", "data", "split", "files", "docs"})
"""Words beside the name of a split that say nothing: train_set, val-data."""
_ABOUT = frozenset({"readme", "license", "licence", "changelog", "citation", "notice", "authors", "contributing"})
"""Stems of files that tell about a data set and are no part of it."""
_SHARD = re.compile(r"(?:[-_.]?(?:part|shard))?[-_.]?\d+(?:[-_.]?of[-_.]?\d+)?$")
_WORDS = re.compile(r"[-_. ]+")
_MOST_NAMES = 3


@dataclass(frozen=True, kw_only=True)
class TextLayout:
    """The files of a corpus.

    Attributes:
        files: In the order of their paths, all that are read.
        splits: The split of each file, by its name; empty where the names say nothing.
        notes: What was not read, one sentence each.
    """

    files: tuple[Path, ...]
    splits: Mapping[Path, Split]
    notes: tuple[str, ...]


def find_texts(path: str, *, keep_split: bool) -> TextLayout:
    """The files that `path` names: a file, a folder or a glob.

    Args:
        keep_split: Whether names of files and folders decide the split.

    Raises:
        ConfigError: There is no such file; more is left out than read; or files are named for some splits and not for
            those that training needs.
    """
    root = Path(path).expanduser()
    if root.is_file():
        return TextLayout(files=(root,), splits={}, notes=_beside(root) if keep_split else ())
    if root.is_dir():
        found, notes = _below(root)
    else:
        found, notes = [Path(name) for name in glob.glob(str(root), recursive=True) if Path(name).is_file()], []
        if not found:
            raise ConfigError(f"= {path}: no file matches (looked from {Path.cwd()})", path="data.path")
        root = _fixed_part(root)
    found.sort(key=lambda file: file.as_posix())
    splits = _splits(root, found) if keep_split else {}
    if not splits:
        alone = [file for file in found if keep_split and _by_place(root, file) is not None]
        if alone:
            notes.append(
                f"named for train, with no validation beside it: {_listed(root, alone)}; all text is split anew"
            )
        return TextLayout(files=tuple(found), splits={}, notes=tuple(notes))
    others = [file for file in found if file not in splits]
    _refuse_other_texts(path, found, others)
    if others:
        notes.append(f"not read, because no split is in its name: {_listed(root, others)}")
    return TextLayout(files=tuple(splits), splits=splits, notes=tuple(notes))


def kind_of(file: Path) -> str:
    """The suffix that says how a file is read, in lower case and without that of gzip.

    >>> kind_of(Path("a/Notes.TXT")), kind_of(Path("train.jsonl.gz"))
    ('.txt', '.jsonl')
    """
    name = file.name.lower().removesuffix(PACKED)
    return Path(name).suffix


# ------------------------------------------------------------------------------------------------------ what is text


def _below(folder: Path) -> tuple[list[Path], list[str]]:
    """The text files below a folder, links followed, and what was left out.

    Raises:
        ConfigError: There is none, or more files than not would be left out.
    """
    files, hidden, loops = _walk(folder)
    found = [file for file in files if kind_of(file) in TEXT_SUFFIXES]
    left_out = [file for file in files if kind_of(file) not in TEXT_SUFFIXES]
    others = Counter(file.suffix or "no suffix" for file in left_out)
    if not found:
        raise ConfigError(
            f"= {folder}: no {', '.join(TEXT_SUFFIXES)} file in this folder; name others by a glob like "
            f"'{folder}/**/*{_suffix(others) if others else '.py'}'",
            path="data.path",
        )
    kinds = ", ".join(f"{suffix} {count:,}" for suffix, count in others.most_common(_MOST_NAMES))
    if len(left_out) > len(found):
        raise ConfigError(
            f"= {folder}: from a folder only {', '.join(TEXT_SUFFIXES)} files are read. Here these are "
            f"{len(found):,}; {len(left_out):,} others would be left out ({kinds}). Name the files that you mean by a "
            f"glob, like '{folder}/**/*{_suffix(others)}'",
            path="data.path",
        )
    notes = []
    if left_out:
        notes.append(f"not read, because only {', '.join(TEXT_SUFFIXES)} files are: {_listed(folder, left_out)}")
    if hidden:
        notes.append(f"not read, because the name begins with a dot: {_listed(folder, hidden)}")
    if loops:
        notes.append(f"not followed, because the link leads to a folder that is read already: {_listed(folder, loops)}")
    return found, notes


def _suffix(others: Counter[str]) -> str:
    common = others.most_common(1)[0][0]
    return common if common.startswith(".") else ".txt"


def _walk(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """(files, hidden files and folders, links to folders that were visited), each by path."""
    files: list[Path] = []
    hidden: list[Path] = []
    loops: list[Path] = []
    visited: set[tuple[int, int]] = set()
    links: list[Path] = [folder]
    while links:  # the folder itself first, then what links lead to: a file under its own path comes before its link
        start = links.pop(0)
        status = start.stat()
        if (status.st_dev, status.st_ino) in visited:
            loops.append(start)
            continue
        for place, folders, names in os.walk(start):
            status = os.stat(place)
            visited.add((status.st_dev, status.st_ino))
            here = Path(place)
            hidden += [here / name for name in (*folders, *names) if name.startswith(".")]
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links += [here / name for name in folders if (here / name).is_symlink()]
            files += [here / name for name in names if not name.startswith(".") and (here / name).is_file()]
    return files, hidden, loops


def _listed(root: Path, files: Sequence[Path]) -> str:
    names = sorted(file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file) for file in files)
    return first_few(names, _MOST_NAMES)


def _fixed_part(pattern: Path) -> Path:
    """The folders of a glob before its first wildcard."""
    parts = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts) if parts else Path()


# ------------------------------------------------------------------------------------------------ which split it is


def _splits(root: Path, files: Sequence[Path]) -> dict[Path, Split]:
    """The split of every file whose name or folder says one; empty where the names are those of documents.

    Raises:
        ConfigError: Files are named for validation or test and none for train, or for train and test and none for
            validation.
    """
    named = {file: split for file in files if (split := _by_place(root, file)) is not None}
    if not named:
        named = _by_common_name(files)
    there = set(named.values())
    if not there or there == {"train"}:
        return {}
    lacking = [split for split in ("train", "validation") if split not in there]
    if lacking:
        have = " and ".join(split for split in SPLITS if split in there)
        example = next(file for file, split in named.items() if split != "train" or there == {"train"})
        raise ConfigError(
            f"= {root}: its files are named for {have} ({_listed(root, [example])}), but none for "
            f"{' and '.join(lacking)}. Name files or folders train, validation and (if there is one) test; or write "
            "data.split=hash, which splits all documents anew",
            path="data.path",
        )
    return {file: named[file] for file in files if file in named}


def _beside(file: Path) -> tuple[str, ...]:
    """A note where one file of a split was named: the others are not read."""
    siblings = [other for other in sorted(file.parent.iterdir()) if kind_of(other) == kind_of(file) and other != file]
    split = _by_place(file.parent, file)
    others = [other for other in siblings if _by_place(file.parent, other) not in (None, split)]
    if split is None or not others:
        return ()
    return (
        f"{_listed(file.parent, others)} beside it is not read: this one file is split anew; name the folder "
        f"({file.parent}) to keep its split",
    )


def _by_place(root: Path, file: Path) -> Split | None:
    """The split that a folder above the file, or the whole name of the file, says."""
    below = file.relative_to(root) if file.is_relative_to(root) else file
    for part in below.parts[:-1]:
        if (split := _said(part.lower())) is not None:
            return split
    return _said(_stem(file))


def _said(name: str) -> Split | None:
    """The split that a whole name says, without the number of a shard and words such as set.

    >>> _said("train-00000-of-00004"), _said("val_set"), _said("test_plan")
    ('train', 'validation', None)
    """
    words = [word for word in _WORDS.split(_SHARD.sub("", name)) if word not in _FILLERS]
    return _NAMES.get(words[0].removesuffix("set")) if len(words) == 1 else None


def _by_common_name(files: Sequence[Path]) -> dict[Path, Split]:
    """Splits from names such as wiki.train.txt and wiki.valid.txt: one word tells the files of a data set apart.

    Names that differ in more (train_station.txt, test_plan.txt) are those of documents.
    """
    found: dict[str, dict[Path, Split]] = {}
    for file in files:
        words = _WORDS.split(_SHARD.sub("", _stem(file)))
        places = [place for place in (0, len(words) - 1) if words[place] in _NAMES]
        if len(words) > 1 and places:
            rest = "\n".join([*words[: places[0]], "*", *words[places[0] + 1 :]])
            found.setdefault(rest, {})[file] = _NAMES[words[places[0]]]
    whole = [named for named in found.values() if {"train", "validation"} <= set(named.values())]
    return {file: split for named in whole for file, split in named.items()}


def _stem(file: Path) -> str:
    name = file.name.lower().removesuffix(PACKED)
    return name.removesuffix(Path(name).suffix)


def _refuse_other_texts(path: str, files: Sequence[Path], others: Sequence[Path]) -> None:
    """Refuses a split that would leave out most of the text; files about a data set do not count."""
    texts = [file for file in others if _stem(file) not in _ABOUT]
    if sum(file.stat().st_size for file in texts) * 2 > sum(file.stat().st_size for file in files):
        raise ConfigError(
            f"= {path}: some files are named for train and validation, but most of the text is in {len(texts):,} "
            f"others, such as {texts[0].name}, and would be left out. Name the files of the split by a glob; or write "
            "data.split=hash, which splits all documents anew",
            path="data.path",
        )
