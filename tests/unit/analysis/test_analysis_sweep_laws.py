"""Laws that a sweep's file declares: fitted to its runs, in its report with their certificate, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from synthetic_laws import make_valleys
from synthetic_sweeps import JournalBuilder, final_metrics

from analysis import fit_isoflop, fit_scaling_law, summary_table, write_report
from analysis.report.compose import compose
from analysis.report.page import to_markdown
from analysis.report.pictures import pictures
from analysis.report.summary import Summary
from analysis.scaling import isoflop_valleys

BUDGETS = (1e12, 3e12, 1e13)


def write_study(folder: Path, *steps: dict[str, Any], sizes: int = 6, tokens: bool = True) -> Path:
    """Sizes at three budgets, two seeds each, along a known law with noise; without tokens no bias is computed."""
    builder = JournalBuilder(folder)
    table = make_valleys(BUDGETS, seeds=2, noise=0.003, sizes=sizes)
    for row in table.to_dict("records"):
        metrics = final_metrics(row["loss"], flops=row["flops"], tokens=row["tokens"])
        metrics |= {"model/params_non_embedding": row["params"], "model/params": row["params"] + 32_000}
        if not tokens:
            del metrics["tokens/total"]
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
def study(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """What the report of such a sweep says."""
    folder = tmp_path_factory.mktemp("laws") / "study"
    return write_report(write_study(folder, {"isoflop": {}}, {"scaling_law": {"law": "power", "holdout": None}}))


@pytest.mark.slow
def test_a_declared_law_stands_in_the_report_as_it_is_fitted_with_its_certificate(study: Summary) -> None:
    found, report = study, study.report.parent
    text = (report / "report.md").read_text(encoding="utf-8")
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
    assert f"**Answer.** {isoflop.sentence}" in text
    for name in ("isoflop", "scaling_law"):
        assert (report / "figures" / f"{name}.png").stat().st_size > 10_000
        assert f"(figures/{name}.png)" in text
    assert found.to_dict()["analyses"][1]["found"]["parameters"] == alone.parameters
    recorded = json.loads((report / "analyses/scaling_law.json").read_text(encoding="utf-8"))
    assert recorded["analyses"][0]["found"]["parameters"] == alone.parameters


def test_the_command_writes_and_prints_a_report_from_one_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, fits = write_study(tmp_path / "s", {"isoflop": {}}, sizes=5, tokens=False), []

    def counted(*arguments: Any, **options: Any) -> Any:
        fits.append(fit_isoflop(*arguments, **options))
        return fits[-1]

    monkeypatch.setattr(isoflop_valleys, "fit_isoflop", counted)  # counts; the fit itself runs
    _, out, _ = run(capsys, "report", folder, "--json")
    assert len(fits) == 1
    assert json.loads(out)["verdict"] == fits[0].sentence
    assert fits[0].sentence in (folder / "report/report.md").read_text(encoding="utf-8")


def test_the_comparisons_figure_is_on_the_first_page_where_the_file_declares_a_law_before_it(
    tmp_path: Path, journal: JournalBuilder
) -> None:
    for arm, factor in (("a", 1.0), ("b", 0.9)):
        for seed in range(6):
            loss = factor * 40 * (1e12 * 2.0**seed) ** -0.1 * (1 + 0.001 * (seed % 3))
            journal.trial(arm, seed, final_metrics(loss, flops=1e12 * 2.0**seed))
    law = {"scaling_law": {"law": "power", "holdout": None}}
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}, "analysis": [law, {"compare": {"baseline": "a"}}]})
    summary = summary_table(journal.close())
    assert [answer.kind for answer in summary.answers] == ["scaling_law", "compare"]
    drawn = pictures(summary, tmp_path / "figures")
    assert list(drawn.answers) == ["comparison_plots", "scaling_law"]
    assert drawn.leading is not None
    assert drawn.leading is drawn.answers["comparison_plots"]
    assert [figure.path.stem for figure in drawn.figures][:2] == ["comparison_plots", "scaling_law"]


def test_the_budget_of_each_run_is_its_nominal_one(study: Summary) -> None:
    runs = study.sweep.runs
    assert sorted(set(runs["budget"])) == list(BUDGETS)
    assert np.array_equal(runs["budget"], runs["flops"])


def test_a_law_that_the_runs_cannot_tell_is_refused_with_its_reason(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", {"scaling_law": {"law": "chinchilla"}}, {"isoflop": {}}, sizes=1)
    summary = summary_table(folder)
    text = to_markdown(compose(summary, pictures(summary, folder / "report/figures")), folder / "report")
    assert "loss_against_budgets.png" in text
    assert "No law 'chinchilla': too few runs: 6 for the 5 free parameters" in text
    assert "scaling_law.png" not in text
    assert f"budgets {', '.join(f'{budget:.4g}' for budget in BUDGETS)} refused: 1 model size; a valley needs" in text
