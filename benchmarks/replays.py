"""Replays of simulated worlds, for benchmarks that count how often an interval holds the truth, and their record.

Every replay is a line of a file as soon as it is done, so that a benchmark of hours goes on where it stopped. Delete
the file when the program has changed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from rich.progress import Progress

from analysis.plain_json import write_json
from analysis.render import Grid
from stackwise_ray.core.atomic import atomic_write_text

RESULTS = Path(__file__).parent / "results"
_SAID_EVERY = 60.0
"""Seconds between two lines of progress where the output is no terminal."""
_CHUNK = 10
Replay = Callable[..., dict[str, Any]]
Key = tuple[Any, ...]


def command_line(doc: str | None, name: str) -> argparse.ArgumentParser:
    """The options of every benchmark of replays; each adds its own."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--work", type=Path, default=Path(f"experiments/{name}.jsonl"), help="lines of replays")
    parser.add_argument("--results", type=Path, default=RESULTS, help="for JSON and table")
    return parser


def replayed(replay: Replay, keys: Sequence[Key], work: Path, jobs: int = 1) -> list[dict[str, Any]]:
    """What `replay(*key)` gives for every key, in their order; what `work` holds is not done again.

    Args:
        replay: A function of a module, whose values go through JSON.
        keys: Arguments of each replay: numbers and words.
        work: Lines of replays, each a JSON object of key and found; made where it does not exist.
        jobs: Processes.
    """
    known = _read(work)
    left = [key for key in keys if key not in known]
    work.parent.mkdir(parents=True, exist_ok=True)
    before, said = len(keys) - len(left), time.monotonic()
    with (
        work.open("a", encoding="utf-8") as file,
        Progress(disable=not sys.stderr.isatty()) as progress,
        _mapped(replay, left, jobs) as found,
    ):
        if work.stat().st_size and not work.read_bytes().endswith(b"\n"):
            file.write("\n")
        task = progress.add_task("replays", total=len(keys), completed=before)
        for done, (key, row) in enumerate(zip(left, found, strict=True), before + 1):
            known[key] = row
            file.write(json.dumps({"key": key, "found": row}) + "\n")
            file.flush()
            progress.update(task, completed=done)
            if not sys.stderr.isatty() and time.monotonic() - said > _SAID_EVERY:
                said = time.monotonic()
                print(f"{done} of {len(keys)} replays", file=sys.stderr)
    return [known[key] for key in keys]


@contextmanager
def _mapped(replay: Replay, keys: Sequence[Key], jobs: int) -> Iterator[Iterator[dict[str, Any]]]:
    if jobs == 1 or not keys:
        yield (replay(*key) for key in keys)
        return
    with ProcessPoolExecutor(jobs) as pool:
        try:
            yield pool.map(replay, *zip(*keys, strict=True), chunksize=_CHUNK)
        finally:  # Ctrl-C does not wait for the replays that have not begun
            pool.shutdown(cancel_futures=True)


def _read(work: Path) -> dict[Key, dict[str, Any]]:
    known: dict[Key, dict[str, Any]] = {}
    if work.is_file():
        for line in work.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that was being written when the last run ended
            known[tuple(row["key"])] = row["found"]
    return known


def conditions(load_before: float) -> dict[str, Any]:
    """The day, the machine and the versions that numbers were measured with."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average_before": load_before,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
    }


def record(results: Path, name: str, grid: Grid, found: Mapping[str, Any]) -> None:
    """Print the table; write `name`.json and `name`.md to a folder."""
    print(grid.to_text())
    write_json(results / f"{name}.json", found)
    atomic_write_text(results / f"{name}.md", grid.to_markdown())
