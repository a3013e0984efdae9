"""Runs that are far off are named above a result, stay in, and are left out on request."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import run

from analysis import compare, fit_isoflop, fit_scaling_law
from analysis.table.outlier_search import outliers_of_arms, outliers_of_grid
from analysis.table.outliers import leave_out, names_of_runs
from tests.foreign_sources import METRIC, grid_runs, paired_runs


def paired(far: float | None = 10.8) -> pd.DataFrame:
    """Two arms on five seeds; the fourth run of muon never learned."""
    table = pd.DataFrame(paired_runs())
    if far is not None:
        table.loc[(table["arm"] == "muon") & (table["seed"] == 3), METRIC] = far
    return table


def line(far: float | None = 10.8) -> pd.DataFrame:
    """Twelve runs on a power law of the FLOPs; one never learned."""
    flops = np.logspace(15, 20, 12)
    loss = 30 * flops**-0.05 * np.exp(np.random.default_rng(0).normal(0, 2e-3, 12))
    table = pd.DataFrame({"flops": flops, "loss": loss})
    if far is not None:
        table.loc[7, "loss"] = far
    return table


def grid(far: float | None = 10.8, row: int = 7) -> pd.DataFrame:
    """Four budgets of five sizes; one run never learned. Without tokens, so that no surface is fitted beside it."""
    table = pd.DataFrame(grid_runs()).rename(columns={METRIC: "loss"}).drop(columns="tokens")
    if far is not None:
        table.loc[row, "loss"] = far
    return table


def test_a_run_far_from_its_arm_is_named_and_still_counts() -> None:
    found = compare(paired(), METRIC, "adam")
    assert [item.run for item in found.outliers] == ["muon, seed 3"]
    assert found["muon"].n == 5
    first, second, *_ = found.grid.to_text().splitlines()
    assert first.startswith("1 of 10 runs is far off and still counts")
    assert second.startswith("  muon, seed 3: 10.8 is ")
    for text in (found.to_markdown(), found.to_latex(), found._repr_html_(), repr(found)):
        assert "robust standard deviations above" in text


def test_an_outlier_that_is_left_out_is_a_missing_block_of_its_arm() -> None:
    runs = paired()
    left = leave_out(runs, names_of_runs(runs, "arm", "seed"), compare(runs, METRIC, "adam").outliers)
    found = compare(left, METRIC, "adam")
    (lost,) = found.missing
    assert (found["muon"].n, lost.arm, lost.block) == (4, "muon", "3")
    assert "left out as asked" in lost.reason
    assert any("conditional on survival" in note for note in found["muon"].notes)


def test_runs_without_an_outlier_have_no_line_above() -> None:
    assert compare(paired(None), METRIC, "adam").outliers == ()
    assert compare(paired(None), METRIC, "adam").grid.above == ()
    assert fit_scaling_law(line(None), "power", bootstrap=0).outliers == ()
    assert fit_isoflop(grid(None), budgets="budget", bootstrap=0).outliers == ()


def test_a_run_below_its_arm_is_far_off_as_well() -> None:
    (found,) = compare(paired(0.2), METRIC, "adam").outliers
    assert found.deviations < -10
    assert "below the median of its arm" in str(found)


@pytest.mark.parametrize("values", [{"a": {"0": 1.0, "1": 9.0}}, {"a": {"0": 1.0, "1": 1.0, "2": 1.0, "3": 9.0}}])
def test_two_runs_or_runs_without_any_noise_have_no_outlier(values: dict[str, dict[str, float]]) -> None:
    assert outliers_of_arms(values, "seed") == ()


def test_normal_noise_has_an_outlier_in_fewer_than_one_of_a_hundred_comparisons() -> None:
    rng = np.random.default_rng(0)
    named = 0
    for _ in range(500):
        arms = {arm: {str(i): float(x) for i, x in enumerate(rng.normal(size=3))} for arm in "ab"}
        named += bool(outliers_of_arms(arms, "seed"))
    assert named < 10  # .3 % of 20,000 in a longer simulation: 1.5 of 500


@pytest.mark.parametrize("row", [0, 2, 7, 19])
def test_a_run_that_never_learned_misses_its_neighbours(row: int) -> None:
    table = grid(row=row)
    budgets = np.repeat(np.arange(4), 5)
    found = outliers_of_grid(
        list("abcdefghijklmnopqrst"), np.log(table["params"].to_numpy()), budgets, table["loss"].to_numpy()
    )
    assert [item.run for item in found] == ["abcdefghijklmnopqrst"[row]]


def named_of_grid(budgets: int, raised: dict[int, float], seeds: int = 1) -> list[str]:
    """Places that are named among eleven sizes, the same at every budget, whose losses differ by .3 between budgets."""
    rng = np.random.default_rng(0)
    number = np.arange(11 * budgets * seeds)
    size, budget = np.log(1e6) + 0.7 * (number // seeds % 11), number // (11 * seeds)
    y = 1.0 - 0.3 * budget + 0.001 * rng.standard_normal(number.size)
    for place, by in raised.items():
        y[place] += by
    return [one.run for one in outliers_of_grid([str(place) for place in number], size, budget, np.exp(y))]


def test_the_same_size_at_the_next_budget_is_a_neighbour():
    assert named_of_grid(3, {16: 0.1}) == []  # above its budget, and below the same size at the smaller one
    assert named_of_grid(3, {16: 0.5}) == ["16"]
    assert named_of_grid(1, {5: 0.1}) == ["5"]  # no other budget


def test_runs_of_one_size_are_neighbours():
    assert named_of_grid(1, {10: 0.1, 11: 0.1}, seeds=2) == []
    assert named_of_grid(1, {10: 0.1}, seeds=2) == ["10"]


def test_isoflop_and_a_law_name_the_run_that_never_learned_above_their_tables() -> None:
    for found in (fit_isoflop(grid(), budgets="budget", bootstrap=0), fit_scaling_law(line(), "power", bootstrap=0)):
        assert [item.run for item in found.outliers] == ["row 7"]
        assert "row 7: 10.8 is" in found.grid.to_text().splitlines()[1]
        assert found.to_dict()["outliers"][0]["value"] == 10.8


def test_the_steep_side_of_a_valley_is_no_outlier() -> None:
    sizes = np.tile(np.linspace(0, 4, 9), 3)
    budgets = np.repeat(np.arange(3), 9)
    curve = 3 + 0.02 * (sizes - 1.5 - budgets / 4) ** 2 + np.exp(2.5 * (sizes - 4))
    loss = curve * np.exp(np.random.default_rng(0).normal(0, 2e-3, sizes.size))
    assert outliers_of_grid([str(i) for i in range(27)], sizes, budgets, loss) == ()


@pytest.fixture
def asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str, pd.DataFrame], str]:
    """What a command on a table prints; FILE in the command is the table."""

    def go(command: str, table: pd.DataFrame) -> str:
        file = tmp_path / "runs.csv"
        table.to_csv(file, index=False)
        words = [str(file) if word == "FILE" else word for word in command.split()]
        code, out, err = run(capsys, *words)
        assert code == 0, err
        return out

    return go


def test_compare_leaves_outliers_out_on_request_and_says_so(asked: Callable[[str, pd.DataFrame], str]) -> None:
    words = "compare FILE --metric val_loss --baseline adam"
    assert "muon, seed 3: 10.8" in asked(words, paired()).split("paired t test")[0]
    without = json.loads(asked(f"{words} --drop-outliers --json", paired()))
    assert without["outliers"] == []
    assert without["arms"][0]["n"] == 4
    assert any("left out as asked" in item["why"] for item in without["exclusions"])
    assert without["arms"][0]["missing"][0]["block"] == "3"


def test_rows_without_arms_and_seeds_are_left_out_of_a_comparison_with_a_target(
    asked: Callable[[str, pd.DataFrame], str],
) -> None:
    found = json.loads(
        asked(
            "compare FILE --target 3.28 --drop-outliers --json", pd.DataFrame({"loss": [3.2, 3.21, 3.19, 10.8, 3.22]})
        )
    )
    assert (found["arms"][0]["n"], found["outliers"]) == (4, [])


@pytest.mark.parametrize(
    ("command", "table"), [("fit FILE --law power", line()), ("isoflop FILE --budgets budget", grid())]
)
def test_fit_and_isoflop_leave_outliers_out_on_request(
    command: str, table: pd.DataFrame, asked: Callable[[str, pd.DataFrame], str]
) -> None:
    found = json.loads(asked(f"{command} --bootstrap 0 --json --drop-outliers", table))
    assert found["outliers"] == []
    assert [item["by"] for item in found["exclusions"]] == ["outlier"]
