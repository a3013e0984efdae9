"""What a report was made from and what it wrote, as digests: `report/digests.json`.

Called by `compose` (which writes it) and `verification` (which looks whether anything has changed since). The journal
is digested by its content, trial by trial, so that a change has a name and the database's own housekeeping is none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..plain_json import write_json
from ..table.sources.sweep_journal import connect, journal_path

DIGESTS = "digests.json"
_BY_TRIAL = ("trials", "attempts", "reports")


def write_digests(folder: Path, sweep_directory: Path, written: Iterable[Path]) -> Path:
    """Record the inputs in `sweep_directory` and the files `written` under `folder`."""
    outputs = {path.relative_to(folder).as_posix(): of_file(path) for path in written}
    content = {"inputs": input_digests(sweep_directory), "outputs": dict(sorted(outputs.items()))}
    return write_json(folder / DIGESTS, content)


def input_digests(sweep_directory: Path) -> dict[str, str]:
    """Digest by input: every trial of the journal, its facts, its decisions, and the plan."""
    sums: dict[str, Any] = {}

    def add(name: str, row: Iterable[object]) -> None:
        text = json.dumps(list(row), ensure_ascii=True, separators=(",", ":"))
        sums.setdefault(name, hashlib.sha256()).update(text.encode() + b"\n")

    with connect(journal_path(sweep_directory)) as connection:
        for table in _BY_TRIAL:
            for row in connection.execute(f"SELECT trial_id, * FROM {table} ORDER BY trial_id, rowid"):
                add(f"trial {row[0]} ({table})", tuple(row)[1:])
        for row in connection.execute("SELECT key, value FROM meta ORDER BY key"):
            add(f"fact {row[0]}", row)
        for row in connection.execute("SELECT kind, key, payload FROM decisions ORDER BY kind, key"):
            add(f"decision {row[0]} {row[1]}", row)
    found = {name: content.hexdigest() for name, content in sums.items()}
    plan = sweep_directory / "plan.json"
    return found | ({"plan.json": of_file(plan)} if plan.is_file() else {})


def of_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
