"""The frontier of loss over FLOPs: by Pareto and by the hull, and draws of whole runs where rows are checkpoints."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
from command_line import run
from synthetic_laws import make_runs

import analysis
from analysis.scaling.frontier import _front
from stackwise_ray.core.errors import AnalysisError


@cache
def checkpoints() -> pd.DataFrame:
    """Ten runs with a dozen checkpoints each; the luck of a run is that of all its checkpoints."""
    rng, rows = np.random.default_rng(0), []
    for number, params in enumerate(np.geomspace(1e7, 1e10, 10)):
        luck = np.exp(0.01 * rng.normal())
        for tokens in np.geomspace(1e8, 3e11, 12):
            loss = (1.8 + 480 / params**0.35 + 2100 / tokens**0.37) * luck
            row = {"run_id": f"r{number}", "params": params, "tokens": tokens, "flops": 6 * params * tokens}
            rows.append({**row, "loss": loss})
    return pd.DataFrame(rows)


def test_the_hull_is_below_every_run_and_is_part_of_the_pareto_front():
    flops = np.geomspace(1, 1e4, 9)
    loss = np.exp(np.array([4.0, 3.5, 3.4, 2.0, 2.5, 1.9, 1.0, 0.96, 0.9]))
    pareto, hull = (_front(kind, flops, loss) for kind in ("pareto", "hull"))
    assert pareto.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert hull.tolist() == [0, 3, 6, 8]
    line = np.interp(np.log(flops), np.log(flops[hull]), np.log(loss[hull]))
    assert (np.log(loss) >= line - 1e-12).all()


def test_checkpoints_are_drawn_with_their_run_so_that_the_interval_is_wider():
    by_run = analysis.fit_frontier(checkpoints(), group="run_id", bootstrap=200)
    by_row = analysis.fit_frontier(checkpoints().drop(columns="run_id"), bootstrap=200)
    assert by_run.exponents == by_row.exponents
    widths = [np.ptp(fit.intervals["a"]) for fit in (by_run, by_row)]
    assert widths[0] > 1.2 * widths[1]
    assert "draws of 10 runs with all their checkpoints (column 'run_id')" in by_run.notes[0]


def test_the_frontier_is_a_command(tmp_path, capsys):
    path = tmp_path / "checkpoints.csv"
    checkpoints().to_csv(path, index=False)
    words = ("frontier", path, "--kind", "hull", "--group", "run_id", "--bootstrap", 100)
    code, out, _ = run(capsys, *words, "--allocate", 1e20)
    assert code == 0
    assert "runs on the lower convex hull of log-loss over log-flops" in " ".join(out.split())
    assert "1e+20 flops are best spent on" in out
    found = json.loads(run(capsys, *words, "--json")[1])
    assert found["kind"] == "hull"
    assert found["intervals"]["a"][0] < found["exponents"]["a"] < found["intervals"]["a"][1]


def test_the_title_and_the_notes_of_a_narrow_table_are_not_as_narrow(tmp_path, capsys):
    make_runs(n=20, noise=0.002).to_csv(tmp_path / "runs.csv", index=False)
    _, out, _ = run(capsys, "frontier", tmp_path / "runs.csv", "--bootstrap", 100)
    assert "Frontier: runs that no run of as few flops beats\n" in out
    assert [line for line in out.splitlines() if line != line.rstrip()] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "convex"}, "kind = 'convex' is not a frontier; choose pareto or hull"),
        ({"group": "run"}, "group = 'run' is not a column of the table; did you mean 'run_id'?"),
        ({"group": "run_id"}, "column 'run_id' is empty in 1 of 120 rows"),
    ],
)
def test_a_frontier_that_cannot_be_drawn_is_refused(options, message):
    table = checkpoints().copy()
    table.loc[3, "run_id"] = None
    with pytest.raises(AnalysisError) as refused:
        analysis.fit_frontier(table, bootstrap=0, **options)
    assert message in str(refused.value)
