"""Runs tasks on a trained model and keeps what they give: `evaluation.json`, and one file with all items.

Called by the command `evaluate`. A result is kept with what decides it (weights, data, context, the task's version),
and is not computed a second time. Nothing here knows one task from another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.atomic import atomic_write_json, atomic_write_text
from stackwise_ray.core.callbacks import ProgressCallback
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.plugins import at_fault
from stackwise_ray.core.registries import TASKS
from stackwise_ray.tasks.task import Task, TaskFacts, TaskScores
from stackwise_ray.training.trial_folder import unwritable_is_named

if TYPE_CHECKING:
    from stackwise_ray.training.scoring import TrainedModel

RESULTS, ITEMS = "evaluation.json", "evaluation_items.jsonl"


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One task's scores of one model.

    Attributes:
        content: As in `evaluation.json`: plain JSON data.
        kept: It was computed before and read from there.
    """

    facts: TaskFacts
    content: Mapping[str, Any]
    kept: bool


def evaluate_tasks(
    trained: TrainedModel,
    names: Sequence[str],
    *,
    path: str | None = None,
    limit: int | None = None,
    folder: Path | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[TaskResult]:
    """Each task's result, as soon as it is there and written.

    Args:
        path: The user's `data.path`.
        limit: Items of each task; None: all.
        folder: Where results are kept; None: nowhere.

    Raises:
        ConfigError: A task does not fit the model (asked of all before the first runs), or its data are not found.
    """
    tasks: dict[str, Task] = {}
    for name in names:
        with at_fault(TASKS, name, "asked whether it fits the model, it"):
            tasks[name] = TASKS.get(name)()
            tasks[name].check(trained, limit)
            asdict(tasks[name].facts)
    for name, task in tasks.items():
        with at_fault(TASKS, name, "preparing its data, it"):
            data = task.prepare(trained, path, progress)
            key = _key(task.facts, trained, data.fingerprint, limit)
        kept = _kept(folder, trained.fingerprint, name, key)
        if kept is not None:
            yield TaskResult(facts=task.facts, content=kept, kept=True)
            continue
        with at_fault(TASKS, name, "scoring the model, it"):
            scores = task.score(trained, data, limit, progress)
            content = _content(task.facts, scores, data.fingerprint, trained.trial.data.seq_len, limit, key)
        if folder is not None:
            with unwritable_is_named(folder):
                _keep(folder, trained, name, content, scores.items)
        yield TaskResult(facts=task.facts, content=content, kept=False)


def keep_own(folder: Path, scores: Mapping[str, Any]) -> None:
    """Write scores on a model's own data beside those of tasks, which stay where they are of the same weights.

    Args:
        scores: With the keys model, weights, data_fingerprint and metrics.
    """
    tasks = read_results(folder, scores["weights"]).get("tasks", {})
    metrics = {**scores["metrics"], **_values(tasks)}
    with unwritable_is_named(folder):
        atomic_write_json(folder / RESULTS, {**scores, "metrics": metrics, **({"tasks": tasks} if tasks else {})})


def read_results(folder: Path, weights: str) -> dict[str, Any]:
    """What `evaluation.json` holds of these weights; empty where there is none, or it is of others.

    Raises:
        ConfigError: It is not readable.
    """
    file = folder / RESULTS
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"= {folder}: {file} is not JSON ({error}); delete or rename it", path="--output") from None
    return content if isinstance(content, dict) and content.get("weights") == weights else {}


def _key(facts: TaskFacts, trained: TrainedModel, data: str, limit: int | None) -> str:
    """What decides a result beside the weights, as a hash."""
    training = trained.trial.training
    parts = [facts.name, facts.version, data, limit, trained.trial.data.seq_len, training.precision, training.entry]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _kept(folder: Path | None, weights: str, name: str, key: str) -> Mapping[str, Any] | None:
    if folder is None:
        return None
    content: Mapping[str, Any] = read_results(folder, weights).get("tasks", {}).get(name, {})
    if content.get("key") != key or (content["items_in"] is not None and not (folder / content["items_in"]).is_file()):
        return None
    return content


def _content(
    facts: TaskFacts, scores: TaskScores, data: str, seq_len: int, limit: int | None, key: str
) -> dict[str, Any]:
    known = {metric.path for metric in facts.metrics}
    unknown = sorted({*scores.metrics, *scores.floors} - known)
    if unknown:
        raise ValueError(f"task {facts.name} measured {', '.join(unknown)}, which its facts do not state")
    return {
        "kind": facts.kind,
        "split": facts.split,
        "metrics": {
            path: {"value": found.value}
            | ({} if found.standard_error is None else {"standard_error": found.standard_error})
            for path, found in scores.metrics.items()
        },
        "floor": {"what": facts.floor, **scores.floors},
        "references": [asdict(reference) for reference in facts.references],
        "n_items": scores.n_items,
        "item": facts.item,
        "n_cut": scores.n_cut,
        "limit": limit,
        "counts": dict(scores.counts),
        "seq_len": seq_len,
        "data_fingerprint": data,
        "items_in": ITEMS if scores.items else None,
        "key": key,
    }


def _keep(
    folder: Path, trained: TrainedModel, name: str, content: Mapping[str, Any], items: Sequence[Mapping[str, Any]]
) -> None:
    """Items first: results that name them are never without them."""
    before = read_results(folder, trained.fingerprint)
    file = folder / ITEMS
    if items or file.is_file():
        lines = file.read_text(encoding="utf-8").splitlines() if before and file.is_file() else []
        others = [line for line in lines if json.loads(line)["task"] != name]
        own = [json.dumps({"task": name, **item}, ensure_ascii=False, allow_nan=False) for item in items]
        atomic_write_text(file, "".join(f"{line}\n" for line in [*others, *own]))
    tasks = {**before.get("tasks", {}), name: content}
    own_metrics = {path: value for path, value in before.get("metrics", {}).items() if path not in _values(tasks)}
    results = {"model": trained.source, "weights": trained.fingerprint, **before}
    results |= {"metrics": {**own_metrics, **_values(tasks)}, "tasks": tasks}
    atomic_write_json(folder / RESULTS, results)


def _values(tasks: Mapping[str, Any]) -> dict[str, float]:
    """Metric path to value, over all tasks."""
    return {path: found["value"] for content in tasks.values() for path, found in content["metrics"].items()}
