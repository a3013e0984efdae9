"""What a trial ran on: versions, machine, source revision, and the variables that change what runs.

Workers store it with every trial (`metadata/environment.json`, the journal, MLflow), and a comparison over mixed
versions says so. Nothing heavy is imported: versions come from the installed packages' metadata. Device, backend,
threads and data fingerprint are added by the training that knows them.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from stackwise_ray.core.plugins import records
from stackwise_ray.core.version import VERSION

PACKAGES = ("torch", "ray", "transformers", "tokenizers", "optuna", "mlflow", "numpy")
PLACES = ("STACKWISE_DATA", "STACKWISE_CACHE")
"""Variables that name places: they change no number, and paths stay private."""


def describe_environment() -> dict[str, Any]:
    """The environment of this process as plain JSON data.

    Returns:
        ``python``, ``platform``, ``cpu`` (model), ``cores``, ``stackwise_ray`` (version), a version for each of
        `PACKAGES`, ``variables`` (set ``STACKWISE_*`` variables that change what runs), ``plugins`` (those that are
        loaded, with the hash of their source), and, where the package runs from a checkout, ``git`` (full hash) and
        ``git_dirty``. What is unknown is absent.
    """
    variables = {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith("STACKWISE_") and name not in PLACES
    }
    plugins = records()
    return {**_fixed(), "variables": variables, **({"plugins": plugins} if plugins else {})}


def cpu_model() -> str:
    """The processor's name as the system gives it.

    >>> bool(cpu_model())
    True
    """
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def nvidia_driver(said: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The version of the NVIDIA driver as the kernel module gives it; None: there is none, or it does not say.

    Args:
        said: The file in which it does.
    """
    try:
        words = said.read_text(errors="replace").splitlines()[0].split()
    except (OSError, IndexError):
        return None  # no driver, or a system that keeps it elsewhere
    return next((word for word in words if word[0].isdigit() and word.replace(".", "").isdigit()), None)


def usable_cores() -> int:
    """Cores that this process may use (its affinity, not the machine's count)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def package_version(name: str) -> str | None:
    """The version of an installed distribution, or None; imports nothing of it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def _fixed() -> dict[str, Any]:
    """What cannot change while the process lives (asking git takes about 10 ms)."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "stackwise_ray": VERSION,
    }
    found.update({name: version for name in PACKAGES if (version := package_version(name)) is not None})
    return {**found, **source_revision(Path(__file__).resolve().parent)}


def source_revision(package: Path) -> dict[str, Any]:
    """``git`` and ``git_dirty`` of the checkout that holds `package` at its top level; empty where there is none."""
    if not (package.parent / ".git").exists():
        return {}
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain", "--", package.name])
    try:
        revision, changes = (
            subprocess.run(
                ["git", "-C", str(package.parent), *words], capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for words in commands
        )
    except (OSError, subprocess.SubprocessError):
        return {}  # no git here, or a repository without a commit
    return {"git": revision, "git_dirty": bool(changes)}
