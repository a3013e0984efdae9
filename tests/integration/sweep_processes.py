"""Real sweeps in real processes, for tests that kill them: start, watch, kill by id, read what is left.

A sweep at a terminal starts from nothing; the others are forked from a process in which the libraries are loaded (see
`tests.warm_processes`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, ClassVar

import psutil

from stackwise_ray.config.loading import load_sweep
from stackwise_ray.config.space.designs import expand
from stackwise_ray.config.space.seeds import replicate_seeds, with_seed
from stackwise_ray.core.records import FINAL, TrialRecord, open_journal, read_reports, read_trials
from stackwise_ray.running.single import train
from tests.terminals import at_a_terminal
from tests.warm_processes import WarmProcess

DEADLINE_S = 240.0
MODULE = "stackwise_ray.sweep"

BASE = """
base:
  model: decoder/gpt2_family/tiny
  data: markov
  training: classical
  overrides:
    training.batch_tokens: 256
    training.evaluations: 2
    training.checkpoint_seconds: 0.2
    training.report_seconds: 0.1
    data.seq_len: 64
    data.validation_tokens: 2048
    data.markov.n_tokens: 50000
    model.n_layers: 2
"""
"""A base whose trials take seconds, report often and leave checkpoints; a `training.budget` is added below it. The
source is short, so that scoring its whole splits at the end costs little."""


class SweepProcess:
    """``python -m stackwise_ray.sweep`` in a process of its own, and everything that it started.

    Args:
        columns: It starts from nothing, at a terminal of this width; None: it writes into a file, forked from a process
            in which the libraries are loaded.

    Attributes:
        started: All of this test, ended after it (see `conftest`).
    """

    started: ClassVar[list[SweepProcess]] = []

    def __init__(
        self, file: Path, output: Path, *words: str, env: dict[str, str] | None = None, columns: int | None = None
    ) -> None:
        self.log = output / f"command-{time.time_ns()}.log"
        output.mkdir(parents=True, exist_ok=True)
        told = (str(file), *words, "--output", str(output))
        environment = {**os.environ, **(env or {})}
        self._process: WarmProcess | subprocess.Popen[bytes]
        if columns is None:
            self._process = WarmProcess(MODULE, told, output=self.log, cwd=Path.cwd(), env=environment)
        else:
            command = [sys.executable, "-m", MODULE, *told]
            self._process = at_a_terminal(command, self.log, columns, {**environment, "TERM": "xterm"})
        self.process = psutil.Process(self._process.pid)
        self._seen: dict[int, psutil.Process] = {}
        self.started.append(self)

    def wait(self, timeout: float = DEADLINE_S) -> int:
        """Exit code; the output is in the message where the command does not end."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the command did not end within {timeout} s:\n{self.text()}") from None

    def running(self) -> bool:
        self.descendants()
        return self._process.poll() is None

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def descendants(self) -> list[psutil.Process]:
        """Everything that the command has started so far and that is alive, remembered for `leftovers`."""
        try:
            for child in self.process.children(recursive=True):
                self._seen[child.pid] = child
        except psutil.Error:
            pass
        return [child for child in self._seen.values() if alive(child)]

    def workers(self) -> list[psutil.Process]:
        """The processes in which trials run."""
        return [
            child
            for child in self.descendants()
            if "ray::" in command_line(child) and "Trainable" in command_line(child)
        ]

    def train_workers(self) -> list[psutil.Process]:
        """The processes of a trial that has several."""
        return [child for child in self.descendants() if "ray::RayTrain" in command_line(child)]

    def raylet(self) -> psutil.Process:
        return next(child for child in self.descendants() if child.name() == "raylet")

    def kill(self) -> None:
        """kill -9 of the driver alone."""
        self.descendants()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def end(self) -> None:
        """kill -9 of all that is left, where a test has failed."""
        left = self.descendants()
        self.kill()
        for child in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def leftovers(self, timeout: float = 30.0) -> list[psutil.Process]:
        """What the command started and what is still alive `timeout` seconds after its end."""
        deadline = time.monotonic() + timeout
        while (left := [child for child in self._seen.values() if alive(child)]) and time.monotonic() < deadline:
            time.sleep(0.5)
        return left


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def trials(directory: Path) -> list[TrialRecord]:
    """The trials in a journal that may be in use, or not be there yet."""
    try:
        connection = open_journal(directory / "journal.sqlite")
    except FileNotFoundError:
        return []
    try:
        return read_trials(connection)
    except Exception:  # the tables are being made
        return []
    finally:
        connection.close()


def trains(directory: Path, attempt: int = 1) -> bool:
    """Whether this attempt at a trial has reported a step, so that an interruption has something to keep."""
    try:
        connection = open_journal(directory / "journal.sqlite")
    except FileNotFoundError:
        return False
    try:
        return any(record.step for _, record in read_reports(connection) if record.attempt == attempt)
    except sqlite3.OperationalError:  # the tables are being made
        return False
    finally:
        connection.close()


def ended(directory: Path) -> int:
    """Number of trials that nobody runs again."""
    return sum(record.status in FINAL for record in trials(directory))


def trial_logs(directory: Path) -> list[str]:
    """What the trials have written that have begun to train."""
    logs = [path.read_text() for path in directory.glob("trials/*/logs/train.log")]
    return [log for log in logs if "begins" in log]


def wait_until(condition: Callable[[], Any], sweep: SweepProcess, timeout: float = DEADLINE_S) -> None:
    """Until the condition holds, or the command has ended."""
    deadline = time.monotonic() + timeout
    while not condition():
        if not sweep.running():
            return
        assert time.monotonic() < deadline, f"nothing happened within {timeout} s:\n{sweep.text()}"
        time.sleep(0.1)


_ANSWERS = ("validation/loss", "train/loss", "flops/total", "tokens/total", "test/loss")


def results(directory: Path) -> dict[tuple[str, int], tuple[Any, ...]]:
    """What a finished sweep answers, by arm and seed: everything that must not depend on kills (times do)."""
    return {
        (record.arm, record.seed): (record.role, record.status, *(record.metrics.get(name) for name in _ANSWERS))
        for record in trials(directory)
    }


def results_alone(
    file: Path, folder: Path, only: Collection[tuple[str, int]] | None = None
) -> dict[tuple[str, int], tuple[Any, ...]]:
    """The same of a file's replicates, or of some by arm and seed, each trained in this process without Ray."""
    sweep = load_sweep(file)
    found = {}
    for arm in expand(sweep).arms:
        for seed in replicate_seeds(sweep):
            if only is None or (arm.name, seed) in only:
                metrics = train(with_seed(arm.trial, seed), folder / arm.name / str(seed)).metrics
                found[arm.name, seed] = ("replicate", "finished", *(metrics.get(name) for name in _ANSWERS))
    return found
