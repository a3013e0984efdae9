"""The Python standard library as text: real, the same for everybody with the same Python, and needs no network.

The `.py` files of the running interpreter's standard library in sorted order, without site-packages, without tests
and without what the build writes (`_sysconfigdata*`, which holds the paths of one machine). A file is a document;
copies are dropped; the split is by hash. Another Python has another standard library and so another fingerprint.
"""

from __future__ import annotations

import io
import os
import platform
import sysconfig
import tokenize
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from stackwise_ray.config.trial import DataConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data.corpora import CORPORA
from stackwise_ray.data.corpus import HASH_SPLIT, Corpus, Document, DuplicateFilter

_SKIPPED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "lib-dynload", "test", "tests", "idle_test"}
)
_SKIPPED_PREFIXES = ("config-", "_sysconfigdata")


@CORPORA.register("python_stdlib")
class PythonStandardLibrary(Corpus):
    """The running interpreter's own source files."""

    def __init__(self, config: DataConfig) -> None:
        super().__init__(config)
        self._facts: dict[str, Any] = {}

    def recipe(self) -> Mapping[str, Any]:
        return {
            "corpus": "python_stdlib",
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "split": HASH_SPLIT,
            "duplicates": "dropped",
        }

    def signature(self) -> Mapping[str, Any]:
        return {"root": str(self._root), "files": self._files}

    def documents(self) -> Iterator[Document]:
        filter_, undecodable = DuplicateFilter(), []
        for name, _, _ in self._files:
            try:
                text = _decode((self._root / name).read_bytes())
            except (SyntaxError, UnicodeDecodeError, LookupError):
                # Python itself cannot read such a file: it is no source text, and is left out by name.
                undecodable.append(name)
                continue
            split = filter_.split(text)
            if split is not None:
                yield Document(split, text, name)
        self._facts = {
            "python": platform.python_version(),
            "files": len(self._files),
            "duplicates_dropped": filter_.dropped,
            "undecodable_left_out": undecodable,
        }

    def facts(self) -> Mapping[str, Any]:
        return self._facts

    def size_bytes(self) -> int:
        return sum(size for _, size, _ in self._files)

    @property
    def _root(self) -> Path:
        return Path(sysconfig.get_path("stdlib"))

    @cached_property
    def _files(self) -> list[tuple[str, int, int]]:
        """(path under the root with /, bytes, modification time in ns), sorted by path."""
        found: list[tuple[str, int, int]] = []
        pending = [(str(self._root), "")]
        while pending:
            folder, under = pending.pop()
            try:
                entries = list(os.scandir(folder))
            except FileNotFoundError:
                break
            for entry in entries:
                if entry.name.startswith(_SKIPPED_PREFIXES):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in _SKIPPED_FOLDERS:
                        pending.append((entry.path, f"{under}{entry.name}/"))
                # A link leads out of the library (a distribution's sitecustomize in /etc).
                elif entry.name.endswith(".py") and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.append((under + entry.name, status.st_size, status.st_mtime_ns))
        if not found:
            raise ConfigError(
                f"= python_stdlib: the source files of the standard library are not in {self._root}; install "
                "them (Debian: libpython3-stdlib), or choose another corpus",
                path="data.corpus",
            )
        return sorted(found)


def _decode(raw: bytes) -> str:
    """Source text by its own encoding declaration (PEP 263), line ends as they are."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
    return raw.decode(encoding)
