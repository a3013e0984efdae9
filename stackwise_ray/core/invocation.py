"""How this program was started, so that a command that it prints can be pasted into the shell that started it.

`stackwise sweep`, `python -m stackwise_ray sweep` and `.venv/bin/python -m stackwise_ray.sweep` are the same command,
and not every machine has all of them on its path: an environment that is not activated has no `stackwise` there. So a
printed command has the form of the one that was typed. In a notebook or a script nothing was typed, and the form is
`python -m`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

SCRIPT, ANALYSIS_SCRIPT = "stackwise", "stackwise-analysis"
PACKAGE, ANALYSIS = "stackwise_ray", "analysis"


def as_started(command: str, *, argv: Sequence[str] | None = None, original: Sequence[str] | None = None) -> str:
    """One of our commands in the form in which this program was started.

    Args:
        command: A command of `stackwise`, or ``analysis``.
        argv: The program and its arguments; None: of this process.
        original: The same as the interpreter was given them.

    >>> as_started("sweep", argv=["-c"], original=["python", "-c", "pass"])
    'python -m stackwise_ray.sweep'
    >>> as_started("analysis", argv=["x.py"], original=["python", "-m", "stackwise_ray"])
    'python -m analysis'
    """
    argv = sys.argv if argv is None else argv
    original = sys.orig_argv if original is None else original
    script = Path(argv[0]) if argv else Path()
    if script.name in (SCRIPT, ANALYSIS_SCRIPT):
        if command == ANALYSIS:
            return _as_typed(script.with_name(ANALYSIS_SCRIPT))
        return f"{_as_typed(script.with_name(SCRIPT))} {command}"
    module = _module(original)
    python = "python" if module is None else _as_typed(Path(original[0]))
    if command == ANALYSIS:
        return f"{python} -m {ANALYSIS}"
    return f"{python} -m {PACKAGE}{' ' if module == PACKAGE else '.'}{command}"


def _module(original: Sequence[str]) -> str | None:
    """The module of ours that `python -m` was given; None where the program is somebody else's."""
    for word, module in pairwise(original[1:]):
        if word == "-m":
            return module if module.partition(".")[0] in (PACKAGE, ANALYSIS) else None
        if not word.startswith("-"):
            return None
    return None


def _as_typed(program: Path) -> str:
    """The shortest way to name a program: by its name where the path has it, else from the working folder."""
    found = shutil.which(program.name)
    if program.parent == Path() or (found is not None and os.path.abspath(found) == os.path.abspath(program)):
        return program.name
    inside = os.path.abspath(program).startswith(os.path.join(os.getcwd(), ""))
    return os.path.relpath(program) if inside else str(program)
