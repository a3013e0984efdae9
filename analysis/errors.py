"""The error of this package: a mistake in what was asked, or runs that cannot answer it.

The message says what is wrong, with the value, and how to mend it. `python -m analysis` prints it alone and exits
with code 2. Everything else that escapes is a bug of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AnalysisError(Exception):
    """The question cannot be answered from these runs as it was asked."""


def did_you_mean(name: str, choices: Iterable[object], *, most: int = 12) -> str:
    """The end of an "unknown name" message: the nearest valid name, else the list of them.

    >>> did_you_mean("validation/los", ["validation/loss", "seed"])
    "did you mean 'validation/loss'?"
    """
    names = sorted(str(choice) for choice in choices)
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if matches:
        return f"did you mean '{matches[0]}'?"
    if not names:
        return "there is nothing to choose from"
    shown = ", ".join(names[:most])
    return f"choose one of {shown}" + (f" and {len(names) - most} more" if len(names) > most else "")
