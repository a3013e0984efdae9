"""The `triton` backend where there is no GPU: why it is not used, its kernels interpreted, and compiled for a GPU."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch

from stackwise_ray import checkup
from stackwise_ray.kernels import available_backends, choose_backend
from stackwise_ray.kernels.backend import passed_over
from stackwise_ray.kernels.backends import triton as backend

HERE = Path(__file__).parent


def python(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.mark.slow
@pytest.mark.skipif(not backend._INSTALLED, reason="triton is not installed")
def test_kernels_equal_the_reference_in_the_interpreter() -> None:
    file = HERE / "triton_in_the_interpreter.py"
    answer = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(file), TRITON_INTERPRET="1")
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.slow
def test_importing_the_backend_needs_no_triton_and_decorates_no_kernel() -> None:
    # Two processes, with and without triton, forked from one that has loaded torch.
    code = (
        "import os, sys, torch\n"
        "assert not [name for name in sys.modules if name.startswith(('triton', 'stackwise_ray'))]\n"
        "for missing in (False, True):\n"
        "    if child := os.fork():\n"
        "        assert os.waitpid(child, 0)[1] == 0\n"
        "        continue\n"
        "    if missing: sys.modules['triton'] = None\n"
        "    from stackwise_ray.kernels import BACKENDS, available_backends\n"
        "    assert 'triton' not in available_backends()\n"
        "    assert 'stackwise_ray.kernels.triton_kernels' not in sys.modules\n"
        "    print(BACKENDS.get('triton').unusable())\n"
        "    break"
    )
    answer = python("-c", code, TRITON_INTERPRET="", CUDA_VISIBLE_DEVICES="")
    assert answer.returncode == 0, answer.stderr
    here = "torch sees no CUDA device" if backend._INSTALLED else "triton is not installed"
    assert answer.stdout == f"{here}\ntriton is not installed\n"


def test_reason_is_a_missing_package_or_a_missing_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    # Machines with and without triton and a GPU, whatever this one has.
    monkeypatch.setattr(backend, "INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(backend, "_INSTALLED", True)
    assert backend.unusable() == "torch sees no CUDA device"
    assert "triton" not in available_backends()
    monkeypatch.setattr(backend, "_INSTALLED", False)
    assert backend.unusable() == "triton is not installed"


def test_without_a_compiler_or_headers_the_kernels_fall_to_torch_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STACKWISE_BK_BACKEND", raising=False)
    # A machine with triton and a GPU; what lies on its disk is real files of this test.
    monkeypatch.setattr(backend, "INTERPRETED", False)
    monkeypatch.setattr(backend, "_INSTALLED", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    compiler = tmp_path / "gcc"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    (tmp_path / "Python.h").write_text("")
    monkeypatch.setattr(backend, "python_headers", lambda: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert (backend.unusable(), choose_backend(device="cuda")) == (None, "triton")
    monkeypatch.setenv("CC", "ccache gcc")
    assert "CC = 'ccache gcc' is not a program on PATH" in str(backend.unusable())
    monkeypatch.setenv("CC", "gcc")
    monkeypatch.setattr(backend, "python_headers", lambda: str(tmp_path / "elsewhere"))
    assert "no Python.h in" in str(backend.unusable())
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    reason = "triton needs a C compiler, and neither gcc nor clang is on PATH"
    assert (backend.unusable(), choose_backend(device="cuda")) == (reason, "torch")
    assert passed_over("torch", "cuda") == {"triton": reason}
    note = checkup.check_triton()
    assert note is not None
    assert (note.status, note.detail) == ("note", reason)
    assert "torch backend" in str(note.fix)


def test_where_the_headers_are_is_where_this_python_has_them() -> None:
    assert backend.python_headers() == sysconfig.get_paths()["include"]


def test_first_choice_on_a_gpu_and_none_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STACKWISE_BK_BACKEND", raising=False)  # here: a machine with triton and a GPU
    monkeypatch.setattr(backend, "_INSTALLED", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backend, "launcher_problem", lambda *given: None)  # this machine may lack a compiler
    assert choose_backend() == choose_backend(device="cuda") == "triton"
    assert choose_backend(device="cpu") != "triton"


# ---------------------------------------------------------------------------------------------- compiled, not run


class _Driver:
    """What triton asks before it compiles: the device's architecture, here an H100's."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


class _Compiled:
    """A kernel that is compiled for the arguments of a launch, and not launched."""

    def __init__(self, kernel: Any, found: dict[str, list[Any]]) -> None:
        self.kernel, self.found = kernel, found

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def compile_(**arguments: Any) -> None:
            self.found.setdefault(self.kernel.__name__, []).append(self.kernel.run(grid=grid, warmup=True, **arguments))

        return compile_


KERNELS = {
    "triton_kernels": ("cavity", "linear"),
    "triton_gradients": ("diagonal_adjoint", "causal_substitution_adjoint", "two_sided_substitution_adjoint"),
}


@pytest.mark.slow
@pytest.mark.skipif(not backend._INSTALLED or backend.INTERPRETED, reason="triton is not installed, or interprets")
@pytest.mark.parametrize(
    ("batch", "heads", "n", "width", "by_position", "dtype"),
    [
        (4, 32, 4096, 32, False, torch.float32),
        (2, 3, 77, 11, True, torch.float64),  # complex values, too
        (1, 1, 1, 1, True, torch.bfloat16),  # sizes of 1 become constants when triton compiles
    ],
    ids=["model", "by position", "smallest"],
)
def test_every_kernel_compiles_for_an_h100(
    batch: int,
    heads: int,
    n: int,
    width: int,
    by_position: bool,
    dtype: torch.dtype,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The interpreter takes more than the compiler does. Needs no GPU: ptxas comes with triton."""
    import triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.runtime.driver, "_active", _Driver())
    found: dict[str, list[Any]] = {}
    for module in (importlib.import_module(f"stackwise_ray.kernels.{name}") for name in KERNELS):
        for name in KERNELS[module.__name__.rpartition(".")[2]]:
            monkeypatch.setattr(module, name, _Compiled(getattr(module, name), found))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    potential = torch.rand(batch, n, heads).to(dtype).transpose(1, 2)
    hop = torch.rand(heads, n - 1 if by_position else 1).to(dtype)
    shift = torch.rand(heads, n if by_position else 1).to(wide)
    shift = torch.complex(shift, shift)
    grad = torch.complex(potential.to(wide), potential.to(wide))
    values = torch.rand(batch, n, heads, width).to(dtype).transpose(1, 2)
    grad_values = torch.complex(values.to(wide), values.to(wide))
    values = grad_values if dtype == torch.float64 else values
    for causal in (True, False):
        backend.diagonal(potential, hop, shift, causal)
        backend.diagonal_backward(grad, potential, hop, shift, causal)
        backend.apply(potential, hop, shift, values, causal)
        backend.apply_backward(grad_values, potential, hop, shift, values, grad_values, causal)
    assert set(found) == {name for names in KERNELS.values() for name in names}
    assert all(".target sm_90" in kernel.asm["ptx"] for kernels in found.values() for kernel in kernels)
