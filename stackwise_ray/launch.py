"""Where the commands `stackwise` and `stackwise-analysis` begin: a shell's TAB is answered before anything is imported.

A console script does not put the working folder on the path; `analysis` is loaded from the folder beside this package.
"""

from __future__ import annotations

import os


def main() -> None:
    """Run the command `stackwise`."""
    if "_STACKWISE_COMPLETE" in os.environ:
        from stackwise_ray.completion.answering import answer

        answer("stackwise")
        return
    from stackwise_ray.__main__ import main as run

    run()


def analysis_main() -> None:
    """Run the command `stackwise-analysis`: the same as `python -m analysis`."""
    if "_STACKWISE_COMPLETE" in os.environ:
        from stackwise_ray.completion.answering import answer

        answer("stackwise-analysis")
        return
    from stackwise_ray.core.beside import analysis_module

    analysis_module("__main__").main(prog_name="stackwise-analysis")
