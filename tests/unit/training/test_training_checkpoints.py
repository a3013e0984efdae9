"""Checkpoints: exact round trip, damage of every kind, fences, full disks, the newest two."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from stackwise_ray.core.errors import CheckpointError, StaleAttemptError, TrialError
from stackwise_ray.training.checkpoints import (
    Checkpoint,
    clear_unfinished,
    list_checkpoints,
    load_newest,
    save_checkpoint,
)


def checkpoint(step: int = 3, trial_id: str = "abc") -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    tensors = {
        "model": {"weight": torch.randn(4, 3, generator=generator), "half": torch.randn(5).bfloat16()},
        "optimizer": {"0/step": torch.tensor(float(step)), "0/exp_avg": torch.full((4, 3), -0.0)},
        "random": {"torch": torch.get_rng_state()},
    }
    state = {"trial_id": trial_id, "loss_sum": 0.1 + 0.2, "tokens": 2**60, "nested": {"a": [1, None, "é"]}}
    return Checkpoint(step=step, tensors=tensors, state=state)


def fail(message: str) -> None:
    raise AssertionError(f"unexpected warning: {message}")


def names(directory: Path) -> list[str]:
    return [path.name for path in list_checkpoints(directory)]


def test_a_checkpoint_comes_back_to_the_bit(tmp_path):
    saved = checkpoint()
    save_checkpoint(tmp_path, saved)
    loaded = load_newest(tmp_path, trial_id="abc", warn=fail)
    assert loaded is not None
    assert loaded.step == 3
    assert loaded.state == saved.state
    assert loaded.tensors.keys() == saved.tensors.keys()
    for name, tensors in saved.tensors.items():
        for key, tensor in tensors.items():
            other = loaded.tensors[name][key]
            assert other.dtype == tensor.dtype
            assert other.shape == tensor.shape
            assert other.contiguous().flatten().view(torch.uint8).equal(tensor.contiguous().flatten().view(torch.uint8))


def test_a_trial_that_never_wrote_one_has_none(tmp_path):
    assert load_newest(tmp_path / "checkpoints", trial_id="abc", warn=fail) is None


def test_the_newest_two_are_kept(tmp_path):
    for step in (1, 2, 10, 3):
        save_checkpoint(tmp_path, checkpoint(step))
    assert names(tmp_path) == ["step_000000000010", "step_000000000003"]
    loaded = load_newest(tmp_path, trial_id="abc", warn=fail)
    assert loaded is not None
    assert loaded.step == 10


def damage_one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGES = {
    "a flipped bit in the weights": lambda folder: damage_one_byte(folder / "model.safetensors"),
    "a flipped bit in the state": lambda folder: damage_one_byte(folder / "state.json"),
    "a flipped bit in the checksums": lambda folder: damage_one_byte(folder / "checksums.json"),
    "a file cut short": lambda folder: (folder / "optimizer.safetensors").write_bytes(b"1234"),
    "a missing file": lambda folder: (folder / "random.safetensors").unlink(),
    "missing checksums": lambda folder: (folder / "checksums.json").unlink(),
    "checksums that list nothing": lambda folder: (folder / "checksums.json").write_text("[]"),
    "a newer format": lambda folder: (folder / "checksums.json").write_text('{"format_version": 99, "files": {}}'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_used(tmp_path, damage):
    save_checkpoint(tmp_path, checkpoint(1))
    damage(save_checkpoint(tmp_path, checkpoint(2)))
    warnings: list[str] = []
    loaded = load_newest(tmp_path, trial_id="abc", warn=warnings.append)
    assert loaded is not None
    assert loaded.step == 1
    assert "step_000000000002" in warnings[0]
    assert "step_000000000001" in warnings[1]


def test_with_no_intact_checkpoint_left_the_trial_fails_and_names_them(tmp_path):
    for step in (1, 2):
        damage_one_byte(save_checkpoint(tmp_path, checkpoint(step)) / "model.safetensors")
    with pytest.raises(TrialError, match=r"no intact checkpoint is left: .*step_000000000002.*step_000000000001"):
        load_newest(tmp_path, trial_id="abc", warn=lambda message: None)


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path):
    damage_one_byte(save_checkpoint(tmp_path, checkpoint(2)) / "model.safetensors")
    save_checkpoint(tmp_path, checkpoint(2))
    assert load_newest(tmp_path, trial_id="abc", warn=fail) is not None
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000000002"]


def test_a_checkpoint_of_another_trial_is_not_taken(tmp_path):
    save_checkpoint(tmp_path, checkpoint(trial_id="other"))
    with pytest.raises(CheckpointError, match="belongs to trial other, not to abc"):
        load_newest(tmp_path, trial_id="abc", warn=fail)


def test_a_superseded_attempt_leaves_nothing(tmp_path):
    save_checkpoint(tmp_path, checkpoint(1))

    def fence() -> None:
        raise StaleAttemptError("attempt 1 was superseded by 2")

    with pytest.raises(StaleAttemptError):
        save_checkpoint(tmp_path, checkpoint(2), fence=fence)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000000001"]


def test_a_write_cut_off_by_a_newer_attempt_is_called_stale_not_an_input_output_error(tmp_path):
    calls = []

    def fence() -> None:
        calls.append(1)
        if len(calls) == 1:
            shutil.rmtree(tmp_path)  # the newer attempt clears away the folder between the fence and the rename
        else:
            raise StaleAttemptError("attempt 1 was superseded by 2")

    with pytest.raises(StaleAttemptError):
        save_checkpoint(tmp_path / "checkpoints", checkpoint(2), fence=fence)


def test_what_a_killed_process_left_is_never_loaded_and_is_cleared(tmp_path):
    save_checkpoint(tmp_path, checkpoint(1))
    half = tmp_path / ".step_000000000002.123.abcd.tmp"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    loaded = load_newest(tmp_path, trial_id="abc", warn=fail)
    assert loaded is not None
    assert loaded.step == 1
    clear_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000000001"]


def test_a_state_that_is_not_a_number_is_refused_before_anything_is_renamed(tmp_path):
    bad = Checkpoint(step=1, tensors={}, state={"trial_id": "abc", "loss_sum": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path, bad)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def on_a_full_disk():
    """By what was too large: the message and what is left on a real file system of 1 MiB, in a namespace of its own."""
    code = """
        import json, subprocess, sys, tempfile, torch
        from pathlib import Path
        from stackwise_ray.core.errors import DiskFullError
        from stackwise_ray.training.checkpoints import Checkpoint, save_checkpoint
        folder = Path(tempfile.mkdtemp())
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
        small = Checkpoint(step=1, tensors={"model": {"w": torch.zeros(10)}}, state={"trial_id": "abc"})
        save_checkpoint(folder, small)
        large = {
            "tensors": Checkpoint(step=2, tensors={"model": {"w": torch.zeros(10**6)}}, state={}),
            "state": Checkpoint(step=2, tensors={}, state={"text": "x" * 4_000_000}),
        }
        said = {}
        for name, checkpoint in large.items():
            try:
                save_checkpoint(folder, checkpoint)
            except DiskFullError as error:
                said[name] = [str(error), [p.name for p in folder.iterdir()]]
        print(json.dumps(said))
    """
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let a process mount a small file system of its own")
    command = [unshare, "-rm", sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout)


@pytest.mark.parametrize("large", ["tensors", "state"])
def test_a_full_disk_is_named_and_the_older_checkpoint_stays(large, on_a_full_disk):
    message, left = on_a_full_disk[large]
    assert "no space left" in message
    assert left == ["step_000000000001"]
