"""Laws that a sweep's file declares: fitted to its runs, in its report with their certificate, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_laws import make_valleys
from synthetic_sweeps import JournalBuilder, final_metrics

from analysis import fit_isoflop, fit_scaling_law, summary_table, write_report

BUDGETS = (1e12, 3e12, 1e13)


def write_study(folder: Path, *steps: dict[str, Any], sizes: int = 6) -> Path:
    """Sizes at three budgets, two seeds each, along a known law with noise."""
    builder = JournalBuilder(folder)
    table = make_valleys(BUDGETS, seeds=2, noise=0.003, sizes=sizes)
    for row in table.to_dict("records"):
        metrics = final_metrics(row["loss"], flops=row["flops"], tokens=row["tokens"])
        metrics |= {"model/params_non_embedding": row["params"], "model/params": row["params"] + 32_000}
        arm = f"n{row['params']:.0f},flops={row['flops']:g}"
        builder.trial(arm, int(row["seed"]), metrics, budget={"flops": row["flops"]})
    builder.meta(
        sweep={
            "name": "study",
            "question": "How does the loss fall?",
            "design": {"kind": "isoflop", "flops": list(BUDGETS), "sizes": {}},
            "objective": [{"metric": "validation/loss", "direction": "minimize"}],
            "analysis": list(steps),
        }
    )
    return builder.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laws") / "study"
    write_study(folder, {"isoflop": {}}, {"scaling_law": {"law": "power", "holdout": None}})
    write_report(folder)
    return folder


@pytest.mark.slow
def test_a_declared_law_stands_in_the_report_as_it_is_fitted_with_its_certificate(study: Path) -> None:
    text = (study / "report/report.md").read_text(encoding="utf-8")
    found = summary_table(study)
    isoflop, power = (answer.finding.result for answer in found.answers)
    assert [answer.kind for answer in found.answers] == ["isoflop", "scaling_law"]
    assert isoflop == fit_isoflop(found.sweep.runs, budgets="budget")
    alone = fit_scaling_law(found.sweep.runs, law="power", holdout=None)
    assert power.parameters == alone.parameters
    assert power.intervals == alone.intervals
    assert "## Scaling laws" in text
    assert isoflop.sentence in text
    assert alone.sentence in text
    assert ("certificate: holds" in text) or ("certificate: DOES NOT HOLD" in text)
    assert found.verdict == isoflop.sentence
    assert f"**Verdict.** {isoflop.sentence}" in text
    for name in ("isoflop", "scaling_law"):
        assert (study / "report/figures" / f"{name}.png").stat().st_size > 10_000
        assert f"(figures/{name}.png)" in text
    assert found.to_dict()["analyses"][1]["found"]["parameters"] == alone.parameters
    recorded = json.loads((study / "report/analyses/scaling_law.json").read_text(encoding="utf-8"))
    assert recorded["analyses"][0]["found"]["parameters"] == alone.parameters


def test_the_same_runs_are_fitted_once_and_other_runs_again(study: Path, tmp_path: Path) -> None:
    first, second = summary_table(study).answers, summary_table(study).answers
    assert all(one.finding is other.finding for one, other in zip(first, second, strict=True))
    fewer = summary_table(write_study(tmp_path / "s", {"isoflop": {}}, sizes=5)).answers[0]
    assert fewer.finding is not None
    assert fewer.sentence != first[0].sentence


def test_the_budget_of_each_run_is_its_nominal_one(study: Path) -> None:
    runs = summary_table(study).sweep.runs
    assert sorted(set(runs["budget"])) == list(BUDGETS)
    assert np.array_equal(runs["budget"], runs["flops"])


def test_a_law_that_the_runs_cannot_tell_is_refused_with_its_reason(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", {"scaling_law": {"law": "chinchilla"}}, {"isoflop": {}}, sizes=1)
    text = write_report(folder).report.with_suffix(".md").read_text(encoding="utf-8")
    assert "No law 'chinchilla': too few runs: 6 for the 5 parameters" in text
    assert "scaling_law.png" not in text
    assert f"budgets {', '.join(f'{budget:.4g}' for budget in BUDGETS)} refused: 1 model size; a valley needs" in text
