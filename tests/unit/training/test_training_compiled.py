"""`training.compile`: the same training as without, its seconds outside the clock; and what is refused instead."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stackwise_ray.core.errors import ConfigError, TrialError
from stackwise_ray.data import prepare
from stackwise_ray.flags import apply_flags
from stackwise_ray.planning.calibration_key import calibration_key
from stackwise_ray.running.run import run_trial
from stackwise_ray.training.assembly import assemble
from stackwise_ray.training.compiled import (
    _cache_folder,
    _reason,
    as_compiled,
    compiling,
    kernels_come_late,
    require_compiler,
)
from stackwise_ray.training.parallel.collectives import Alone
from stackwise_ray.training.stages import stage_plan
from stackwise_ray.training.step import StepValues, TrainingStep
from tests.small_trials import TRIAL, run, step_losses, with_model, with_training

pytestmark = pytest.mark.usefixtures("module_cache")

GROWING = with_training(
    with_model(family="bert", role="encoder", dropout=0.2),
    regime="depth_time",
    accumulation=2,
    checkpoint_seconds=0.0,
    evaluations=4,
)
"""Three steps a stage: two with instruments, and one that is compiled."""


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for temporary files, empty at first, and no other place that the caches are told to go to.

    torch compiles its headers once per process, into the folder of the first test that compiles. Kernels without
    vectors are compiled faster than those with, and are as good here.
    """
    from torch._inductor import config

    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        patch.setattr(tempfile, "tempdir", str(folder))
        with config.patch({"cpp.simdlen": 1, "cpp.vec_isa_ok": True}):
            yield folder


def test_without_a_compiler_a_trial_is_refused_before_it_begins(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"training.compile = true .* no-such-compiler is not on PATH; install one"):
        run(with_training(compile=True), tmp_path)
    assert not (tmp_path / "outputs").exists()


def test_a_compiler_is_looked_for_where_torch_looks(monkeypatch):
    monkeypatch.setenv("CXX", sys.executable)
    require_compiler(torch.device("cpu"))
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: True)
    require_compiler(torch.device("cuda"))
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)
    with pytest.raises(ConfigError, match=r"training.compile = true needs triton, .* pip install triton, or write fal"):
        require_compiler(torch.device("cuda"))
    assert [kernels_come_late(torch.device(name)) for name in ("cpu", "cuda")] == [False, True]


def test_a_pass_that_would_be_compiled_again_is_an_error_with_the_step_and_others_stay_theirs():
    with pytest.raises(TrialError) as refused, as_compiled(7):
        raise RuntimeError("Detected recompile when torch.compile stance is 'fail_on_recompile'\nsize mismatch")
    assert str(refused.value) == (
        "training.compile = true: the model has changed at step 7, so its pass would be compiled again: "
        "Detected recompile when torch.compile stance is 'fail_on_recompile'; write false"
    )
    with pytest.raises(RuntimeError, match="out of memory"), as_compiled(7):
        raise RuntimeError("out of memory")


def test_what_torch_compiles_lies_beside_our_caches_while_it_does(monkeypatch, module_cache, tmp_path):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with _cache_folder():
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(module_cache / "compiled")
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "file"))
    with pytest.raises(TrialError, match=r"compiled: Not a directory; set STACKWISE_CACHE to a writable folder"):
        _cache_folder().__enter__()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\n  first \nsecond", "first"),
        ("Traceback\n x.cpp:3: error: no member\nerror: 1", "x.cpp:3: error: no member"),
        ("", "ValueError"),
    ],
)
def test_the_reason_is_the_line_of_the_compiler_or_the_first(said, shown):
    assert _reason(ValueError(said)) == shown


def test_the_flag_says_what_it_does_not_go_with():
    assert apply_flags(replace(TRIAL, flags=("compile",))).training.compile
    sharded = replace(with_training(parallel="sharded"), flags=("compile",))
    with pytest.raises(ConfigError, match=r"flag 'compile' cannot be applied: training.parallel = sharded"):
        apply_flags(sharded)


def test_compiled_runs_are_another_kind_of_run_for_the_calibration():
    plain = calibration_key(TRIAL, device="cpu", threads=1, backend=None)
    flagged = calibration_key(replace(TRIAL, flags=("compile",)), device="cpu", threads=1, backend=None)
    assert flagged == replace(plain, compiled=True)
    assert flagged.text() == f"{plain.text()} | compiled"


def assert_same_but_for_rounding(compiled: tuple, plain: tuple) -> None:
    """Two runs' records and results: losses to rounding, counts to the unit."""
    losses = [step_losses(records) for records, _ in (compiled, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != losses[1]  # or nothing was compiled
    metrics = [result.metrics for _, result in (compiled, plain)]
    counted = [name for name in metrics[1] if name.startswith(("flops/", "tokens/", "steps/", "model/"))]
    assert {name: metrics[0][name] for name in counted} == {name: metrics[1][name] for name in counted}
    assert metrics[0]["memory/peak_bytes"] == metrics[1]["memory/peak_bytes"]
    assert metrics[0]["validation/loss"] == pytest.approx(metrics[1]["validation/loss"], rel=1e-5)


@pytest.mark.slow
def test_a_growing_run_compiles_each_stage_outside_its_clock_and_goes_on_bit_for_bit(temporary, module_cache, tmp_path):
    trial = with_training(GROWING, compile=True)
    whole = run(trial, tmp_path / "whole", keep_model=True, calibrate=True)
    plain = run(GROWING, tmp_path / "plain", keep_model=True)
    assert_same_but_for_rounding(whole, plain)
    assert (tmp_path / "whole" / "logs" / "train.log").read_text().count(": compiling took ") == 2
    stages = [f"compiling {stage.name}" for stage in stage_plan(trial).stages]
    assert [record.doing for record in whole[0] if record.doing] == stages
    assert not any(record.doing for record in plain[0])
    metrics = whole[1].metrics
    assert "time/compile_s" not in plain[1].metrics
    assert metrics["time/total_s"] > metrics["time/compile_s"] + metrics["time/train_s"]
    assert metrics["time/compile_s"] > 2 * metrics["time/train_s"]
    kinds = json.loads((module_cache / "calibration.json").read_text())["machines"].popitem()[1]
    (sample,) = next(samples for kind, samples in kinds.items() if kind.endswith("| compiled"))
    assert sample["startup_s"] > metrics["time/compile_s"]

    generator = run_trial(trial, tmp_path / "pieces", trial_id="t", attempt=1)
    while next(generator).step < 5:
        pass
    with pytest.raises(KeyboardInterrupt):
        generator.throw(KeyboardInterrupt)
    run(trial, tmp_path / "pieces", keep_model=True)
    weights = [tmp_path / name / "model" / "model.safetensors" for name in ("whole", "pieces", "plain")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    torch.testing.assert_close(load_file(weights[0]), load_file(weights[2]), rtol=1e-3, atol=1e-5)

    assert (module_cache / "compiled").is_dir()
    assert {file.name for file in temporary.glob("*/*")} <= {"precompiled_headers"}
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that counts a second a step and a hundred a compilation, which leaves the network as it is."""
    now = [0.0]

    @contextlib.contextmanager
    def leave(model: torch.nn.Module, what: str) -> Iterator[torch.nn.Module]:
        yield model
        now[0] += 100

    def timed(self: TrainingStep, **arguments: Any) -> StepValues:
        now[0] += 1
        return take(self, **arguments)

    take = TrainingStep.take
    monkeypatch.setenv("CXX", sys.executable)  # there is a compiler, and nobody calls it
    monkeypatch.setattr("stackwise_ray.training.step.compiling", leave)
    monkeypatch.setattr("stackwise_ray.training.step.as_compiled", lambda step: contextlib.nullcontext())
    monkeypatch.setattr(
        "stackwise_ray.training.loop.time", SimpleNamespace(perf_counter=lambda: now[0], time=time.time)
    )
    monkeypatch.setattr(TrainingStep, "take", timed)
    return now


def test_the_seconds_of_compiling_are_none_of_training(uncompiled, tmp_path):
    _, result = run(with_training(compile=True), tmp_path)
    assert (result.metrics["time/train_s"], result.metrics["time/compile_s"]) == (6, 100)


def test_the_passes_that_compile_leave_no_gradient_behind(uncompiled):
    trial = with_training(GROWING, compile=True)
    assembly = assemble(trial, prepare(trial.data), torch.device("cpu"))
    step = TrainingStep(assembly, assembly.enter(assembly.plan.stages[0]), Alone())
    step.warm_up(8)
    assert step.compiled
    assert uncompiled == [100]
    assert all(parameter.grad is None for parameter in assembly.model.parameters())


class Asks(torch.nn.Module):
    """Needs a number before it can go on, which no graph holds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum().item() > 0 else x - 1


class Switched(torch.nn.Linear):
    on = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if self.on else x.T)


@pytest.mark.slow
def test_what_is_not_one_graph_or_would_be_compiled_anew_is_refused(temporary):
    refused = pytest.raises(TrialError, match=r"the pass of stage_3 cannot be compiled: .*; write false")
    with refused, compiling(Asks(), "stage_3") as network:
        network(torch.ones(2))
    model = Switched(2, 2)
    with compiling(model, "stage_3") as network:
        network(torch.ones(2, 2))
    with as_compiled(7):
        network(torch.ones(2, 2))
    model.on = True
    with pytest.raises(TrialError, match="the model has changed at step 7"), as_compiled(7):
        network(torch.ones(2, 2))


@pytest.fixture
def late_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose kernels are compiled at their first call."""
    for module in ("step", "compiled"):
        monkeypatch.setattr(f"stackwise_ray.training.{module}.kernels_come_late", lambda device: True)


def test_the_seconds_of_kernels_that_come_late_are_none_of_training(late_kernels, uncompiled, monkeypatch, tmp_path):
    backward = TrainingStep._backward

    def slow_at_first(self: TrainingStep, *arguments: Any, **options: Any) -> torch.Tensor:
        uncompiled[0] += 0 if self.warm else 50
        return backward(self, *arguments, **options)

    monkeypatch.setattr(TrainingStep, "_backward", slow_at_first)
    records, result = run(TRIAL, tmp_path)
    assert (result.metrics["time/train_s"], result.metrics["time/compile_s"]) == (6, 50)
    assert [record.doing for record in records if record.doing] == ["warming up classical"]


def test_every_size_of_micro_batch_gets_a_first_pass(late_kernels, monkeypatch):
    trial = with_training(TRIAL, accumulation=3)  # of 8 sequences: 3, 3 and 2
    assembly = assemble(trial, prepare(trial.data), torch.device("cpu"))
    step = TrainingStep(assembly, assembly.enter(assembly.plan.stages[0]), Alone())
    sizes: list[int] = []
    backward = step._backward

    def noted(network: Any, piece: range, *arguments: Any, **options: Any) -> torch.Tensor:
        sizes.append(len(piece))
        return backward(network, piece, *arguments, **options)

    monkeypatch.setattr(step, "_backward", noted)
    assert not step.warm
    step.warm_up(8)
    assert step.warm
    assert sizes == [2, 3]
    assert all(parameter.grad is None for parameter in assembly.model.parameters())


@pytest.mark.parametrize("regime", ["classical", "depth_time"])
def test_first_passes_change_no_number(monkeypatch, regime, tmp_path):
    trial = with_training(with_model(n_layers=3, dropout=0.3), regime=regime, accumulation=2)
    plain = run(trial, tmp_path / "plain", keep_model=True)
    for module in ("step", "compiled"):
        monkeypatch.setattr(f"stackwise_ray.training.{module}.kernels_come_late", lambda device: True)
    before = torch.get_rng_state()
    warmed = run(trial, tmp_path / "warmed", keep_model=True)
    assert torch.get_rng_state().equal(before)
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("plain", "warmed")]
    assert weights[0] == weights[1]
    assert step_losses(plain[0]) == step_losses(warmed[0])
    counted = [name for name in plain[1].metrics if not name.startswith(("time/", "throughput/", "memory/process"))]
    assert {name: plain[1].metrics[name] for name in counted} == {name: warmed[1].metrics[name] for name in counted}
    assert warmed[1].metrics["time/compile_s"] > 0
    assert "time/compile_s" not in plain[1].metrics
