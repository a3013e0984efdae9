"""Compiles the C sources once into the user's cache, and finds them there again.

A library's name is a digest of what it depends on: sources, flags, the compiler's version and the processor (the code
is made for it). It is written by temporary file and rename under a lock, so that of many processes one compiles and
the others wait; a digest of its content stands at its end, so that a damaged file is noticed before it is loaded, and
compiled anew.

Called by `stackwise_ray.kernels.backends.cpu`. Knows nothing of what the library computes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

from stackwise_ray.core.atomic import atomic_path
from stackwise_ray.core.calibration_store import calibration_path
from stackwise_ray.core.environment import cpu_model

SOURCES = ("diagonal.c", "apply.c")
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared")
COMPILERS = ("cc", "gcc", "clang")
TIMEOUT_S = 300.0

_DIGEST = hashlib.sha256
_DIGEST_BYTES = 32


class BuildError(Exception):
    """No library can be had here; the message says why."""


def find_compiler() -> list[str]:
    """The C compiler's command: the words of ``CC``, else the first of cc, gcc and clang on PATH.

    Raises:
        BuildError: There is none.
    """
    if words := os.environ.get("CC", "").split():
        if shutil.which(words[0]) is None:
            raise BuildError(f"CC = {os.environ['CC']} is not on PATH")
        return words
    for name in COMPILERS:
        if found := shutil.which(name):
            return [found]
    raise BuildError(f"there is no C compiler (none of {', '.join(COMPILERS)} is on PATH, and CC is not set)")


def library_path(extra_flags: tuple[str, ...] = ()) -> Path:
    """The compiled library, made if it is not there or damaged (about 4 s).

    Args:
        extra_flags: Added to `FLAGS`; the sanitizers of a test.

    Raises:
        BuildError: No compiler, it fails, or the cache cannot be written.
    """
    compiler = find_compiler()
    version = _run([*compiler, "--version"])
    flags = (*FLAGS, *extra_flags)
    path = _folder() / f"resolvent-{_key(flags, version)}.so"
    try:
        if _intact(path):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _intact(path):
                _compile(compiler, flags, path)
    except OSError as error:
        raise BuildError(f"{path}: {error.strerror or error}; set STACKWISE_CACHE to a writable folder") from error
    return path


def _compile(compiler: list[str], flags: tuple[str, ...], path: Path) -> None:
    here = Path(__file__).parent
    with atomic_path(path) as temporary:
        _run([*compiler, *flags, *(str(here / name) for name in SOURCES), "-o", str(temporary)])
        content = temporary.read_bytes()
        temporary.write_bytes(content + _DIGEST(content).digest())


def _intact(path: Path) -> bool:
    """Whether the file is whole: what stands at its end is the digest of the rest."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    return _DIGEST(content[:-_DIGEST_BYTES]).digest() == content[-_DIGEST_BYTES:]


def _key(flags: tuple[str, ...], compiler_version: str) -> str:
    parts = [*flags, compiler_version, platform.machine(), cpu_model(), _cpu_features()]
    here = Path(__file__).parent
    parts += [source.read_text() for source in sorted(here.iterdir()) if source.suffix in (".c", ".h")]
    return _DIGEST("\0".join(parts).encode()).hexdigest()[:16]


def _cpu_features() -> str:
    """Instruction sets of the processor: a virtual machine may hide some of those that the model has."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.lower().startswith(("flags", "features")):
                return line
    except OSError:
        pass  # not Linux
    return ""


def _folder() -> Path:
    return calibration_path().parent / "kernels"


def _run(words: list[str]) -> str:
    try:
        answer = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{words[0]} cannot be run: {error}") from error
    if answer.returncode != 0:
        lines = [line for line in answer.stderr.splitlines() if "error" in line] or answer.stderr.splitlines()
        raise BuildError(f"{words[0]} fails: {lines[0] if lines else f'exit code {answer.returncode}'}")
    return answer.stdout
