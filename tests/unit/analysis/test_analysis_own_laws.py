"""A law of one's own: one registration, found by its name, held to the contract of laws; and a law of another value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from command_line import run

import analysis
from stackwise_ray.contracts import ContractError, contracts_of
from stackwise_ray.core.registries import BY_KIND, LAWS

PLUGIN = '''
import numpy as np
from analysis.scaling.laws import Law
from stackwise_ray.core.registries import LAWS


def terms(theta, x):
    """log of A exp(-(log x)^2 c): a parabola in the logarithm."""
    A, c = theta.T[:, :, None]
    return [(A - c * x[0], {0: 1.0, 1: -x[0]})]


LAWS.register("learning_rate_law")(
    Law(
        name="learning_rate_law",
        formula="A / warmup^c",
        parameters=("A", "c"),
        logs=frozenset({"A"}),
        columns=("warmup",),
        terms=terms,
        starts=lambda x, y: np.array([(np.median(y), c) for c in (0.0, 0.1, 0.5)]),
        bounds=lambda x, y: {"c": (-np.inf, np.inf)},
        scales=(("A", "c", 0),),
        coefficients=("A",),
        source="ours",
    )
)
'''


def test_a_plugin_brings_a_law_that_is_fitted_by_its_name(tmp_path, capsys):
    plugin, table = tmp_path / "my_law.py", tmp_path / "runs.csv"
    plugin.write_text(PLUGIN, encoding="utf-8")
    warmup = np.geomspace(10, 1e4, 12)
    loss = 3 * warmup**-0.07 * np.exp(0.001 * np.random.default_rng(0).normal(size=12))
    pd.DataFrame({"warmup": warmup, "loss": loss}).to_csv(table, index=False)
    try:
        words = ("fit", table, "--plugin", plugin, "--law", "learning_rate_law", "--bootstrap", 0)
        code, out, err = run(capsys, *words)
        assert (code, err) == (0, "")
        assert "loss = A / warmup^c holds on 12 runs" in " ".join(out.split())
    finally:
        if "learning_rate_law" in LAWS:
            LAWS.unregister("learning_rate_law")


def _wrong_slope(theta, x):
    A, alpha = theta.T[:, :, None]
    return [(A - alpha * x[0], {0: 1.0, 1: x[0]})]


GRADIENT, UNITS, STARTS = contracts_of("laws")


@pytest.mark.parametrize(
    ("contract", "changed", "said"),
    [
        (GRADIENT, {"terms": _wrong_slope}, "the derivative of term 0 by alpha is off by"),
        (UNITS, {"scales": ()}, "changes by .* with the units; name what changes in `scales`"),
        (STARTS, {"bounds": lambda x, y: {}}, "alpha has no entry in `bounds` and is no logarithm"),
        (STARTS, {"coefficients": ("A", "Q")}, "Q is no parameter of it"),
    ],
)
def test_a_law_that_breaks_its_contract_is_told_what_is_wrong(contract, changed, said):
    assert BY_KIND["laws"] is LAWS
    broken = replace(LAWS.get("power"), name="broken", **changed)
    with LAWS.registered("broken", broken), pytest.raises(ContractError, match=said):
        contract("broken")


def test_the_best_learning_rate_over_size_and_tokens_has_no_floor():
    rng = np.random.default_rng(1)
    params, tokens = (np.exp(part).ravel() for part in np.meshgrid(np.log([1e7, 1e8, 1e9]), np.log([1e9, 1e10, 1e11])))
    best = 1.8 * params**-0.71 * tokens**0.31 * np.exp(0.02 * rng.normal(size=9))
    table = pd.DataFrame({"params": params, "tokens": tokens, "loss": best})
    fit = analysis.fit_scaling_law(table, law="two_power", bootstrap=100, holdout=None)
    assert fit.parameters["alpha"] == pytest.approx(0.71, abs=0.03)
    assert fit.parameters["beta"] == pytest.approx(-0.31, abs=0.03)
    assert fit.sentence.split(" = ")[0].endswith("value")
    _, low, high = fit.predict(params=1e9, tokens=1e10)
    assert low < 1.8 * 1e9**-0.71 * 1e10**0.31 < high
