"""Result files of lm-evaluation-harness as rows: one per model and task, or one per item where samples were logged.

Plain JSON, so no library is needed. `FOLDER` gives the scores of tasks; `FOLDER#items` the scores of single documents
from `samples_*.jsonl`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stackwise_ray.core.errors import AnalysisError

from .foreign import as_source, beside, flattened, json_object, parted
from .source_kind import SourceKind, SourceRows

ITEMS = "items"
_WHAT = "results of lm-evaluation-harness"
_STAMP = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d[.\d]*)$")
_SETTINGS = (
    "model",
    "model_args",
    "model_num_parameters",
    "model_dtype",
    "model_revision",
    "random_seed",
    "numpy_seed",
    "torch_seed",
    "fewshot_seed",
    "limit",
    "batch_size",
)
"""What of the configuration is a column of its own, with "config." before its name."""
_OF_A_SAMPLE = {
    "doc_id",
    "doc",
    "target",
    "arguments",
    "resps",
    "filtered_resps",
    "filter",
    "metrics",
    "doc_hash",
    "prompt_hash",
    "target_hash",
}


def is_results(content: Any) -> bool:
    """Whether the object of a JSON file is what lm-evaluation-harness writes."""
    return isinstance(content, dict) and {"results", "configs", "versions"} <= content.keys()


def result_files(folder: Path) -> list[Path]:
    """The result files below a folder, by their names and what is in them."""
    named = sorted(folder.rglob("results_*.json")) + sorted(folder.rglob("results.json"))
    return [path for path in named if is_results(_object_or_none(path))]


def score_rows(source: Path, part: str | None = None) -> tuple[list[dict[str, Any]], list[str], dict[str, str]]:
    """Rows, notes and the directions of the metrics, of a result file or of the files below a folder.

    Args:
        part: None for tasks, "items" for the documents of tasks.

    Raises:
        AnalysisError: Another part, a file that cannot be read, or no samples.
    """
    if part not in (None, ITEMS):
        raise AnalysisError(
            f"{source}#{part}: results of lm-evaluation-harness have no such part; write {source}#{ITEMS}"
        )
    files = [source] if source.is_file() else result_files(source)
    notes: list[str] = []
    newest: dict[str, tuple[str, dict[str, Any], Path]] = {}
    contents: list[dict[str, Any]] = []
    older = 0
    for path in files:
        content = json_object(path, _WHAT)
        if not is_results(content):
            raise AnalysisError(f"{path}: not {_WHAT} (it has no results, configs and versions)")
        contents.append(content)
        for row in _task_rows(path, content, notes):
            same = json.dumps([row["model"], row["task"], row.get("n_shot"), row.get("config.model_args")])
            when = str(_stamp(path) or row.get("start_time", ""))
            older += same in newest
            if same not in newest or when >= newest[same][0]:
                newest[same] = (when, row, path)
    if older:
        notes.append(f"{older} older results of the same model and task left out: the newest file counts")
    directions = _directions(contents)
    if part == ITEMS:
        return _item_rows(source, list(newest.values())), list(dict.fromkeys(notes)), directions
    if any(_samples(path, str(row["task"])) for _, row, path in newest.values()):
        notes.append(f"scores of single documents are logged too: {source}#{ITEMS}")
    return [row for _, row, _ in newest.values()], list(dict.fromkeys(notes)), directions


def _directions(contents: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Which way each metric is better, where `higher_is_better` says so and every task agrees."""
    said: dict[str, set[bool]] = {}
    for content in contents:
        ways = content.get("higher_is_better") or {}
        for task, scores in content["results"].items():
            for key in scores:
                higher = (ways.get(task) or {}).get(key.partition(",")[0])
                if isinstance(higher, bool):
                    said.setdefault(_metric(key), set()).add(higher)
    return {name: "maximize" if True in found else "minimize" for name, found in said.items() if len(found) == 1}


