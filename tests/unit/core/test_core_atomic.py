"""Atomic writes: whole or not at all, with a fence before the rename and a full disk by its name."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from stackwise_ray.core.atomic import (
    atomic_path,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    disk_full_is_named,
)
from stackwise_ray.core.errors import DiskFullError, StaleAttemptError


def test_text_bytes_and_json_come_back(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a.txt", "größer")
    atomic_write_bytes(tmp_path / "b", b"\x00\xff")
    atomic_write_json(tmp_path / "deep" / "c.json", {"η": [1, 2.5, None]})
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "größer"
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    assert json.loads((tmp_path / "deep" / "c.json").read_text(encoding="utf-8")) == {"η": [1, 2.5, None]}


def test_the_fence_sees_the_old_file_and_can_refuse_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    atomic_write_text(path, "old")
    seen: list[str] = []

    def fence() -> None:
        seen.append(path.read_text())
        raise StaleAttemptError("attempt 1 was superseded")

    with pytest.raises(StaleAttemptError):
        atomic_write_text(path, "new", fence=fence)
    assert seen == ["old"]
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def write_half() -> None:
        with atomic_path(tmp_path / "weights.safetensors") as temporary:
            assert temporary.suffix == ".safetensors"
            temporary.write_bytes(b"half")
            raise KeyError("layer")

    with pytest.raises(KeyError):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_nan_is_no_json_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    atomic_write_json(path, {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic_write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text()) == {"loss": 1.0}


def test_a_full_device_becomes_a_disk_full_error() -> None:
    with (
        pytest.raises(DiskFullError, match=r"results\.json: no space left on device; free some space"),
        disk_full_is_named("results.json"),
        open("/dev/full", "wb", buffering=0) as device,  # every write to it answers ENOSPC
    ):
        device.write(b"x")


def test_other_errors_of_the_system_pass_unchanged(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        atomic_write_text(tmp_path / "file" / "below.txt", "x")


def test_the_file_has_the_permissions_of_an_ordinary_one(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_text("")
    atomic_write_text(tmp_path / "atomic", "")
    assert stat.S_IMODE(os.stat(tmp_path / "atomic").st_mode) == stat.S_IMODE(os.stat(tmp_path / "ordinary").st_mode)


def test_content_is_on_the_disk_before_the_name_shows_it_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut leaves cannot be tried here; the order of the calls that decide it can."""
    calls: list[tuple[str, int]] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        calls.append(("fsync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        calls.append(("replace", source.stat().st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    atomic_write_text(tmp_path / "file", "text")
    file, folder = ((tmp_path / name).stat().st_ino for name in ("file", "."))
    assert calls == [("fsync", file), ("replace", file), ("fsync", folder)]
