"""Programs in processes of their own that are forked from one in which the heavy libraries are loaded.

A command of ours loads torch, transformers, Ray, MLflow and matplotlib: a dozen seconds of a processor, which prove
nothing where the same command was started from nothing in another test. A process that is forked has the libraries and
nothing else: its own environment, folder, arguments, signals and exit code.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

LOADED = [
    "stackwise_ray.running.run",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama",
    "stackwise_ray.sweep",
    "stackwise_ray.distributed.tuner",
    "stackwise_ray.trials.proposals",
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_store",
    "alembic.command",
    "analysis.report.compose",
    "matplotlib.backends.backend_agg",
    "tests.warmed_up",
]


def context() -> multiprocessing.context.ForkServerContext:
    """The processes of this context are forked from the one with everything loaded; it starts where it does not run."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(LOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is loaded
        patch.setenv("MLFLOW_LOGGING_LEVEL", "WARNING")
        forkserver.ensure_running()
    return made


def process(target: Callable[..., object], *args: Any) -> multiprocessing.Process:
    """A process that calls `target`, in the environment that is now; it has not started."""
    return context().Process(target=_call, args=(dict(os.environ), target, args))


def _call(env: dict[str, str], target: Callable[..., object], args: tuple[Any, ...]) -> None:
    _set_environment(env)
    target(*args)


def _set_environment(env: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)


class WarmProcess:
    """A module or script that runs as ``python -m MODULE WORDS`` or ``python SCRIPT WORDS`` does.

    Args:
        program: A module's name, or the path of a script.
        output: File of what it prints.
        one_core: It is given one of the cores, where the system lets it be: then a sweep runs one trial at a time, in
            one process, and loads the libraries once.
    """

    def __init__(
        self,
        program: str | Path,
        words: Sequence[str],
        *,
        output: Path,
        cwd: Path,
        env: Mapping[str, str],
        one_core: bool = False,
    ) -> None:
        self._process = context().Process(target=_run, args=(program, list(words), output, cwd, dict(env), one_core))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code.

        Raises:
            TimeoutExpired: It has not ended.
        """
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _run(program: str | Path, words: list[str], output: Path, cwd: Path, env: dict[str, str], one_core: bool) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _set_environment(env)
    if one_core and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})
    os.chdir(cwd)
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream, opened in ((0, os.open(os.devnull, os.O_RDONLY)), (1, written), (2, written)):
        os.dup2(opened, stream)
    path = isinstance(program, Path)
    sys.argv = [str(program), *words]
    sys.orig_argv = [sys.executable, *(() if path else ("-m",)), str(program), *words]
    try:
        if path:
            sys.path.insert(0, str(Path(program).parent))
            runpy.run_path(str(program), run_name="__main__")
        else:
            sys.modules.pop(str(program), None)  # it runs as the main module, from its first line on
            runpy.run_module(str(program), run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
