"""Settings of the process that a trial asks for while it runs. torch keeps those of a GPU where there is none, too."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.planning.calibration_key import calibration_key
from stackwise_ray.training.assembly import float32_products
from tests.small_trials import TRIAL, run, with_training

CUDA = torch.device("cuda")


def settings() -> tuple[bool, str, bool]:
    return (
        torch.backends.cuda.matmul.allow_tf32,
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
    )


@pytest.mark.parametrize(("tf32", "inside"), [(True, (True, "high", True)), (False, (False, "highest", False))])
@pytest.mark.parametrize("process", ["highest", "high"])
def test_a_gpu_computes_float32_products_as_the_trial_says_and_the_process_gets_its_settings_back(
    tf32: bool, inside: tuple[bool, str, bool], process: str
) -> None:
    untouched = settings()
    torch.set_float32_matmul_precision(process)
    try:
        before = settings()
        with contextlib.suppress(KeyboardInterrupt), float32_products(with_training(tf32=tf32), CUDA):
            assert settings() == inside
            raise KeyboardInterrupt  # a trial that ends in any way
        assert settings() == before
    finally:
        torch.set_float32_matmul_precision(untouched[1])


def test_a_trial_on_a_cpu_leaves_the_settings_of_gpus_alone() -> None:
    before = settings()
    with float32_products(TRIAL, torch.device("cpu")):
        assert settings() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="auto is a GPU here")
def test_tf32_is_refused_where_auto_turns_out_to_be_a_cpu(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.tf32 = true has no effect on a CPU.* write false, or give"):
        run(with_training(tf32=True, device="auto"), tmp_path)


def test_runs_in_tf32_are_another_kind_of_run_for_the_calibration() -> None:
    plain, tf32 = (
        calibration_key(with_training(tf32=tf32), device="NVIDIA H200", threads=1, backend=None)
        for tf32 in (False, True)
    )
    assert tf32.text() == f"{plain.text()} | tf32"
