"""Sweeps that are killed at random moments end with the numbers of trials that nobody interrupted.

``pytest tests/integration/test_integration_chaos.py --kills 10`` is the long form.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tests.integration.our_lines import foreign, lines_of
from tests.integration.sweep_processes import BASE, SweepProcess, ended, results, results_alone, trials, wait_until
from tests.terminals import plain

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ADAPTIVE = f"""{BASE}
    training.budget: {{steps: 25}}
    data.final_evaluation: fixed
name: chaos
question: Which learning rate is better?
design:
  kind: arms
  arms:
    base: {{}}
    slow: {{training.lr: 1.0e-4}}
    near: {{training.lr: 1.1e-2}}
  baseline: base
replicates: {{seeds: {{min: 3, max: 5, until: decided}}}}
tracking: {{keep_models: none}}
analysis:
  - compare: {{metric: validation/loss}}
"""

SEARCH = f"""{BASE}
    training.budget: {{steps: 30}}
    data.final_evaluation: fixed
name: chaos
design: {{kind: search}}
search:
  sampler: tpe
  trials: 16
  winners: 0
  space: {{training.lr: {{log_uniform: [1.0e-4, 1.0e-1]}}, training.gradient_clip: {{uniform: [0.5, 2.0]}}}}
scheduler: {{kind: asha, grace: 0.34}}
tracking: {{keep_models: none}}
"""
RANDOM_POINTS = 10
"""Points that TPE draws at random before it has a model of them."""


def sweep_with_kills(
    file: Path, output: Path, moments: Sequence[int], rng: random.Random, *words: str, columns: int | None = None
) -> tuple[str, str]:
    """Run the command again and again; soon after each moment (a number of ended trials) kill a worker or the driver.

    The two take turns, so that the driver is the last. Returns what was shown before the first kill, and by the last
    command.
    """
    sweep, shown = SweepProcess(file, output, *words, columns=columns), ""
    for left, moment in zip(range(len(moments) - 1, -1, -1), moments, strict=True):
        wait_until(lambda s=sweep, least=moment: s.workers() and ended(output / "chaos") >= least, sweep)
        time.sleep(rng.uniform(0.0, 0.5))
        assert sweep.running(), f"it was faster than the kills:\n{sweep.text()}"
        shown = shown or sweep.text()
        if left % 2:
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):  # it has just ended
                rng.choice(sweep.workers()).kill()
        else:
            sweep.kill()
            sweep = SweepProcess(file, output, *words)
    assert sweep.wait() == 0, sweep.text()
    assert not sweep.leftovers()
    attempts = [record.attempts for record in trials(output / "chaos")]
    assert sum(attempts) > len(attempts), "no trial was interrupted: the kills show nothing"
    return shown, sweep.text()


def test_an_adaptive_sweep_that_is_killed_goes_on_until_it_has_decided_on_the_numbers_of_uninterrupted_trials(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    file, done, rng = tmp_path / "chaos.yaml", tmp_path / "chaos", random.Random(7)
    file.write_text(ADAPTIVE)
    moments = sorted(rng.sample(range(11), pytestconfig.getoption("--kills")))
    _, said = sweep_with_kills(file, tmp_path, moments, rng, "--max-concurrent", "1")
    found = results(done)
    assert found == results_alone(file, tmp_path / "alone", only=found)

    n = Counter(arm for arm, _ in found)
    assert n["slow"] == 4  # seeds_possible at 0.05 / 2: a tenth of the learning rate is seen at once
    assert n["base"] == max(n["slow"], n["near"])
    assert "worse" in next(line for line in said.splitlines() if line.startswith(" slow "))
    assert "slow: decided after 4 of 4 blocks, with seed 3" in (done / "report/report.md").read_text()
    plan = json.loads((done / "plan.json").read_text())
    assert plan["seeds_possible"] == 4
    assert (plan["totals_least"]["trials"], plan["totals"]["trials"]) == (12, 15)


def test_a_search_that_is_killed_loses_doubles_and_repeats_no_trial_and_shows_our_lines_alone(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Its driver dies when the points are drawn from a model; a terminal of 80 columns shows what it did before."""
    file, done, rng = tmp_path / "chaos.yaml", tmp_path / "chaos", random.Random(3)
    file.write_text(SEARCH)
    moments = [*sorted(rng.sample(range(1, RANDOM_POINTS), pytestconfig.getoption("--kills") - 1)), RANDOM_POINTS + 1]
    shown, _ = sweep_with_kills(file, tmp_path, moments, rng, columns=80)
    records = trials(done)
    assert {record.status for record in records} <= {"finished", "stopped"}
    assert len({record.arm for record in records}) == 16
    assert len({str(record.parameters) for record in records}) == 16
    assert sorted(record.number for record in records) == list(range(16))

    watched = plain(shown.encode())
    assert foreign(watched) == []
    assert max(map(len, lines_of(watched))) <= 80
    assert re.search(r"0/16 trials done · \d starting", watched)
    assert re.search(r"point-\d+ +\d+/30 ", watched)
    assert not re.search(r"point-\d+ +0/30", watched), "a trial that starts has no step"


def test_a_line_of_a_library_is_foreign() -> None:
    said = (
        "/x/site-packages/ray/tune.py:1: FutureWarning: gone\n(raylet) node died\n0/3 trials done · 1 starting · 2 s\n"
    )
    assert len(foreign(said)) == 2
