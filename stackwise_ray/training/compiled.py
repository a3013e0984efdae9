"""The forward and backward pass of a stage as one compiled graph (`training.compile`), for each size of micro-batch.

A stage's model is another graph than that of the stage before, so each stage compiles its own, before its first step.
What is not one graph is refused, and so is a graph that would have to be made again during training: nothing runs
uncompiled in silence. Dropout draws what it draws uncompiled, so that the losses are the same to rounding.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import torch

from stackwise_ray.core.calibration_store import calibration_path
from stackwise_ray.core.errors import ConfigError, TrialError

Network = Callable[..., Any]
"""A model's forward pass."""

_CACHE = "TORCHINDUCTOR_CACHE_DIR"


def require_compiler(device: torch.device) -> None:
    """Looks for what torch compiles with, before anything trains.

    Raises:
        ConfigError: It is not there.
    """
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            problem = "= true needs triton, but it is not installed or does not support this GPU; pip install triton"
            raise ConfigError(f"{problem}, or write false", path="training.compile")
        return
    compiler = os.environ.get("CXX", "g++")  # where torch looks
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"= true needs a C++ compiler, and {compiler} is not on PATH; install one (Debian, Ubuntu: apt-get install "
            "g++), name yours in CXX, or write false",
            path="training.compile",
        )


def kernels_come_late(device: torch.device) -> bool:
    """Whether kernels are compiled or loaded at their first call, as Triton's are and those of CUDA's libraries.

    Those of a CPU are there when a backend is chosen.
    """
    return device.type == "cuda"


@contextlib.contextmanager
def compiling(model: torch.nn.Module, what: str) -> Iterator[Network]:
    """Gives the model's forward pass, which the first passes inside the ``with`` block compile, forward and backward.

    The model stays as it is. What was compiled before in this process is forgotten: torch keeps few graphs of one
    function.

    Args:
        what: The stage, for messages.

    Raises:
        TrialError: The passes are not one graph, or torch or its compiler fails on them.
    """
    with _cache_folder():  # which importing what follows asks for
        from torch._inductor import config
        from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

        torch._dynamo.reset()
        failures = (torch._dynamo.exc.TorchDynamoException, CppCompileError, InvalidCxxCompiler)
        # One thread: the other cores are other trials'.
        with config.patch(fallback_random=True, compile_threads=1):
            try:
                yield torch.compile(model, fullgraph=True, dynamic=False)
            except failures as error:
                problem = f"the pass of {what} cannot be compiled: {_reason(error)}"
                raise TrialError(f"training.compile = true: {problem}; write false") from error


@contextlib.contextmanager
def as_compiled(step: int) -> Iterator[None]:
    """Around a pass through a compiled network.

    Raises:
        TrialError: It would have to be compiled again.
    """
    with torch.compiler.set_stance("fail_on_recompile"):
        try:
            yield
        except RuntimeError as error:
            if "fail_on_recompile" not in str(error):
                raise
            raise TrialError(
                f"training.compile = true: the model has changed at step {step}, so its pass would be compiled "
                f"again: {_reason(error)}; write false"
            ) from error


@contextlib.contextmanager
def _cache_folder() -> Iterator[None]:
    """torch keeps what it compiles beside our own caches, unless its variable says where.

    (The headers that it compiles first stay in its folder for temporary files, whatever one says.)
    """
    before = os.environ.get(_CACHE)
    if before is not None:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # importing it sets the variable to it

        if before != default_cache_dir():
            yield
            return
    folder = calibration_path().parent / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"training.compile = true: {folder}: {error.strerror}; set STACKWISE_CACHE to a writable folder"
        raise TrialError(problem) from error
    os.environ[_CACHE] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(_CACHE) if before is None else os.environ.update({_CACHE: before})


def _reason(error: Exception) -> str:
    """The line that says what is wrong: the compiler's, where one speaks, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "error: " in line), lines[0])
