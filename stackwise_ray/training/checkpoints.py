"""Checkpoints: a folder that is there whole or not at all, with a checksum of every file in it.

The loop saves and loads them; nothing here knows what the tensors mean. Tensors are safetensors, everything else is
JSON, nothing is pickled:

    checkpoints/step_000000000120/  model.safetensors  optimizer.safetensors  random.safetensors  state.json
                                    checksums.json

The folder is written under a temporary name and renamed. The newest two are kept: if the newest is damaged (a disk
error, a copy cut short), the one before it is used and the log says so.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from stackwise_ray.core.atomic import Fence, disk_full_is_named, sync
from stackwise_ray.core.errors import CheckpointError, DiskFullError, TrialError

FORMAT_VERSION = 2
KEPT = 2
_NAME = re.compile(r"step_(\d{12})")
_CHECKSUMS = "checksums.json"
_STATE = "state.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that a run needs to go on as if it had never stopped.

    Attributes:
        step: Optimizer steps finished.
        tensors: Named tensors by file: ``{"model": {...}, "optimizer": {...}}``.
        state: JSON data: counters, data position, accumulators. Floats survive exactly.
    """

    step: int
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    state: Mapping[str, Any]


def save_checkpoint(directory: Path, checkpoint: Checkpoint, *, fence: Fence | None = None, keep: int = KEPT) -> Path:
    """Writes a checkpoint and deletes all but the newest `keep`.

    Args:
        directory: The trial's ``checkpoints`` folder; made where it is missing.
        fence: Called right before the rename; raises where this attempt has been superseded.

    Returns:
        The checkpoint's folder.

    Raises:
        DiskFullError: The disk filled up; older checkpoints are as they were and nothing is half-written.
        StaleAttemptError: Raised by `fence`.
    """
    path = directory / f"step_{checkpoint.step:012d}"
    temporary = directory / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        with disk_full_is_named(path):
            temporary.mkdir(parents=True)
            _write_files(temporary, checkpoint)
            if fence is not None:
                fence()
            if path.exists():  # written before a crash, then refused as damaged or passed over
                os.replace(path, temporary.with_suffix(".old"))
                shutil.rmtree(temporary.with_suffix(".old"))
            os.replace(temporary, path)
            sync(directory)
    except DiskFullError:
        raise
    except OSError:
        if fence is not None:  # a newer attempt clears away what an older one left: then that is the reason
            fence()
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in list_checkpoints(directory)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def load_newest(directory: Path, *, trial_id: str, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest intact checkpoint, or None where the trial never wrote one.

    Args:
        trial_id: The trial that the checkpoint must belong to.
        warn: Told about every checkpoint that is refused, by name and reason.

    Raises:
        TrialError: There are checkpoints and none is intact.
        CheckpointError: An intact checkpoint belongs to another trial.
    """
    paths = list_checkpoints(directory)
    refused = []
    for path in paths:
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError as error:
            refused.append(str(error))
            warn(f"a damaged checkpoint is not used: {error}")
            continue
        owner = checkpoint.state.get("trial_id")
        if owner != trial_id:
            raise CheckpointError(f"{path} belongs to trial {owner}, not to {trial_id}; choose another output folder")
        if refused:
            warn(f"training continues from the checkpoint before it, {path.name}")
        return checkpoint
    if paths:
        raise TrialError(f"no intact checkpoint is left: {'; '.join(refused)}. Delete {directory} to start again.")
    return None


def list_checkpoints(directory: Path) -> list[Path]:
    """Folders of finished checkpoints, the newest first; their content is not looked at."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if _NAME.fullmatch(p.name) and p.is_dir()), reverse=True)


def clear_unfinished(directory: Path) -> None:
    """Deletes what a killed process left half-written. Call it as the one owner of the trial."""
    if directory.is_dir():
        for path in directory.glob(".step_*"):
            shutil.rmtree(path, ignore_errors=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """One checkpoint, every byte of it verified first.

    Raises:
        CheckpointError: A file is missing, cut short, changed or unreadable; the message names it.
    """
    checksums = _read_json(path / _CHECKSUMS)
    if not isinstance(checksums, dict) or not isinstance(checksums.get("files"), dict):
        raise CheckpointError(f"{path / _CHECKSUMS} does not list the files")
    if checksums.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format {checksums.get('format_version')}; this version reads format {FORMAT_VERSION}"
        )
    for name, expected in checksums["files"].items():
        if not (path / name).is_file():
            raise CheckpointError(f"{path / name} is missing")
        if _sha256(path / name) != expected:
            raise CheckpointError(f"{path / name} does not have its checksum")
    state = _read_json(path / _STATE)
    try:
        tensors = {
            name.removesuffix(".safetensors"): safetensors.torch.load_file(path / name)
            for name in checksums["files"]
            if name.endswith(".safetensors")
        }
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return Checkpoint(step=int(state["step"]), tensors=tensors, state=state["state"])


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    for name, tensors in checkpoint.tensors.items():
        rows = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
        with tensor_writes(folder):
            safetensors.torch.save_file(rows, folder / f"{name}.safetensors")
    state = {"step": checkpoint.step, "state": checkpoint.state}
    (folder / _STATE).write_text(json.dumps(state, allow_nan=False))
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    (folder / _CHECKSUMS).write_text(json.dumps({"format_version": FORMAT_VERSION, "files": files}, indent=1))
    for path in folder.iterdir():
        sync(path)
    sync(folder)


@contextlib.contextmanager
def tensor_writes(path: Path) -> Iterator[None]:
    """Gives a full disk its errno back where safetensors or tokenizers have hidden it in a message."""
    try:
        yield
    except Exception as error:  # tokenizers raises a bare Exception
        for code in (errno.ENOSPC, errno.EDQUOT):
            if f"os error {code})" in str(error):
                raise OSError(code, os.strerror(code), str(path)) from error
        raise


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
