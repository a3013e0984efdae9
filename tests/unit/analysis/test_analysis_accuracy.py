"""The second step, from the loss to the accuracy on a task: a sigmoid with an interval over both steps."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from synthetic_laws import noisy_fit

import analysis
from stackwise_ray.core.errors import AnalysisError

TRUTH = {"low": 0.25, "high": 0.9, "middle": 2.6, "width": 0.25}


def accuracy_at(loss: np.ndarray) -> np.ndarray:
    return 0.25 + 0.65 / (1 + np.exp((loss - 2.6) / 0.25))


def runs(n: int = 30, noise: float = 0.01, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    loss = np.linspace(2.0, 3.8, n)
    return pd.DataFrame({"loss": loss, "accuracy": accuracy_at(loss) + noise * rng.normal(size=n)})


@cache
def fitted() -> analysis.AccuracyFit:
    return analysis.fit_accuracy(runs(), chance=0.25, bootstrap=100)


def test_the_sigmoid_is_found_and_its_intervals_hold_it():
    fit = fitted()
    assert fit.parameters == pytest.approx(TRUTH, abs=0.06)
    assert set(fit.intervals) == {"high", "middle", "width"}
    assert all(fit.intervals[name][0] < TRUTH[name] < fit.intervals[name][1] for name in fit.intervals)
    assert ("low", "0.25000", "fixed") in fit.grid.rows
    assert fit.sentence.startswith("accuracy rises from 0.25000 to 0.")


def test_the_residual_counts_the_parameters_that_were_fitted():
    table = runs(n=12)
    fit = analysis.fit_accuracy(table, chance=0.25, bootstrap=0)
    left = table["accuracy"] - fit.predict(table["loss"]).mean
    assert fit.residual == pytest.approx(np.sqrt((left**2).sum() / (12 - 3)))


def test_new_runs_lie_in_the_interval_of_their_loss():
    fresh = runs(n=300, seed=7)
    _, low, high = fitted().predict(fresh["loss"])
    assert 0.88 < ((low <= fresh["accuracy"]) & (fresh["accuracy"] <= high)).mean() < 0.99
    assert fitted().predict(1.0).label == "extrapolation by a factor of 2"


def test_the_accuracy_of_a_run_not_trained_has_the_doubt_of_both_steps():
    law = noisy_fit()
    mean, low, high = fitted().of_run(law, params=1e9, tokens=2e10)
    loss, *_ = law.predict(params=1e9, tokens=2e10)
    alone = fitted().predict(loss)
    assert mean == pytest.approx(alone.mean)
    assert low < alone.low < alone.high < high
    assert low < accuracy_at(1.8 + 480 / 1e9**0.35 + 2100 / 2e10**0.37) < high


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.assign(accuracy=100 * table["accuracy"]), "it looks like per cent; divide by 100"),
        (lambda table: table.assign(accuracy=1 - table["accuracy"]), "does not rise as the loss falls"),
        (lambda table: table.head(4), "too few runs: 4; a sigmoid of 4 free parameters needs 6"),
        (lambda table: table.rename(columns={"accuracy": "acc"}), "no column 'accuracy' in the table"),
        (lambda table: table.assign(accuracy=np.nan), "30 of 30 values are not finite numbers"),
        (lambda table: table.assign(accuracy=[f"{100 * a:.0f}%" for a in table["accuracy"]]), "write the share as a"),
        (lambda table: table.assign(state=["crashed", *["finished"] * 29]), "1 crashed among 30 runs (row 0)"),
    ],
)
def test_what_is_no_accuracy_is_refused(change, message):
    with pytest.raises(AnalysisError) as refused:
        analysis.fit_accuracy(change(runs()), bootstrap=0)
    assert message in str(refused.value)


def test_runs_that_were_left_out_are_counted_beside_the_sigmoid(tmp_path):
    path = tmp_path / "runs.csv"
    runs().assign(state=["crashed", *["finished"] * 29]).to_csv(path, index=False)
    fit = analysis.fit_accuracy(analysis.load_runs(path), chance=0.25, bootstrap=0)
    assert fit.n == 29
    assert "left out: 1 × crashed" in fit.notes
