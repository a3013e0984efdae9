"""Files whose first bytes say that they are something else than their name says.

Called by `kinds` before any kind is asked.
"""

from __future__ import annotations

from pathlib import Path

from stackwise_ray.core.errors import AnalysisError

from .parquet_table import MAGIC, SUFFIXES

_BEGINNINGS: tuple[tuple[bytes, tuple[str, ...], str], ...] = (
    (MAGIC, SUFFIXES, "a Parquet file; rename it to end in .parquet"),
    (b"\x1f\x8b", (), "compressed (gzip); unpack it (gunzip), and give the file inside"),
    (b"PK\x03\x04", (), "a spreadsheet or another ZIP archive; save the sheet as CSV, or unpack the archive"),
    (b"\xd0\xcf\x11\xe0", (), "an old Excel file; save the sheet as CSV"),
)
"""How a file begins, the suffixes that say so, and what is right."""


def refuse_mislabelled(source: str) -> None:
    """Refuse a file that is empty, or begins as a file of another kind than its suffix says.

    Raises:
        AnalysisError: With what the file is, and what to do.
    """
    path = Path(source)
    if not path.is_file():
        return
    with path.open("rb") as file:
        begins = file.read(64)
    suffix = path.suffix.lower()
    if not begins:
        raise AnalysisError(f"{source}: the file is empty")
    for beginning, suffixes, what in _BEGINNINGS:
        if begins.startswith(beginning) and suffix not in suffixes:
            raise AnalysisError(f"{source}: this file is {what}")
    if suffix in SUFFIXES and not begins.startswith(MAGIC):
        raise AnalysisError(
            f"{source}: no Parquet file (it does not begin with {MAGIC.decode()}); name it as what it is"
        )
    if suffix in (".csv", ".tsv") and begins.lstrip(b"\xef\xbb\xbf \r\n\t").startswith((b'{"', b"[{")):
        right = ".jsonl" if begins.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{") else ".json"
        raise AnalysisError(f"{source}: this file holds JSON; rename it to end in {right}")
