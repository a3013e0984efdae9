"""What the doctor checks: one function per line of the diagnosis.

Each check uses what it checks: torch multiplies, Ray starts and stops, the compiler compiles, the tracking store takes
a run. A check that fails says what to do. Nothing is installed or repaired.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stackwise_ray.core.calibration_store import calibration_path
from stackwise_ray.core.environment import cpu_model, package_version, usable_cores
from stackwise_ray.core.processes import last_line, process_group
from stackwise_ray.core.quantities import format_bytes

if TYPE_CHECKING:
    from stackwise_ray.training.device_facts import DeviceFacts

Status = Literal["ok", "note", "fails"]
"""`note`: works, but something is missing that somebody may want. Only `fails` changes the exit code."""

GIB = 2**30
LEAST_DISK = 2 * GIB  # a sweep of tiny models with checkpoints stays below it
LEAST_SHARED_MEMORY = 128 * 2**20  # the object store that a sweep asks Ray for, and some room


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the diagnosis.

    Attributes:
        fix: What to do; None where all is well.
    """

    name: str
    status: Status
    detail: str
    fix: str | None = None


def check_python() -> Check:
    """The interpreter's version, in the range that this package declares."""
    from packaging.specifiers import SpecifierSet

    detail = f"{platform.python_version()} on {platform.platform()}"
    with contextlib.suppress(metadata.PackageNotFoundError):  # check_packages reports it
        declared = metadata.metadata("stackwise_ray")["Requires-Python"]
        if not SpecifierSet(declared).contains(platform.python_version(), prereleases=True):
            fix = f"install Python {declared} and make a new .venv with it"
            return Check(name="python", status="fails", detail=detail, fix=fix)
    return Check(name="python", status="ok", detail=detail)


def check_packages() -> Check:
    """Every dependency that this package declares, in the range that it declares; imports none of them."""
    from packaging.requirements import Requirement

    wrong: list[str] = []
    try:
        declared = [Requirement(line) for line in metadata.requires("stackwise_ray") or ()]
    except metadata.PackageNotFoundError:
        return Check(
            name="packages", status="fails", detail="stackwise_ray is not installed", fix="run: pip install -e ."
        )
    needed = [need for need in declared if need.marker is None or need.marker.evaluate({"extra": ""})]
    for need in needed:
        version = package_version(need.name)
        if version is None:
            wrong.append(f"{need.name} is missing")
        elif not need.specifier.contains(version, prereleases=True):
            wrong.append(f"{need.name} is {version}, not {need.specifier}")
    if wrong:
        return Check(
            name="packages",
            status="fails",
            detail="; ".join(wrong),
            fix="run: pip install -e . -c constraints.txt   (the versions that were tested)",
        )
    return Check(name="packages", status="ok", detail=f"all {len(needed)} in their declared ranges")


def check_torch() -> Check:
    """Torch imports and multiplies; what it sees of the processor and of GPUs."""
    fix = "reinstall torch: pip install --force-reinstall 'torch>=2.9,<2.14' (docs/install.md: builds without CUDA)"
    try:
        import torch
    except Exception as error:  # a broken shared library raises whatever it likes
        return Check(name="torch", status="fails", detail=f"does not import: {_first_line(error)}", fix=fix)
    product = torch.full((64, 128), 2.0) @ torch.full((128, 64), 3.0)
    if not bool((product == 768.0).all()):
        return Check(name="torch", status="fails", detail="64×128 by 128×64 of 2·3 is not 768 everywhere", fix=fix)
    detail = f"{torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    return Check(name="torch", status="ok", detail=f"{detail}, {cpu_model()}, {usable_cores()} cores")


def check_cuda() -> Check:
    """GPUs that torch can use, and GPUs that it should be able to."""
    try:
        import torch
    except Exception as error:
        return Check(name="cuda", status="note", detail=f"unknown: {_first_line(error)}", fix="see torch")
    if torch.cuda.is_available():
        from stackwise_ray.training.device_facts import read_facts

        return describe_gpus([read_facts(number) for number in range(torch.cuda.device_count())])
    if Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi"):
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
        return Check(
            name="cuda",
            status="note",
            detail=f"this machine has an NVIDIA driver, but torch cannot use it ({build})",
            fix="install a torch build for your driver's CUDA version, from https://pytorch.org/get-started/locally",
        )
    return Check(name="cuda", status="ok", detail="no GPU; everything runs on the processor")


def has_gpu() -> bool:
    """Whether torch can use a GPU."""
    import torch

    return torch.cuda.is_available()


