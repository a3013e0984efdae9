"""Sweeps that are killed at random moments end with the numbers of trials that nobody interrupted.

``pytest tests/integration/test_integration_chaos.py --kills 10`` is the long form.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.integration.sweep_processes import BASE, SweepProcess, results, results_alone, trials, wait_until

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
replicates: {{seeds: {{min: 3, max: 6, until: decided}}}}
tracking: {{keep_models: none}}
analysis:
  - compare: {{metric: validation/loss}}
"""

SEARCH = f"""{BASE}
    training.budget: {{steps: 40}}
    data.final_evaluation: fixed
name: chaos
design: {{kind: search}}
search:
  sampler: tpe
  trials: 8
  winners: 0
  space: {{training.lr: {{log_uniform: [1.0e-4, 1.0e-1]}}, training.gradient_clip: {{uniform: [0.5, 2.0]}}}}
tracking: {{keep_models: none}}
"""


def sweep_with_kills(file: Path, output: Path, kills: int, rng: random.Random) -> str:
    """Run the command again and again, killing driver and worker in turn at random moments, until it ends by itself.

    Returns what it said the last time.
    """
    done = 0
    while True:
        sweep = SweepProcess(file, output)
        if done < kills:
            wait_until(lambda s=sweep: s.workers(), sweep)
        while done < kills and sweep.running():
            time.sleep(rng.uniform(0.0, 4.0))
            workers = sweep.workers()
            if done % 2 and workers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    rng.choice(workers).kill()
                    done += 1
            elif sweep.running():
                sweep.kill()
                done += 1
                break
        if sweep.running():
            assert sweep.wait() == 0, sweep.text()
        if all(record.status == "finished" for record in trials(output / "chaos")) and done >= kills:
            code = sweep._process.poll()
            if code == 0:
                assert not sweep.leftovers()
                return sweep.text()
        done = max(done, kills if sweep._process.poll() == 0 else done)  # it was faster than the kills


def test_an_adaptive_sweep_that_is_killed_goes_on_until_it_has_decided_on_the_numbers_of_uninterrupted_trials(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    file, done = tmp_path / "chaos.yaml", tmp_path / "chaos"
    file.write_text(ADAPTIVE)
    said = sweep_with_kills(file, tmp_path, pytestconfig.getoption("--kills"), random.Random(7))
    found = results(done)
    assert found == results_alone(file, tmp_path / "alone", only=found)
    attempts = sum(record.attempts for record in trials(done))
    assert attempts > len(found), "no trial was interrupted: the kills came too late to show anything"

    n = Counter(arm for arm, _ in found)
    assert n["slow"] == 4  # seeds_possible at 0.05 / 2: a tenth of the learning rate is seen at once
    assert n["base"] == max(n["slow"], n["near"])
    assert "worse" in next(line for line in said.splitlines() if line.startswith(" slow "))
    assert "slow: decided at n = 4 of 4, with seed 3" in (done / "report/report.md").read_text()
    plan = json.loads((done / "plan.json").read_text())
    assert plan["seeds_possible"] == 4
    assert (plan["totals_least"]["trials"], plan["totals"]["trials"]) == (12, 18)


def test_a_search_that_is_killed_loses_doubles_and_repeats_no_trial(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    file = tmp_path / "chaos.yaml"
    file.write_text(SEARCH)
    sweep_with_kills(file, tmp_path, pytestconfig.getoption("--kills"), random.Random(3))
    records = trials(tmp_path / "chaos")
    assert Counter(record.status for record in records) == {"finished": 8}
    assert len({record.arm for record in records}) == 8
    assert len({str(record.parameters) for record in records}) == 8
    assert sorted(record.number for record in records) == list(range(8))
