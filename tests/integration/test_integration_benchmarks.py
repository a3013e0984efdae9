"""The benchmark scripts run, at sizes that take a second, and say what they measured.

One process runs all, since torch loads for seconds.
"""

from __future__ import annotations

import importlib.util
import json
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers

from stackwise_ray import build_model
from stackwise_ray.config.loading import sweep_from_plain
from stackwise_ray.config.space.designs import expand
from stackwise_ray.models.counting import count_parameters
from tests.small_trials import run, with_model, with_training

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def script(name: str) -> ModuleType:
    """A benchmark as a module."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_decoding_measures_every_family_at_every_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--sizes", "tiny", "--contexts", "16", "8", "--steps", "4", "--rounds", "1"]
    files = ["--json", str(tmp_path / "d.json"), "--figure", str(tmp_path / "d.png")]
    threads, verbosity = torch.get_num_threads(), transformers.logging.get_verbosity()
    try:
        script("decoding").main([*words, *files])
    finally:
        torch.set_num_threads(threads)
        transformers.logging.set_verbosity(verbosity)
    found = json.loads((tmp_path / "d.json").read_text())
    kept = {(row["family"], row["context"]): row["cache_bytes"] for row in found["rows"]}
    # bk tiny: 4 layers of 8 heads of 1 + 8 complex128. llama tiny: keys and values of width 64 in float32, 4 layers.
    assert kept == {
        **{("bk", n): 4 * 8 * 9 * 16 for n in (8, 16)},
        **{("llama", n): n * 2 * 64 * 4 * 4 for n in (8, 16)},
    }
    assert all(row[name] > 0 for row in found["rows"] for name in ("step_s", "step_cpu_s", "generate_s"))
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "tiny bk: longest over shortest context" in printed
    assert "load average" in printed


def test_the_mixers_are_compared_at_equal_parameters_and_tokens() -> None:
    mixers = script("mixers")
    sweep = sweep_from_plain(mixers.design(1e6, 3))
    arms = {arm.name: arm.trial for arm in expand(sweep).arms}
    assert list(arms) == list(mixers.ARMS)
    sizes = {name: count_parameters(build_model(trial, vocab_size=259)).total for name, trial in arms.items()}
    assert all(abs(size / sizes["resolvent_apply"] - 1) < 0.02 for size in sizes.values()), sizes
    assert all(216_000 * 0.98 < size < 216_000 * 1.03 for size in sizes.values()), sizes
    assert {trial.training.budget.unit for trial in arms.values()} == {"tokens"}


@pytest.mark.slow
def test_mixers_writes_losses_differences_and_bars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mixers = script("mixers")
    for name in set(mixers.ARMS) - {"none", "attention", "resolvent_diagonal", "resolvent_apply"}:
        monkeypatch.delitem(mixers.ARMS, name)  # four arms are enough for what is written
    whole = mixers.design

    def small(tokens: float, seeds: int) -> dict[str, Any]:
        """The same sweep with fewer windows to score, which are most of so short a trial's time, and fewer to tune."""
        plain = whole(tokens, seeds)
        plain["base"]["overrides"] |= {"data.validation_tokens": 2048, "training.evaluations": 2}
        plain["tune"]["trials_per_arm"] = 1
        plain["resources"]["max_concurrent"] = 1  # one worker loads the libraries, not two
        return plain

    monkeypatch.setattr(mixers, "design", small)  # its own design, with less to score
    places = ["--output", str(tmp_path), "--results", str(tmp_path)]
    assert mixers.main(["--tokens", "5120", "--seeds", "2", *places]) == 0
    found = json.loads((tmp_path / "mixers.json").read_text())
    assert {arm: sorted(losses) for arm, losses in found["losses"].items()} == {arm: ["0", "1"] for arm in mixers.ARMS}
    for bar in found["bars"]:
        arm, against = (found["losses"][bar[name]] for name in ("arm", "against"))
        assert bar["difference"] == pytest.approx(sum(arm[seed] - against[seed] for seed in "01") / 2, abs=1e-9)
        assert bar["passed"] == (bar["difference"] < bar["at_most"])
    assert (tmp_path / "mixers.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "resolvent_apply − attention: " in printed
    assert "resolvent_diagonal − none: " in printed


def test_anytime_counts_what_it_looked_at_and_holds_the_bars_against_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anytime = script("anytime")
    words = ["--replays", "400", "--most", "60", "--results", str(tmp_path)]
    assert anytime.main(words) == 0
    found = json.loads((tmp_path / "anytime.json").read_text())
    for shares in (found["null"]["anytime"], found["null"]["plain_t"]):
        rising = [cell["share"] for cell in shares.values()]
        assert rising == sorted(rising)
        assert list(shares)[-1] == "60"
    assert found["null"]["plain_t"]["60"]["share"] > 0.25
    assert found["wrong_guesses"][0]["fixed"]["guessed 0.5 times the effect"]["seeds"] == 52
    assert (tmp_path / "anytime.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == (tmp_path / "anytime.md").read_text() + "\n"


def test_the_t_test_of_the_replays_is_that_of_scipy() -> None:
    import numpy as np
    import scipy.stats

    anytime = script("anytime")
    draws = np.random.default_rng(0).normal(0.3, 1.0, size=(40, 25))
    first = [
        next((n for n in range(2, 26) if scipy.stats.ttest_1samp(row[:n], 0.0).pvalue <= 0.05), 0) for row in draws
    ]
    assert anytime.plain_t(draws).tolist() == first
    assert 0 < sum(n == 0 for n in first) < 40


def test_scaling_laws_counts_coverage_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    laws = script("scaling_laws")
    work = tmp_path / "work.jsonl"
    words = ["--laws", "1", "--bootstraps", "100", "--work", str(work), "--results", str(tmp_path)]
    assert laws.main([*words, "--draws", "1"]) == 0
    kept = work.read_text()
    work.write_text(kept + '{"law": 0, "dr')  # ended in the middle of a line
    assert laws.main([*words, "--draws", "2"]) == 0
    assert work.read_text().startswith(kept)
    assert len(work.read_text().splitlines()) == 5  # two data sets, the broken line, the two that were missing
    found = json.loads((tmp_path / "scaling_laws.json").read_text())
    rows = {(row["n"], row["method"], row["parameter"]): row for row in found["coverage"]}
    assert set(rows) >= {(n, "percentile bootstrap", name) for n in (240, 30) for name in laws.NAMES}
    for row in rows.values():
        assert 0 <= row["low"] <= row["coverage"] <= row["high"] <= 1
        assert row["data_sets"] + row["not_identified"] == 2
    assert "| runs | interval | parameter |" in (tmp_path / "scaling_laws.md").read_text()
    assert "percentile bootstrap" in capsys.readouterr().out


def test_prediction_counts_the_runs_inside_in_every_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    prediction = script("prediction")
    work = tmp_path / "work.jsonl"
    words = ["--replays", "2", "--work", str(work), "--results", str(tmp_path)]
    assert prediction.main(words) == 0
    worlds = json.loads((tmp_path / "prediction.json").read_text())["worlds"]
    assert [(row["drift"], row["shared"]) for row in worlds] == list(product(prediction.DRIFTS, prediction.SHARED))
    assert all(row["replays"] == 2 and row["own_coverage"] <= row["coverage"] <= 1 for row in worlds)
    assert worlds[-1]["own_width"] > 2 * worlds[0]["own_width"]  # a drift of .01 is a misfit of several per cent
    rows = [json.loads(line)["found"] for line in work.read_text().splitlines()]
    assert all(row["factor"] >= 1 and row["runs"] == 6 for row in rows)
    assert "Runs of the largest budget inside" in capsys.readouterr().out


def test_replays_in_two_processes_are_those_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    replays, prediction = importlib.import_module("replays"), importlib.import_module("prediction")
    keys = [(number, 0.0, shared) for number in range(2) for shared in prediction.SHARED]
    one, two = (replays.replayed(prediction.replay, keys, tmp_path / str(jobs), jobs) for jobs in (1, 2))
    assert one == two
    assert (tmp_path / "1").read_text() == (tmp_path / "2").read_text()


def test_boundaries_counts_what_holds_and_draws_with_a_lower_optimum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    boundaries = script("boundaries")
    work = tmp_path / "work.jsonl"
    assert boundaries.main(["--replays", "1", "--work", str(work), "--results", str(tmp_path)]) == 0
    worlds = json.loads((tmp_path / "boundaries.json").read_text())["worlds"]
    assert [row["noise"] for row in worlds] == list(boundaries.NOISES)
    assert [row["redrawn"] for row in worlds] == [boundaries.REDRAWN] * 2
    found = [json.loads(line)["found"] for line in work.read_text().splitlines()]
    assert [row[name]["share"] for row in worlds for name in boundaries.COUNTED] == [
        float(row[name]) for row in found for name in boundaries.COUNTED
    ]
    assert worlds[0]["width"] < worlds[1]["width"]


def test_certificates_counts_the_failures_in_every_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    certificates = script("certificates")
    files = ["--work", str(tmp_path / "work.jsonl"), "--results", str(tmp_path)]
    assert certificates.main(["--laws", "1", "--sizes", "60", *files]) == 0
    found = json.loads((tmp_path / "certificates.json").read_text())["certificates"]
    rows = {row["world"]: row for row in found}
    assert list(rows) == list(certificates.WORLDS)
    assert rows["one line"]["not identified"] == rows["a broken end"]["hold-out"] == rows["a wave"]["residuals"] == 1
    assert rows["the law is true"]["fails"] == 0
    assert "| world | runs | certificate fails |" in (tmp_path / "certificates.md").read_text()


def test_isoflop_counts_errors_coverage_and_refusals_in_every_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    isoflop = script("isoflop")
    files = ["--work", str(tmp_path / "work.jsonl"), "--results", str(tmp_path)]
    assert isoflop.main(["--replays", "2", "--grids", "1", *files]) == 0
    worlds = json.loads((tmp_path / "isoflop.json").read_text())["worlds"]
    assert {(row["lost"], row["kind"]) for row in worlds} == {(lost, k) for lost in isoflop.LOST for k in isoflop.KINDS}
    for row in worlds:
        assert row["rms"]["ours"] < 0.006
        assert row["refused inside"] == 0
        assert row["rms"]["quadratic"] > 0.05 or row["lost"] == 0
    assert "| lost | grid | kind | ours |" in (tmp_path / "isoflop.md").read_text()


@pytest.mark.usefixtures("module_cache")
def test_sampling_shows_quality_against_block_passes_for_models_that_are_told_the_time_and_others(
    tmp_path: Path,
) -> None:
    sampling = script("sampling")
    for name, regime, time, ways in (("a", "depth_time", "depth", 5), ("b", "append", "input", 4)):
        told = {"time": time} if time == "input" else {}
        trial = with_training(with_model(family="bert", role="encoder", n_layers=2), regime=regime, **told)
        run(trial, tmp_path / name, keep_model=True)
        rows = sampling.measure(tmp_path / name, 4)
        assert [(row["way"], row["block_passes"]) for row in rows] == [
            *((f"{n} rounds", 2 * n) for n in (1, 2, 4, 8)),
            ("one sweep", 3),
        ][:ways]
        assert {(row["regime"], row["time"], row["masked"]) for row in rows} == {(regime, time, 0.95)}
        assert all(0 <= row["right"] <= 1 for row in rows)
