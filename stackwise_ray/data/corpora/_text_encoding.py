"""Bytes of a user's file as text: UTF-8, packed by gzip or not; everything else is refused with what converts it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from stackwise_ray.core.errors import ConfigError

_LOOKED_AT = 1 << 16
_GZIP = b"\x1f\x8b"
_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
"""How files of other encodings begin; the longer marks first."""
_REFUSED = {
    b"PK\x03\x04": "a zip file; unpack it (unzip '{path}')",
    b"BZh": "packed by bzip2; unpack it (bunzip2 '{path}'), or pack it by gzip, which is read",
    b"\xfd7zXZ\0": "packed by xz; unpack it (unxz '{path}'), or pack it by gzip, which is read",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it (unzstd '{path}'), or pack it by gzip, which is read",
    b"PAR1": "a parquet file; read its folder by data=hub data.path='{folder}'",
}
"""How files begin that are no text, and what to do with them."""


def is_packed(path: Path) -> bool:
    """Whether a file is packed by gzip, by how it begins."""
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


@contextmanager
def open_text(path: Path) -> Iterator[IO[bytes]]:
    """A file of UTF-8 text as its bytes, unpacked.

    Raises:
        ConfigError: It begins as a file of another encoding or packed by something else, or its packing is damaged.
    """
    with gzip.open(path, "rb") if is_packed(path) else path.open("rb") as file:
        try:
            _check_beginning(path, file.read(_LOOKED_AT))
            file.seek(0)
            yield cast("IO[bytes]", file)
        except (OSError, EOFError, zlib.error) as error:
            if not isinstance(file, gzip.GzipFile):
                raise
            raise ConfigError(
                f"{path} is packed by gzip and damaged ({error}); test it (gzip -t '{path}') and copy it again",
                path="data.path",
            ) from None


def decoded(content: bytes, path: Path, line: int | None = None) -> str:
    """UTF-8 bytes as text.

    Args:
        line: Number of the line in the file, for the message; None: the content is the whole file.

    Raises:
        ConfigError: They are not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"byte {error.start}" if line is None else f"line {line}, byte {error.start}"
        raise _other_encoding(path, f"is not UTF-8 text ({where})", "windows-1252") from None


def _check_beginning(path: Path, content: bytes) -> None:
    for mark, advice in _REFUSED.items():
        if content.startswith(mark):
            raise ConfigError(f"{path} is {advice.format(path=path, folder=path.parent)}", path="data.path")
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            raise _other_encoding(path, f"is {encoding.upper()} text", encoding)
    zero = content.find(b"\0")
    if zero >= 0:
        big = content[0::2].count(b"\0") > content[1::2].count(b"\0")
        raise _other_encoding(
            path,
            f"has a zero at byte {zero}, as UTF-16 text and binary files do, but no UTF-8 text",
            "utf-16be" if big else "utf-16le",
        )


def _other_encoding(path: Path, problem: str, encoding: str) -> ConfigError:
    converted = path.with_name(f"{path.stem}.utf8{path.suffix}")
    return ConfigError(
        f"{path} {problem}; convert it (iconv -f {encoding} -t utf-8 '{path}' > '{converted}'), or leave it out of "
        "data.path",
        path="data.path",
    )
