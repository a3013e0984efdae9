"""Attempts at a trial: what one leaves, what the next takes up, and what a superseded one may no longer write."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stackwise_ray.config.trial import Budget
from stackwise_ray.core.errors import ConfigError, DeviceLostError, DiskFullError, StaleAttemptError, TrialError
from stackwise_ray.running.run import run_trial
from stackwise_ray.training.checkpoints import Checkpoint, list_checkpoints, save_checkpoint
from stackwise_ray.training.trial_folder import TrialLog
from tests.small_trials import TRIAL, run, with_training

pytestmark = pytest.mark.usefixtures("module_cache")


def test_a_finished_trial_is_answered_from_its_folder(tmp_path):
    _, first = run(TRIAL, tmp_path)
    records, second = run(TRIAL, tmp_path, attempt=2)
    assert len(records) == 1
    assert second.metrics == first.metrics
    assert second.environment == first.environment


def test_an_interrupt_between_steps_leaves_a_checkpoint_and_the_next_attempt_goes_on(tmp_path):
    _, whole = run(TRIAL, tmp_path / "whole")
    generator = run_trial(TRIAL, tmp_path / "t", trial_id="t", attempt=1, keep_model=False)
    for _ in range(3):
        record = next(generator)
    with pytest.raises(KeyboardInterrupt):
        generator.throw(KeyboardInterrupt())
    (checkpoint,) = list_checkpoints(tmp_path / "t" / "checkpoints")
    assert checkpoint.name == f"step_{record.step:012d}"
    records, result = run(TRIAL, tmp_path / "t", attempt=2)
    assert records[0].step >= record.step
    assert result.metrics["validation/loss"] == whole.metrics["validation/loss"]


def test_a_trial_that_is_closed_writes_nothing_more(tmp_path):
    generator = run_trial(TRIAL, tmp_path, trial_id="t", attempt=1)
    next(generator)
    generator.close()
    assert not list_checkpoints(tmp_path / "checkpoints")
    assert not (tmp_path / "outputs").exists()


def test_a_superseded_attempt_writes_no_checkpoint_and_no_result(tmp_path):
    (tmp_path / "attempt").write_text("1")
    generator = run_trial(TRIAL, tmp_path, trial_id="t", attempt=1)
    next(generator)
    (tmp_path / "attempt").write_text("2")
    with pytest.raises(StaleAttemptError, match="attempt 1 was superseded by attempt 2"):
        for _ in generator:
            pass
    assert not (tmp_path / "outputs").exists()
    assert not (tmp_path / "model").exists()


def test_an_attempt_whose_device_is_lost_says_so_and_another_process_can_go_on(tmp_path):
    generator = run_trial(TRIAL, tmp_path, trial_id="t", attempt=1, keep_model=False)
    next(generator)
    with pytest.raises(DeviceLostError, match=r"^CUDA error: unspecified launch failure$"):
        generator.throw(RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be late"))
    assert "cannot use its device again: CUDA error" in (tmp_path / "logs/train.log").read_text()
    _, result = run(TRIAL, tmp_path, attempt=2)
    assert result.metrics["progress"] == 1.0


def test_memory_that_a_library_of_the_device_did_not_get_fails_the_trial_as_out_of_memory(tmp_path):
    generator = run_trial(TRIAL, tmp_path, trial_id="t", attempt=1, keep_model=False)
    next(generator)
    with pytest.raises(TrialError, match=r"out of memory: CUDA error: CUBLAS_STATUS_ALLOC_FAILED .*; raise"):
        generator.throw(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))


def test_a_damaged_checkpoint_is_named_in_the_log_and_the_one_before_is_used(tmp_path):
    _, whole = run(TRIAL, tmp_path / "whole")
    often = with_training(checkpoint_seconds=0.0)
    generator = run_trial(often, tmp_path / "t", trial_id="t", attempt=1)
    for _ in range(5):
        next(generator)
    generator.close()
    newest, before = list_checkpoints(tmp_path / "t" / "checkpoints")
    (newest / "model.safetensors").write_bytes(b"rubbish")
    _, result = run(often, tmp_path / "t", attempt=2)
    log = (tmp_path / "t" / "logs" / "train.log").read_text()
    assert "WARNING a damaged checkpoint is not used" in log
    assert newest.name in log
    assert f"training continues from the checkpoint before it, {before.name}" in log
    assert result.metrics["validation/loss"] == whole.metrics["validation/loss"]


def test_no_checkpoint_is_written_after_a_step_that_is_not_finite(tmp_path):
    wild = with_training(lr=1e30, gradient_clip=None, budget=Budget(steps=20), checkpoint_seconds=0.0)
    with pytest.raises(TrialError):
        run(wild, tmp_path)
    from safetensors.torch import load_file

    for path in list_checkpoints(tmp_path / "checkpoints"):
        assert all(tensor.isfinite().all() for tensor in load_file(path / "model.safetensors").values())


def test_data_with_another_fingerprint_is_refused(tmp_path):
    with pytest.raises(TrialError, match="give every node the same source"):
        run(TRIAL, tmp_path, data_fingerprint="0" * 64)


def test_an_output_that_is_a_file_is_a_mistake_of_the_user(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="there is a file of that name"):
        run(TRIAL, tmp_path / "file" / "trial")


def test_a_superseded_attempt_renames_no_checkpoint(tmp_path):
    (tmp_path / "attempt").write_text("1")
    generator = run_trial(with_training(checkpoint_seconds=0.0), tmp_path, trial_id="t", attempt=1)
    next(generator)
    before = list_checkpoints(tmp_path / "checkpoints")
    (tmp_path / "attempt").write_text("2")
    with pytest.raises(StaleAttemptError):
        list(generator)
    assert list_checkpoints(tmp_path / "checkpoints") == before


def test_what_a_killed_attempt_left_half_written_is_removed(tmp_path):
    half = tmp_path / "checkpoints" / ".step_000000000003.1.abcd.tmp"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    generator = run_trial(TRIAL, tmp_path, trial_id="t", attempt=1)
    next(generator)
    generator.close()
    assert not half.exists()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Path]], None]:
    """Makes a function write the checkpoints: no real disk is slow, or full, just when a test needs it."""
    return lambda save: monkeypatch.setattr("stackwise_ray.running.run.save_checkpoint", save)


def writing_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("checkpoint")]


def test_training_goes_on_while_a_checkpoint_is_written(disk, tmp_path):
    later = threading.Event()

    def slow(*arguments: Any, **options: Any) -> Path:
        assert later.wait(20), "training waited for the write"
        return save_checkpoint(*arguments, **options)

    disk(slow)
    generator = run_trial(with_training(checkpoint_seconds=1e-9), tmp_path, trial_id="t", attempt=1)
    for record in generator:
        if record.step == 4:
            assert not list_checkpoints(tmp_path / "checkpoints")
            later.set()
    assert not (tmp_path / "checkpoints").exists()
    assert not writing_threads()


def test_a_trial_closed_during_a_write_leaves_no_thread_and_nothing_half_written(disk, tmp_path):
    began = threading.Event()

    def slow(*arguments: Any, **options: Any) -> Path:
        began.set()
        time.sleep(0.2)
        return save_checkpoint(*arguments, **options)

    disk(slow)
    generator = run_trial(with_training(checkpoint_seconds=1e-9), tmp_path, trial_id="t", attempt=1)
    while not began.is_set():
        next(generator)
    generator.close()
    assert not writing_threads()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_000000000001"]


def test_an_interrupt_waits_for_its_checkpoint(disk, tmp_path):
    def slow(*arguments: Any, **options: Any) -> Path:
        time.sleep(0.2)
        return save_checkpoint(*arguments, **options)

    disk(slow)
    generator = run_trial(TRIAL, tmp_path, trial_id="t", attempt=1)
    while next(generator).step < 3:
        pass
    with pytest.raises(KeyboardInterrupt):
        generator.throw(KeyboardInterrupt())
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step_000000000003"]
    assert not writing_threads()


def full_at(step: int) -> Callable[..., Path]:
    """Writes checkpoints to a disk that has no room for the one of this step."""

    def save(directory: Path, checkpoint: Checkpoint, **options: Any) -> Path:
        if checkpoint.step == step:
            raise DiskFullError(f"step_{step}: no space left on device")
        return save_checkpoint(directory, checkpoint, **options)

    return save


def test_a_disk_that_fills_up_during_a_write_ends_the_trial_with_its_message(disk, tmp_path):
    disk(full_at(2))
    with pytest.raises(DiskFullError, match="no space left"):
        run(with_training(checkpoint_seconds=0.0), tmp_path)
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step_000000000001"]
    assert not writing_threads()


def test_a_failure_of_the_write_after_the_last_step_is_no_success(disk, tmp_path):
    disk(full_at(6))
    with pytest.raises(DiskFullError, match="step_6"):
        run(with_training(checkpoint_seconds=0.0), tmp_path)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("room", [True, False], ids=["room for a line", "room for no line"])
def test_a_failed_write_that_nobody_waits_for_is_told_in_the_log_where_there_is_room(room, disk, monkeypatch, tmp_path):
    later = threading.Event()

    def full(*arguments: Any, **options: Any) -> Path:
        assert later.wait(20)
        raise DiskFullError("step_1: no space left on device")

    def no_room(log: TrialLog, message: str) -> None:
        raise DiskFullError("train.log: no space left on device")

    disk(full)
    generator = run_trial(with_training(checkpoint_seconds=1e-9), tmp_path, trial_id="t", attempt=1)
    while next(generator).step < 2:
        pass
    if not room:
        monkeypatch.setattr(TrialLog, "warning", no_room)  # as above, of the log's own file
    later.set()
    generator.close()
    told = "WARNING the last checkpoint could not be written: step_1" in (tmp_path / "logs/train.log").read_text()
    assert told is room
    assert not writing_threads()