def describe_gpus(gpus: Sequence[DeviceFacts]) -> Check:
    """The GPUs, and what they compute slowly: a note where it is bf16, which a trial can avoid."""
    from stackwise_ray.training.device_facts import EMULATED_BF16, slow_float64_text

    names = ", ".join(f"{gpu.name} ({format_bytes(gpu.memory_bytes)})" for gpu in gpus)
    versions = [f"CUDA {gpus[0].cuda}", *([f"driver {gpus[0].driver}"] if gpus[0].driver else [])]
    parts = [f"{', '.join(versions)}: {names}"]
    emulating = list(dict.fromkeys(gpu.name for gpu in gpus if gpu.emulates_bf16))
    parts += [f"{name} {EMULATED_BF16}" for name in emulating]
    slow = {gpu.name: gpu.slow_float64 for gpu in gpus if gpu.slow_float64 is not None}
    parts += [f"{name} {slow_float64_text(times)}" for name, times in slow.items()]
    return Check(
        name="cuda",
        status="note" if emulating else "ok",
        detail="; ".join(parts),
        fix="write training.precision: fp16 where a file says bf16" if emulating else None,
    )


def check_ray(seconds: float = 90.0) -> Check:
    """A real local session, started as a sweep starts it, in a process of its own that can be ended."""
    code = (
        "import time; began = time.monotonic()\n"
        "from stackwise_ray.planning.demand import Demand\n"
        "from stackwise_ray.distributed.session import ray_session\n"
        "with ray_session(Demand()) as session:\n"
        "    print('slots', session.slots, round(time.monotonic() - began, 1), flush=True)"
    )
    fix = (
        "see what 'python -c \"import ray; ray.init(address='local')\"' says; a full /tmp, a small /dev/shm and a "
        "proxy set for localhost (add localhost,127.0.0.1 to no_proxy) are the usual reasons"
    )
    version = package_version("ray")
    # A folder of its own: a Ray that is ended while it starts leaves its session's directory behind.
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        process_group([sys.executable, "-c", code], {"TMPDIR": folder}) as process,
    ):
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return Check(name="ray", status="fails", detail=f"{version} did not start in {seconds:g} s", fix=fix)
    for line in out.splitlines():
        if line.startswith("slots"):
            _, slots, elapsed = line.split()
            return Check(name="ray", status="ok", detail=f"{version} starts in {elapsed} s, {slots} trials at once")
    return Check(name="ray", status="fails", detail=f"{version}: {last_line(err)}", fix=fix)


def check_disk(output: Path) -> list[Check]:
    """Room where results, prepared data and Ray's files go, and in shared memory."""
    places = {"results": output, "cache": calibration_path().parent, "temporary files": Path(tempfile.gettempdir())}
    checks = [_check_place(name, path) for name, path in places.items()]
    shared = Path("/dev/shm")
    if shared.is_dir():
        total = shutil.disk_usage(shared).total
        small = total < LEAST_SHARED_MEMORY
        checks.append(
            Check(
                name="shared memory",
                status="note" if small else "ok",
                detail=f"{format_bytes(total)} in /dev/shm",
                fix="Ray will use slower files; in a container give it more: docker run --shm-size=1g"
                if small
                else None,
            )
        )
    return checks


def _check_place(name: str, path: Path) -> Check:
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not there.is_dir():
        return Check(
            name=name, status="fails", detail=f"{there} is a file", fix="choose another folder, or move the file away"
        )
    free = shutil.disk_usage(there).free
    detail = f"{format_bytes(free)} free for {path}"
    if not os.access(there, os.W_OK | os.X_OK):
        return Check(
            name=name,
            status="fails",
            detail=f"{there} cannot be written",
            fix="choose a folder that you can write (--output, STACKWISE_CACHE, TMPDIR)",
        )
    if free < LEAST_DISK:
        return Check(
            name=name,
            status="fails",
            detail=detail,
            fix=f"free some: a sweep wants {format_bytes(LEAST_DISK)} at least",
        )
    return Check(name=name, status="ok", detail=detail)


def check_compiler() -> Check:
    """A C compiler that makes a shared library with OpenMP: the kernels' cpu backend needs one."""
    fix = "install one (Debian, Ubuntu: apt-get install gcc libc6-dev); without it the torch backend is used"
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return Check(name="compiler", status="note", detail="no cc, gcc or clang", fix=fix)
    return _compiles("compiler", compiler, "probe.c", ("#include <omp.h>", _PROBE), (), fix)


