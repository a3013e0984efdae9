"""Jobs of Hydra as rows: the configuration that Hydra keeps of each job, and what the job measured in its folder.

Hydra records no result, so a job's measurements are those that it wrote: an object in metrics.json or results.json, the
last values of a metrics.csv or metrics.jsonl, TensorBoard event files, or a trainer_state.json.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from stackwise_ray.core.errors import AnalysisError

from .foreign import as_source, beside, flattened, json_object, place_in
from .source_kind import SourceKind
from .tensorboard_runs import event_files, event_runs
from .trainer_states import STATE, trainer_runs


class _Text(yaml.SafeLoader):
    """Reads every value but null as the text that it is."""


_Text.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
CONFIG = ".hydra/config.yaml"
_RESULT = re.compile(r"metric|result|score|summary", re.IGNORECASE)
"""In the name of a JSON file that holds what a job measured."""
_KINDS = (
    "an object in metrics.json or results.json, metrics.csv, metrics.jsonl, TensorBoard event files or "
    "trainer_state.json"
)


def job_folders(folder: Path) -> list[Path]:
    """The folders of jobs below a folder, in the order of their numbers."""
    found = [path.parent.parent for path in folder.rglob(CONFIG)]
    return sorted(
        found, key=lambda path: [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in path.parts]
    )


def job_runs(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows and notes of the jobs below a folder.

    Raises:
        AnalysisError: A configuration or a file of measurements that cannot be read, or no job measured anything.
    """
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    silent: list[str] = []
    for job in job_folders(folder):
        row: dict[str, Any] = {**place_in(folder, job)}
        measured = _measured(job, notes)
        if not measured:
            silent.append(row["run_name"])
        row |= measured
        settings = _yaml(job / CONFIG)
        choices = {key: value for key, value in _choices(job).items() if "/" not in key and value is not None}
        config = flattened(settings)
        beside(row, {**{key: value for key, value in choices.items() if key not in config}, **config}, "parameters")
        rows.append(row)
    if len(silent) == len(rows):
        raise AnalysisError(
            f"{folder}: Hydra keeps the configuration of its {len(rows)} jobs, and none of them has measured anything "
            f"in its folder; write {_KINDS} there"
        )
    if silent:
        notes.append(f"{len(silent)} of {len(rows)} jobs measured nothing: {', '.join(silent[:5])}")
    return rows, list(dict.fromkeys(notes))


def _measured(job: Path, notes: list[str]) -> dict[str, Any]:
    """What a job wrote about itself, the first kind of file that it has."""
    objects = [path for path in sorted(job.glob("*.json")) if _RESULT.search(path.stem)]
    if objects:
        parts = {path.stem: flattened(json_object(path, "the measurements of a job")) for path in objects}
        several = len(parts) > 1
        return {
            f"{stem}/{key}" if several else key: value for stem, part in parts.items() for key, value in part.items()
        }
    for name, read in (("metrics.csv", _last_of_csv), ("metrics.jsonl", _last_of_lines)):
        found = sorted(job.rglob(name))
        if len(found) > 1:
            raise AnalysisError(
                f"{job}: {len(found)} files are called {name}, so which one is the result is open; keep one"
            )
        if found:
            notes.append(f"each value is the last one in {name}")
            return read(found[0])
    kinds: tuple[tuple[bool, Callable[[Path], tuple[list[dict[str, Any]], list[str]]]], ...] = (
        (any(job.rglob(STATE)), trainer_runs),
        (bool(event_files(job)), event_runs),
    )
    for is_there, reader in kinds:
        if is_there:
            rows, said = reader(job)
            if len(rows) > 1:
                raise AnalysisError(
                    f"{job}: this job holds {len(rows)} runs; give the folder of one kind, or split the job"
                )
            notes += said
            return {key: value for key, value in rows[0].items() if key != "run_name" and not key.startswith("path/")}
    return {}


def _last_of_csv(path: Path) -> dict[str, Any]:
    """The last value of each column, where a cell may be empty in most rows (Lightning writes so)."""
    last: dict[str, Any] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            last |= {key: value for key, value in row.items() if key and value not in (None, "")}
    return last


def _last_of_lines(path: Path) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            last |= flattened(json.loads(line))
        except (ValueError, AttributeError) as error:
            raise AnalysisError(f"{path}: line {number} is no whole JSON object ({error})") from error
    return last


def _choices(job: Path) -> dict[str, Any]:
    """Which option of each configuration group the job used (`optimizer=adam`)."""
    path = job / ".hydra" / "hydra.yaml"
    if not path.is_file():
        return {}
    found = _yaml(path).get("hydra", {}).get("runtime", {}).get("choices") or {}
    return {str(key): value for key, value in found.items() if not str(key).startswith("hydra/")}


def _yaml(path: Path) -> dict[str, Any]:
    """A mapping whose values are the text on file: `1.10` stays two digits; `null` is no value."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AnalysisError(f"{path}: cannot be read as YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise AnalysisError(f"{path}: a configuration of Hydra is a mapping, and this file holds {content!r}")
    return content


KIND = SourceKind(
    name="hydra",
    described="the folder of a Hydra multirun",
    recognises=lambda source: Path(source).is_dir() and any(Path(source).rglob(CONFIG)),
    read=lambda source: as_source(*job_runs(Path(source))),
)
