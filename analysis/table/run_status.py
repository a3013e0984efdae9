"""Which runs count: the words that trackers and schedulers have for how a run ended.

Called where tables are loaded (`runs`) and where a table that somebody else loaded is used (`blocks`, `law_table`). A
word that is not known is refused: a crashed run that is averaged in is worse than no answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stackwise_ray.core.errors import AnalysisError

FINISHED = frozenset({"finished", "complete", "completed", "terminated", "done", "success", "succeeded", "successful"})
"""MLflow, W&B and our sweeps; Optuna; Slurm; Ray; and what people write by hand. In lower case."""
NOT_FINISHED = frozenset(
    [
        "crashed",
        "failed",
        "fail",
        "failure",
        "error",
        "killed",
        "pruned",
        "preempted",
        "preempting",
        "running",
        "pending",
        "waiting",
        "scheduled",
        "stopped",
        "interrupted",
        "paused",
        "cancelled",
        "canceled",
        "aborted",
        "timeout",
        "timed_out",
        "out_of_memory",
        "oom",
        "node_fail",
        "nan",
        "diverged",
        "queued",
        "starting",
        "unfinished",
        "incomplete",
    ]
)
_COLUMNS = frozenset(
    {"status", "state", "run_status", "run_state", "run status", "run state", "run.status", "run.state"}
)


def status_columns(columns: Iterable[Any]) -> list[str]:
    """The columns that say how a run ended, whatever their case: status, State, run_state."""
    return [str(name) for name in columns if str(name).strip().lower() in _COLUMNS]


def is_finished(word: Any) -> bool | None:
    """Whether a run of that status counts; None where the word is not known."""
    text = _lowered(word)
    return True if text in FINISHED else False if text in NOT_FINISHED else None


def check_words(column: str, words: Iterable[Any]) -> None:
    """Refuse words that are no status.

    Raises:
        AnalysisError: With the words that were met.
    """
    met = dict.fromkeys(str(word) for word in words)
    unknown = [word for word in met if is_finished(word) is None]
    if unknown:
        raise AnalysisError(
            f"column '{column}' says how runs ended, and holds words that are not known: {_listed(unknown)} (known: "
            f"finished, complete, terminated, done, success; crashed, failed, killed, pruned, preempted, running, …); "
            f"write one of these, or rename the column where it says something else (--map NAME={column})"
        )


def _lowered(word: Any) -> str:
    text = str(word).strip().lower()
    return text.rpartition(".")[2] if text.startswith(("trialstate.", "runstatus.")) else text


def _listed(words: list[str]) -> str:
    return ", ".join(f"'{word}'" for word in words[:6]) + (f" and {len(words) - 6} more" if len(words) > 6 else "")
