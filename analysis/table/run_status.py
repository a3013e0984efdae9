"""Which runs count: the words that trackers and schedulers have for how a run ended.

Called where tables are loaded (`runs`) and where a table that somebody else loaded is used (`blocks`, `law_table`). A
word that is not known is refused: a crashed run that is averaged in is worse than no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from stackwise_ray.core.errors import AnalysisError, first_few

FINISHED = frozenset({"finished", "complete", "completed", "terminated", "done", "success", "succeeded", "successful"})
"""MLflow, W&B and our sweeps; Optuna; Slurm; Ray; and what people write by hand. In lower case."""
NOT_FINISHED = frozenset(
    {"crashed", "failed", "fail", "failure", "error", "nan", "diverged", "oom", "out_of_memory", "node_fail"}
    | {"killed", "pruned", "preempted", "preempting", "stopped", "interrupted", "cancelled", "canceled", "aborted"}
    | {"running", "pending", "waiting", "scheduled", "paused", "queued", "starting", "timeout"}
    | {"timed_out", "timed out", "timedout", "out of memory", "cuda oom"}
    | {"unfinished", "incomplete"}
)
_COLUMN = re.compile(r"((run|trial|job|slurm)[ _./-]*)*(status|state)")


def status_columns(columns: Iterable[Any]) -> list[str]:
    """The columns that say how a run ended, whatever their case: status, State, run_state, trial.status, JobState."""
    return [str(name) for name in columns if _COLUMN.fullmatch(str(name).lower())]


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
    return first_few([f"'{word}'" for word in words], 6)
