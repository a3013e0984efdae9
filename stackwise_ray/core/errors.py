"""The errors of the program, by who has to act on them.

A `ConfigError` is a mistake in what was asked (exit code 2, one message, no traceback). A `TrialError` is a
trial that failed by its own doing: it is final and recorded with its reason, and the sweep goes on. An
`AnalysisError` is a question that runs cannot answer. Everything else that escapes is a bug of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


class StackwiseError(Exception):
    """Base of every error that this program raises on purpose."""


class ConfigError(StackwiseError):
    """What was asked cannot be done as written: the message names place, value and fix.

    Args:
        problem: What is wrong and what to write, e.g. ``n_heads = 7 does not divide d_model = 512; choose 4, 8
            or 16``.
        path: Dotted path of the offending key, e.g. ``base.model.n_heads``.
        source: File (or "command line") of the key.
    """

    def __init__(self, problem: str, *, path: str | None = None, source: str | None = None) -> None:
        self.problem = problem
        self.path = path
        self.source = source
        super().__init__(problem)

    def __str__(self) -> str:
        head = f"{self.source}: " if self.source else ""
        if self.path:
            joint = " " if self.problem.startswith("=") else ": "
            return f"{head}{self.path}{joint}{self.problem}"
        return f"{head}{self.problem}"

    def at(self, *, path: str | None = None, source: str | None = None) -> ConfigError:
        """The same error with its place filled in where it was unknown."""
        return type(self)(self.problem, path=self.path or path, source=self.source or source)


class MissingPackageError(ConfigError):
    """What was asked needs a package that is not installed: the message says how to install it."""


class NotOnThisMachineError(ConfigError):
    """Data or a tokenizer that may be on another machine and are not here: a run needs them, a plan does without."""


class PluginError(ConfigError):
    """A plugin cannot be loaded, or is not the one that it was: the message names it, its file and the reason."""


class EntryError(StackwiseError, ValueError):
    """An entry cannot be registered as it is: its name can be no key, or it lacks what its kind has."""


class NameTakenError(EntryError):
    """An entry was registered under a name that is taken."""


class AnalysisError(StackwiseError):
    """The question cannot be answered from these runs as it was asked: the message says why, and what to ask."""


class TrialError(StackwiseError):
    """A trial failed by its own doing (NaN, out of memory, a leak found): final, with the reason as message."""


class SweepFailedError(StackwiseError):
    """Every trial of a sweep failed, so there is no result: the message says why, and where the records are.

    Args:
        result: What `stackwise_ray.run` would have given back: folder, trials with their reasons, report.
    """

    def __init__(self, problem: str, result: Any) -> None:
        self.result = result
        super().__init__(problem)


class CheckpointError(StackwiseError):
    """A checkpoint is damaged or belongs to another configuration; the message names the file."""


class StaleAttemptError(StackwiseError):
    """This worker's attempt has been superseded: it must not write another byte into the trial's folder."""


class DeviceLostError(StackwiseError):
    """This process cannot use its device again: it ends, and the trial continues in another from its checkpoint."""


class WorkersLostError(StackwiseError):
    """A worker process of a trial with several workers died: the trial continues from its last checkpoint."""


class DiskFullError(StackwiseError):
    """A write met a full disk: the run stops, nothing is half-written, the same command continues later."""


class RayStartError(StackwiseError):
    """Ray did not start on this machine: nothing was lost, and the same command may be run again."""


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like `name`, or None where nothing is near.

    >>> nearest("lerning_rate", ["learning_rate", "momentum"])
    'learning_rate'
    """
    matches = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return matches[0] if matches else None


def did_you_mean(name: str, choices: Iterable[object], *, most: int = 12) -> str:
    """The end of an "unknown name" message: the nearest valid name, else the list of them.

    >>> did_you_mean("gtp2", ["gpt2", "llama"])
    "did you mean 'gpt2'?"
    >>> did_you_mean("x", ["gpt2", "llama"])
    'choose one of gpt2, llama'
    """
    names = sorted(str(choice) for choice in choices)
    near = nearest(name, names)
    if near is not None:
        return f"did you mean '{near}'?"
    if not names:
        return "there is nothing to choose from"
    return f"choose one of {first_few(names, most)}"


def first_few(names: Sequence[str], most: int) -> str:
    """The first names of a message, and how many more there are.

    >>> first_few("abc", 3), first_few("abcde", 3)
    ('a, b, c', 'a, b, c and 2 more')
    """
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown
