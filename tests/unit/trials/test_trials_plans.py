"""What a sweep's plan says and refuses before anything runs: limits, CPUs, GPUs, and whose speed its times are of."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import pytest
from rich.console import Console

import stackwise_ray as sw
from stackwise_ray.config.space.designs import expand
from stackwise_ray.core.calibration_store import Calibration, Sample
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.planning.calibration_key import calibration_key
from stackwise_ray.planning.demand import Demand
from stackwise_ray.planning.plan_display import plan_table
from stackwise_ray.planning.preparation import PreparedCorpora
from stackwise_ray.planning.sweep_plan import SweepPlan
from stackwise_ray.terminal import make_console
from stackwise_ray.trials.proposals import plan_sweep
from tests.unit.trials.test_trials_proposals import ARMS, SEARCH, TUNE, sweep


def plan(tmp_path: Path, text: str) -> SweepPlan:
    asked = sweep(tmp_path, text)
    return plan_sweep(asked, expand(asked), PreparedCorpora(make_console()))


def test_a_plan_above_the_limit_of_flops_is_refused(tmp_path: Path) -> None:
    assert plan(tmp_path, ARMS + "limits: {flops: 1e15}\n").trials == 6
    with pytest.raises(ConfigError, match=r"limits.flops.*is below the \S+ training FLOPs planned"):
        plan(tmp_path, ARMS + "limits: {flops: 1e9}\n")


def test_a_plan_refuses_the_grid_that_its_run_would_refuse(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a grid cannot try all of its values; write a list"):
        plan(tmp_path, SEARCH.replace("random", "grid"))


def test_a_plan_of_a_grid_counts_its_points(tmp_path: Path) -> None:
    text = SEARCH.replace("random", "grid").replace("{log_uniform: [1e-4, 1e-1]}", "[1e-3, 1e-2]")
    assert plan(tmp_path, text).row("point-1", "search").trials == 2


def test_a_plan_refuses_a_sampler_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # it is installed for the other tests
    with pytest.raises(ConfigError, match=r'not installed; pip install -e "\.\[cmaes\]"'):
        plan(tmp_path, SEARCH.replace("random", "cmaes"))


def test_a_plan_refuses_more_cpus_than_this_machine_has_unless_it_is_for_a_cluster(tmp_path: Path) -> None:
    asked = sweep(tmp_path, ARMS + "resources: {cpus_per_trial: 512}\n")
    with pytest.raises(ConfigError, match=r"resources.*512 CPUs.*this machine has \d+ CPUs"):
        sw.plan(asked)
    assert sw.plan(asked, address="ray://cluster:10001").trials == 6


def test_a_plan_divides_by_as_many_trials_at_once_as_the_command_allows(tmp_path: Path) -> None:
    asked = sweep(tmp_path, ARMS)
    assert sw.plan(asked, max_concurrent=1).slots == 1
    assert Demand.of(asked.resources, 1).max_concurrent == 1
    assert Demand.of(asked.resources).max_concurrent is None


def test_a_plan_for_gpus_that_are_not_there_says_where_the_sweep_can_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STACKWISE_GPUS", "0")
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "cache"))
    asked = sweep(tmp_path, ARMS + "resources: {gpus_per_trial: 1}\n")
    planned = sw.plan(asked)
    assert (planned.slots, planned.seconds, bool(planned.flops)) == (1, None, True)
    assert any(note.startswith("a trial needs 1 GPU, and this machine has none: times are") for note in planned.notes)
    assert {row.device for row in planned.rows} == {"cuda"}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(plan_table(planned))
    assert "not calibrated for a GPU: run python -m stackwise_ray.doctor on a machine that has one" in (
        console.export_text()
    )


def test_a_plan_names_the_gpu_of_another_machine_whose_speed_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("STACKWISE_GPUS", "0")
    monkeypatch.setattr("stackwise_ray.core.calibration_store.Calibration.gpus", lambda self: ("NVIDIA H200",))
    monkeypatch.setattr("stackwise_ray.core.calibration_store.Calibration.predict_seconds", lambda *a, **k: 60.0)
    said = "times on a GPU are those of another machine's NVIDIA H200"
    assert said in sw.plan(sweep(tmp_path, ARMS + "resources: {gpus_per_trial: 1}\n")).notes
    assert said not in sw.plan(sweep(tmp_path, ARMS)).notes


def test_a_plan_divides_by_the_trials_that_the_gpus_hold_and_not_by_cores_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stackwise_ray.planning.demand.usable_cores", lambda: 16)
    monkeypatch.setenv("STACKWISE_GPUS", "1")
    text = ARMS.replace("  overrides: {", "  overrides: {training.device: cpu, ")
    for gpus, slots in (("0", 16), ("1", 1), ("0.5", 2)):
        planned = sw.plan(sweep(tmp_path, text + f"resources: {{gpus_per_trial: {gpus}}}\n"))
        assert planned.slots == slots
        assert {row.device for row in planned.rows} == {"cpu"}, "what trains on the CPU is timed on the CPU"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["training_regimes_gpu", "bert_depth_time_vs_classical_gpu"])
def test_the_full_sizes_are_planned_for_a_cluster_by_a_machine_without_a_gpu(name: str, module_cache: Path) -> None:
    here = ["data=markov", "data.tokenizer=bytes", "model.n_layers=2", "training.budget={tokens: 2e7}"]
    planned = sw.plan(sw.load_sweep(name, overrides=here), address="ray://cluster:10001")
    assert not planned.refused
    assert planned.seconds is None  # no GPU of the cluster was measured here
    assert all(row.flops and row.steps and row.disk_bytes for row in planned.rows)
    arms = [arm.name for arm in expand(sw.load_sweep(name.removesuffix("_gpu"))).arms]
    assert [row.arm for row in planned.rows if row.role == "replicate"] == arms


def test_a_search_whose_every_trial_breaks_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"limits.flops = 1 is below"):
        plan(tmp_path, SEARCH + "limits: {flops: 1}\n")


def test_a_trial_falls_under_its_own_row_and_a_point_under_the_searchs(tmp_path: Path) -> None:
    arms, search = plan(tmp_path, ARMS + TUNE), plan(tmp_path, SEARCH)
    assert arms.row("b", "tuning").trials == 3
    assert search.row("point-4", "search").trials == 5
    assert search.row("point-4", "replicate").trials == 4
    with pytest.raises(KeyError):
        arms.row("elsewhere", "replicate")


def test_a_plan_for_a_share_of_a_gpu_does_not_take_the_speed_of_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # the name comes from what is stored
    monkeypatch.setenv("STACKWISE_GPUS", "1")
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "cache"))
    whole, share = (sweep(tmp_path, ARMS + f"resources: {{gpus_per_trial: {gpus}}}\n") for gpus in (1, 0.25))
    key = calibration_key(expand(whole).arms[0].trial, device="NVIDIA H200", threads=1, backend=None)
    Calibration().add(key, Sample(flops_per_step=1e9, flops_per_s=1e12, memory_ratio=1.0))
    assert all(row.seconds is not None and row.peak_bytes is not None for row in sw.plan(whole).rows)
    assert all(row.seconds is None and row.peak_bytes is None for row in sw.plan(share).rows)