def _task_rows(path: Path, content: dict[str, Any], notes: list[str]) -> Iterator[dict[str, Any]]:
    model = str(content.get("model_name") or content.get("config", {}).get("model") or path.parent.name)
    settings = {name: value for name, value in (content.get("config") or {}).items() if name in _SETTINGS}
    members = {name: tasks for name, tasks in (content.get("group_subtasks") or {}).items() if tasks}
    groups = [name for name in content["results"] if name in members or name in (content.get("groups") or {})]
    alone = set(content["results"]) == set(groups)
    if groups and not alone:
        notes.append(f"left out, since their tasks are rows already: the groups {', '.join(groups)}")
    for task, scores in content["results"].items():
        if task in groups and not alone:
            continue
        row: dict[str, Any] = {"model": model, "task": task}
        row |= {_metric(key): value for key, value in scores.items() if isinstance(value, (int, float))}
        shots = (content.get("n-shot") or {}).get(task)
        counted = (content.get("n-samples") or {}).get(task) or {}
        facts = {"n_shot": shots, "n_samples": counted.get("effective"), "start_time": content.get("date")}
        row |= {name: value for name, value in facts.items() if value is not None}
        row["task_version"] = str((content.get("versions") or {}).get(task, ""))
        beside(row, flattened({"config": settings}), "parameters")
        yield row


def _metric(key: str) -> str:
    """The name of a metric without the filter "none" (`acc,none`), and with any other behind a slash.

    >>> _metric("acc_norm_stderr,none"), _metric("exact_match,strict-match")
    ('acc_norm_stderr', 'exact_match/strict-match')
    """
    name, _, kind = key.partition(",")
    return name if kind in ("", "none") else f"{name}/{kind}"


def _samples(path: Path, task: str) -> Path | None:
    """The file with the samples of one task that belongs to a result file."""
    stamp = _stamp(path)
    found = path.parent / (f"samples_{task}_{stamp}.jsonl" if stamp else f"samples_{task}.jsonl")
    return found if found.is_file() else None


def _stamp(path: Path) -> str | None:
    found = _STAMP.search(path.stem)
    return found[1] if found else None


def _item_rows(source: Path, tasks: list[tuple[str, dict[str, Any], Path]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for _, row, path in tasks:
        samples = _samples(path, str(row["task"]))
        if samples is None:
            known = ", ".join(child.name for child in sorted(path.parent.glob("samples_*.jsonl"))[:4]) or "none"
            raise AnalysisError(
                f"{source}#{ITEMS}: no samples of {row['task']} beside {path.name} (there: {known}); evaluate with "
                f"--log_samples, or read the scores of tasks: {source}"
            )
        place = {name: row[name] for name in ("model", "task")}
        items: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(samples.read_text(encoding="utf-8").splitlines(), 1):
            sample = _sample(samples, number, line)
            kind = str(sample.get("filter", "none"))
            item = items.setdefault(str(sample["doc_id"]), {**place, "item": f"{row['task']}/{sample['doc_id']}"})
            scores = {
                key: sample[key] for key in sample.get("metrics") or sample.keys() - _OF_A_SAMPLE if key in sample
            }
            item |= {
                _metric(f"{key},{kind}"): value for key, value in scores.items() if isinstance(value, (int, float))
            }
        rows += items.values()
    return rows


def _sample(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        sample = json.loads(line)
    except ValueError as error:
        raise AnalysisError(
            f"{path}: line {number} is no whole JSON ({error}); write or copy this file again"
        ) from error
    if not isinstance(sample, dict) or "doc_id" not in sample:
        raise AnalysisError(f"{path}: line {number} is no sample of lm-evaluation-harness: it has no doc_id")
    return sample


def _object_or_none(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _recognises(source: str) -> bool:
    path = Path(parted(source)[0])
    return bool(result_files(path)) if path.is_dir() else path.suffix == ".json" and is_results(_object_or_none(path))


def _read(source: str) -> SourceRows:
    where, part = parted(source)
    return as_source(*score_rows(Path(where), part))


KIND = SourceKind(
    name="lm_eval",
    described=f"results of lm-evaluation-harness (FOLDER, or FOLDER#{ITEMS} for logged samples)",
    recognises=_recognises,
    read=_read,
)
