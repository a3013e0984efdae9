"""Folders of transformers' Trainer as rows: one run per folder with a `trainer_state.json`, or with checkpoints of one.

Plain JSON, so no library is needed. A checkpoint is no run: where a folder has no state of its own, the state of its
latest checkpoint is that of the run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stackwise_ray.core.errors import AnalysisError

from .foreign import as_source, beside, flattened, json_object, place_in
from .source_kind import SourceKind

STATE = "trainer_state.json"
_METRICS = "all_results.json"
"""What save_metrics of a Trainer leaves beside the state: the final values, with some that the log lacks."""
_CHECKPOINT = re.compile(r"checkpoint-\d+")
_OF_A_STEP = ("step", "epoch", "total_flos", "num_input_tokens_seen")
"""Entries of every line of the log that are no metric of it."""
_NO_CURVE = re.compile(r".*(_runtime|_per_second|learning_rate|grad_norm)")


def trainer_runs(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows and notes of the Trainer folders below `folder`, or of one `trainer_state.json`.

    Raises:
        AnalysisError: A state that cannot be read, or that logged nothing.
    """
    states = [folder] if folder.is_file() else sorted(folder.rglob(STATE))
    runs: dict[Path, list[tuple[int, bool, Path, dict[str, Any]]]] = {}
    for path in states:
        state = json_object(path, "a state of transformers' Trainer")
        if not isinstance(state.get("log_history"), list) or not isinstance(state.get("global_step"), int):
            raise AnalysisError(f"{path}: not a state of transformers' Trainer (it has no log_history or global_step)")
        is_checkpoint = _CHECKPOINT.fullmatch(path.parent.name) is not None
        place = path.parent.parent if is_checkpoint and not folder.is_file() else path.parent
        runs.setdefault(place, []).append((state["global_step"], not is_checkpoint, path, state))
    root = folder.parent if folder.is_file() else folder
    notes, rows, checkpoints, partial = [], [], 0, []
    for place, found in runs.items():
        step, is_own, _, state = max(found, key=lambda item: item[:2])
        checkpoints += sum(not own for _, own, _, _ in found)
        row = _row(root, place, state)
        if not is_own:
            partial.append(f"{row['run_name']} (step {step})")
        rows.append(row)
    if checkpoints:
        notes.append(f"{checkpoints} checkpoints are states of these runs, and no runs of their own")
    if partial:
        notes.append(f"read from the latest checkpoint, where the folder has no state of its own: {', '.join(partial)}")
    early = [row for row in rows if "_evaluated" in row and row["_evaluated"] < row["global_step"]]
    if early:
        shown = ", ".join(f"{row['run_name']} (step {row['_evaluated']} of {row['global_step']})" for row in early[:4])
        notes.append(f"the last evaluation came before the last step: {shown}")
    return [{key: value for key, value in row.items() if key != "_evaluated"} for row in rows], notes


def _row(root: Path, place: Path, state: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {**place_in(root, place), **_ending(state), "global_step": state["global_step"]}
    for name, ours in (("total_flos", "flops"), ("num_input_tokens_seen", "tokens")):
        if state.get(name):  # 0 where the Trainer was not asked to count
            row[ours] = state[name]
    for line in state["log_history"]:
        for key, value in line.items():
            if key in _OF_A_STEP:
                continue
            row["train/loss" if key == "loss" else key] = value
            if key.startswith("eval_") and not _NO_CURVE.fullmatch(key):
                row["_evaluated"] = line.get("step", 0)
    for key in ("best_metric", "best_global_step"):
        if state.get(key) is not None:
            row[key] = state[key]
    results = place / _METRICS
    if results.is_file():
        final = json_object(results, "the results of transformers' Trainer")
        row |= {key: value for key, value in flattened(final).items() if key not in (*row, *_OF_A_STEP)}
    beside(row, flattened(state.get("trial_params") or {}), "parameters")
    return row


def _is_state(path: Path) -> bool:
    return path.name == STATE and path.is_file()


def _ending(state: dict[str, Any]) -> dict[str, Any]:
    """How the run ended: on its last step, by a callback, or before."""
    step, last = state["global_step"], state.get("max_steps") or 0
    control = (state.get("stateful_callbacks") or {}).get("TrainerControl") or {}
    if not last:
        return {}
    if step >= last:
        return {"status": "finished"}
    asked = (control.get("args") or {}).get("should_training_stop") is True
    reason = f"step {step} of {last}" + (", stopped by a callback" if asked else "")
    return {"status": "stopped" if asked else "interrupted", "reason": reason}


KIND = SourceKind(
    name="trainer",
    described=f"a folder with {STATE} of transformers",
    recognises=lambda source: any(Path(source).rglob(STATE)) if Path(source).is_dir() else _is_state(Path(source)),
    read=lambda source: as_source(*trainer_runs(Path(source))),
)
