"""Which heavy libraries a program loads, for tests that it loads none before it needs one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from stackwise_ray.plugin_checkup import HEAVY

NUMERIC = ("numpy", "pandas")
"""Lighter ones, which the reading of a configuration does without as well."""


def run_and_list(program: str, modules: Sequence[str] = HEAVY, cwd: Path | None = None) -> tuple[str, list[str]]:
    """What a program prints in a process of its own, and which of the modules it has loaded at its end."""
    code = (
        f"import sys\ntry: exec({program!r})\nexcept SystemExit: pass\n"
        f"print('\\n' + ' '.join(name for name in {tuple(modules)!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=cwd)
    *output, loaded = done.stdout.split("\n")[:-1]
    return "\n".join(output), loaded.split()
