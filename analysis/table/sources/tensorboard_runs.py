"""TensorBoard event folders as rows: one run per folder with event files, the last value of each curve.

Read with the library `tensorboard`. What belongs to one run in several folders becomes one row: the hyperparameters
that add_hparams of a SummaryWriter writes beside a run, the curves of its add_scalars, and the pair train and
validation that Keras writes.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackwise_ray.core.errors import AnalysisError

from .foreign import as_source, beside, flattened, library, place_in
from .source_kind import SourceKind

_LIBRARY = ("tensorboard", "TensorBoard event files")
_SPLITS = {"train", "training", "validation", "val", "valid", "eval", "test"}
_STATUS = {1: "finished", 2: "failed", 3: "running"}
"""How a session ended, by the plugin hparams; 0 is unknown."""
_HEADER, _FOOTER = 12, 4
"""Bytes around a record: its length and the checksum of that, and the checksum of the record."""


@dataclass
class _Events:
    """What the event files of one folder hold.

    Attributes:
        last: {tag: (step, time, value)} of the last value of each curve.
        texts: {tag: text}.
        settings: Hyperparameters; None where none were written.
        status: How the run ended, where a session says so.
        started: Time of the first event (Unix, s).
    """

    last: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] | None = None
    status: str | None = None
    started: float = math.inf


def event_files(folder: Path) -> dict[Path, list[Path]]:
    """The event files below a folder, by the folder they are in, in the order in which they were begun."""
    found = defaultdict(list)
    for path in sorted(folder.rglob("*tfevents*")):
        if path.is_file():
            found[path.parent].append(path)
    return dict(found)


def event_runs(source: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows and notes of the runs below a folder, or of one event file.

    Raises:
        AnalysisError: tensorboard is not installed, a damaged file, or no scalar in any of them.
    """
    files = {source.parent: [source]} if source.is_file() else event_files(source)
    folder = source.parent if source.is_file() else source
    notes: list[str] = []
    runs = {place: _read(paths, notes) for place, paths in files.items()}
    for place in sorted(runs, key=lambda path: -len(path.parts)):
        _join_parent(place, runs)
    _join_splits(folder, runs)
    bare = [place for place, run in runs.items() if not run.last]
    if bare:
        names = ", ".join(place_in(folder, place)["run_name"] for place in bare[:3])
        notes.append(f"{len(bare)} folders have event files without a scalar, and are no runs: {names}")
    rows = [_row(folder, place, run) for place, run in runs.items() if run.last]
    if not rows:
        raise AnalysisError(f"{source}: its event files hold no scalar; a run needs at least one add_scalar")
    notes.append("each value is the last one of its curve; the curves stay in the event files")
    lengths = {row["last_step"] for row in rows}
    if len(lengths) > 1:
        notes.append(f"the runs end at different steps ({min(lengths)} to {max(lengths)}, column last_step)")
    return rows, notes


def _row(folder: Path, place: Path, run: _Events) -> dict[str, Any]:
    row: dict[str, Any] = dict(place_in(folder, place))
    if run.status is not None:
        row["status"] = run.status
    row["start_time"] = run.started
    row["last_step"] = max(step for step, _, _ in run.last.values())
    row |= {tag: value for tag, (_, _, value) in run.last.items()}
    beside(row, run.settings or {}, "parameters")
    beside(row, run.texts, "texts")
    return row


def _join_parent(place: Path, runs: dict[Path, _Events]) -> None:
    """Move a folder's content to the run in the folder above, where it belongs to that run."""
    run, above = runs[place], runs.get(place.parent)
    if above is None:
        return
    if len(run.last) == 1:
        tag, value = next(iter(run.last.items()))
        begin = tag.replace("/", "_") + "_"
        if place.name.startswith(begin) and run.settings is None:  # SummaryWriter.add_scalars
            above.last[f"{tag}/{place.name.removeprefix(begin)}"] = value
            del runs[place]
            return
    beside_it = [path for path in runs if path.parent == place.parent and runs[path].settings is not None]
    if run.settings is not None and above.settings is None and len(beside_it) == 1:  # SummaryWriter.add_hparams
        above.settings, above.status = run.settings, run.status
        above.last = {**run.last, **above.last}
        del runs[place]