def check_cxx_compiler() -> Check:
    """The C++ compiler that torch calls, with Python's headers: `training.compile` on a CPU needs both."""
    fix = (
        "install both (Debian, Ubuntu: apt-get install g++ python3-dev), or name another compiler in CXX; without it "
        "there is no training.compile on a CPU"
    )
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return Check(name="c++ compiler", status="note", detail=f"no {compiler}", fix=fix)
    headers = "-I" + sysconfig.get_path("include")
    source = ("#include <omp.h>", "#include <Python.h>", _PROBE)
    return _compiles("c++ compiler", compiler, "probe.cpp", source, (headers,), fix)


def check_triton() -> Check | None:
    """What triton needs for its kernels on a GPU: itself, a C compiler and Python's headers; None without a GPU."""
    try:
        from stackwise_ray.kernels.backends.triton import unusable
    except Exception as error:
        return Check(name="triton", status="note", detail=f"unknown: {_first_line(error)}", fix="see torch")
    if not has_gpu():
        return None
    reason = unusable()
    if reason is None:
        return Check(name="triton", status="ok", detail=f"{package_version('triton')}, a C compiler and Python.h")
    fix = (
        "install what is missing (Debian, Ubuntu: apt-get install gcc python3-dev; pip install triton); without it the "
        "resolvent kernels run in the torch backend, and there is no training.compile on a GPU"
    )
    return Check(name="triton", status="note", detail=reason, fix=fix)


_PROBE = "int probe(void) { return omp_get_max_threads(); }"


def _compiles(name: str, compiler: str, file: str, lines: tuple[str, ...], flags: tuple[str, ...], fix: str) -> Check:
    """Whether the compiler makes a shared library of these lines; what it lacks is no failure."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / file
        source.write_text("\n".join(lines) + "\n")
        library = str(source.with_suffix(".so"))
        words = [*compiler.split(), *flags, "-O2", "-fopenmp", "-shared", "-fPIC", str(source), "-o", library]
        try:
            answer = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Check(name=name, status="note", detail=f"{compiler}: {_first_line(error)}", fix=fix)
    if answer.returncode != 0:
        return Check(name=name, status="note", detail=f"{compiler} fails: {last_line(answer.stderr)}", fix=fix)
    return Check(name=name, status="ok", detail=compiler)


def check_tracking() -> Check:
    """The tracking store takes a run and gives it back; the run is deleted again."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    where = "MLFLOW_TRACKING_URI" if uri else "the default, SQLite"
    fix = (
        "start the server, or correct MLFLOW_TRACKING_URI; a sweep runs meanwhile, and delivers later"
        if uri
        else "reinstall mlflow: pip install --force-reinstall mlflow"
    )
    with tempfile.TemporaryDirectory() as folder:
        code = (
            "import sys\n"
            "from stackwise_ray.tracking.mlflow_store import probe\n"
            "print('took', probe(sys.argv[1]), flush=True)"
        )
        words = [sys.executable, "-c", code, uri or f"sqlite:///{folder}/mlflow.db"]
        with process_group(words) as process:
            try:
                out, err = process.communicate(timeout=90)
            except subprocess.TimeoutExpired:
                out, err = "", "no answer in 90 s"
    for line in out.splitlines():
        if line.startswith("took"):
            detail = f"mlflow {package_version('mlflow')}, {where}: took a run in {line.split()[1]} s"
            return Check(name="tracking", status="ok", detail=detail)
    return Check(name="tracking", status="fails", detail=f"{where}: {last_line(err)}", fix=fix)


def check_load() -> Check:
    """Whether the machine is idle enough to measure its speed."""
    load, cores = os.getloadavg()[0], usable_cores()
    detail = f"{load:.1f} processes were running over the last minute, on {cores} cores"
    if load < max(1.0, 0.5 * cores):
        return Check(name="load", status="ok", detail=detail)
    fix = "run this again when the machine is idle: plans are made from what is measured (or add --even-if-busy)"
    return Check(name="load", status="note", detail=detail, fix=fix)


def check_data() -> Check:
    """The folder STACKWISE_DATA, where corpora are looked for before they are downloaded."""
    value = os.environ.get("STACKWISE_DATA")
    if not value:
        return Check(
            name="data", status="ok", detail="STACKWISE_DATA is not set; python_stdlib and markov need no files"
        )
    try:
        names = sorted(entry.name for entry in Path(value).iterdir())
    except OSError as error:
        return Check(
            name="data",
            status="fails",
            detail=f"STACKWISE_DATA = {value}: {os.strerror(error.errno or 0).lower()}",
            fix="set it to a folder that exists, or unset it",
        )
    return Check(name="data", status="ok", detail=f"STACKWISE_DATA holds {', '.join(names) or 'nothing'}")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
