"""Where the commands `stackwise` and `stackwise-analysis` begin: a shell's TAB is answered before anything is imported.

A console script does not put the working folder on the path; `analysis` is loaded from the folder beside this package.
"""

from __future__ import annotations

import os
from typing import Any


def main() -> None:
    """Run the command `stackwise`."""
    if _answered("stackwise"):
        return
    from stackwise_ray.__main__ import main as run

    run()


def analysis_main() -> None:
    """Run the command `stackwise-analysis`, which is `python -m analysis`."""
    if _answered("stackwise-analysis"):
        return
    from stackwise_ray.core.beside import analysis_module

    analysis_module("__main__").main()


def _answered(program: str) -> bool:
    """Whether a shell has asked what can follow, and has been answered."""
    if "_STACKWISE_COMPLETE" not in os.environ:
        return False
    from stackwise_ray.completion.answering import answer

    answer(program, _collected)
    return True


def _collected() -> tuple[dict[str, Any], list[str]]:
    """The table of what can be completed, made anew."""
    from stackwise_ray.__main__ import app
    from stackwise_ray.completion.table_collecting import collect

    return collect(app)