def _join_splits(folder: Path, runs: dict[Path, _Events]) -> None:
    """Make one run of the folders `train` and `validation` of a run that has no events of its own."""
    groups: dict[Path, list[Path]] = defaultdict(list)
    for place in runs:
        groups[place.parent].append(place)
    for parent, places in groups.items():
        names = {place.name for place in places}
        if parent in runs or len(names) < 2 or not names <= _SPLITS or not parent.is_relative_to(folder):
            continue
        joined = _Events()
        for place in places:
            run = runs.pop(place)
            joined.last |= {f"{place.name}/{tag}": value for tag, value in run.last.items()}
            joined.texts |= {f"{place.name}/{tag}": text for tag, text in run.texts.items()}
            joined.settings = run.settings if joined.settings is None else joined.settings
            joined.started = min(joined.started, run.started)
        runs[parent] = joined


def _read(paths: Iterable[Path], notes: list[str]) -> _Events:
    run = _Events()
    for path in paths:
        for event in _events(path, notes):
            run.started = min(run.started, event.wall_time)
            for value in event.summary.value:
                _take(run, event, value)
    return run


def _take(run: _Events, event: Any, value: Any) -> None:
    """Add one value of an event to what is known of its run."""
    kind = value.metadata.plugin_data.plugin_name
    if kind == "hparams":
        _take_settings(run, value.metadata.plugin_data.content)
        return
    if not value.HasField("tensor"):
        return
    if kind == "text":
        texts = [text.decode("utf-8", "replace") for text in value.tensor.string_val]
        run.texts |= _settings_in(value.tag, " ".join(texts))
    elif kind == "scalars" or value.tag in run.last:
        number = library("tensorboard.util.tensor_util", *_LIBRARY).make_ndarray(value.tensor).reshape(-1)[0]
        now = (
            int(event.step),
            float(event.wall_time),
            float(str(number)),
        )  # 2.6 on file as float32 is 2.6, not 2.59999…
        run.last[value.tag] = max(run.last.get(value.tag, now), now, key=lambda item: item[:2])


def _settings_in(tag: str, text: str) -> dict[str, Any]:
    """The settings that a text holds as JSON (transformers writes its arguments so), else the text itself."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return flattened(found) if isinstance(found, dict) else {tag.removesuffix("/text_summary"): text}


def _take_settings(run: _Events, content: bytes) -> None:
    proto = library("tensorboard.plugins.hparams.plugin_data_pb2", *_LIBRARY)
    data = proto.HParamsPluginData.FromString(content)
    if data.HasField("session_start_info"):
        run.settings = run.settings or {}
        for name, value in data.session_start_info.hparams.items():
            kind = value.WhichOneof("kind")
            if kind in ("number_value", "string_value", "bool_value"):
                run.settings[name] = getattr(value, kind)
    if data.HasField("session_end_info"):
        run.status = _STATUS.get(data.session_end_info.status, run.status)


def _events(path: Path, notes: list[str]) -> Iterator[Any]:
    """The events of one file; a damaged one is refused, and one that ends within a record is noted."""
    loader = library("tensorboard.backend.event_processing.event_file_loader", *_LIBRARY)
    whole, ends_well = _records(path)
    read = Counter[str]()
    for event in loader.LegacyEventFileLoader(str(path)).Load():
        read["events"] += 1
        yield loader.data_compat.migrate_event(event)
    if read["events"] < whole:
        raise AnalysisError(
            f"{path}: damaged after {read['events']} of {whole} records, so what the run measured last is not known; "
            f"copy the file again, or move it away to read the other runs"
        )
    if not ends_well:
        notes.append(f"{path.name} ends within a record: the run was cut off, or is still being written")


def _records(path: Path) -> tuple[int, bool]:
    """How many whole records a file has by their lengths, and whether it ends after one."""
    size, place, count = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while place + _HEADER <= size:
            file.seek(place)
            after = place + _HEADER + int.from_bytes(file.read(8), "little") + _FOOTER
            if after > size:
                return count, False
            place, count = after, count + 1
    return count, place == size


def _recognises(source: str) -> bool:
    path = Path(source)
    if path.is_dir():  # Ray writes event files into the folders of a sweep's trials
        return not any(path.glob("*/journal.sqlite")) and any(path.rglob("*tfevents*"))
    return path.is_file() and "tfevents" in path.name


KIND = SourceKind(
    name="tensorboard",
    described="a folder with TensorBoard event files",
    recognises=_recognises,
    read=lambda source: as_source(*event_runs(Path(source))),
)
