"""Every source answers every question that it can, as a plain table does: the table of docs/sources.md, made true.

Each source is written by the library that owns its format (`tests.foreign_sources`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic_sweeps import JournalBuilder

import analysis
from analysis.table.selection import rename_columns
from stackwise_ray.core.errors import AnalysisError
from tests import foreign_sources
from tests.foreign_sources import METRIC, Run, grid_runs, paired_runs, scored_runs
from tests.manual import ROOT, rows

pytestmark = pytest.mark.slow
PAIRED, GRID, SCORED = paired_runs(), grid_runs(), scored_runs()
DOCUMENTS = {
    name: {
        task: [float((number * step + shift) % 7 < 4) for number in range(30)]
        for task, shift in (("arc", 1), ("piqa", 2))
    }
    for name, step in (("adam", 3), ("muon", 5))
}


def sweep(folder: Path, runs: Sequence[Run]) -> str:
    """The journal of a sweep of this program."""
    journal = JournalBuilder(folder / "sweep")
    names = {"params": "model/params_non_embedding", "tokens": "tokens/total", "flops": "flops/total"}
    for number, run in enumerate(runs):
        sizes = {path: run[name] for name, path in names.items() if name in run}
        budget = {"flops": float(run.get("budget", 1e12))}
        journal.trial(
            run.get("arm", f"size_{number}"),
            run.get("seed", 0),
            {"validation/loss": run[METRIC], **sizes},
            budget=budget,
        )
    return str(journal.close())


WRITERS: Mapping[str, tuple[Callable[[Path, Sequence[Run]], str], str]] = {
    "pandas, CSV": (foreign_sources.csv, METRIC),
    "pandas, TSV": (foreign_sources.tsv, METRIC),
    "pandas, JSON lines": (foreign_sources.json_lines, METRIC),
    "pyarrow, Parquet": (foreign_sources.parquet, METRIC),
    "W&B, CSV": (foreign_sources.wandb_export, METRIC),
    "MLflow": (foreign_sources.mlflow, METRIC),
    "Optuna": (foreign_sources.optuna, "value"),
    "TensorBoard": (foreign_sources.tensorboard, METRIC),
    "transformers": (foreign_sources.trainer, "eval_loss"),
    "Hydra": (foreign_sources.hydra, METRIC),
    "a sweep": (sweep, "validation/loss"),
}


def compare(table: pd.DataFrame, metric: str) -> Any:
    found = analysis.compare(table, metric, "adam")["muon"]
    return found.difference, found.interval.low, found.interval.high, found.n, found.verdict


def sequential(table: pd.DataFrame, metric: str) -> Any:
    found = analysis.compare_sequentially(table, metric, "adam").verdicts["muon"]
    return found.decision, found.n, found.e_value


def fit(table: pd.DataFrame, metric: str) -> Any:
    return dict(analysis.fit_scaling_law(table, bootstrap=0).parameters)


def isoflop(table: pd.DataFrame, metric: str) -> Any:
    return dict(analysis.fit_isoflop(table, budgets="budget", bootstrap=0).exponents)


def rank(table: pd.DataFrame, metric: str) -> Any:
    return dict(analysis.rank(table, metric, direction="minimize").mean_ranks)


def aggregate(table: pd.DataFrame, metric: str) -> Any:
    found = analysis.aggregate(table, metric, bootstrap=200)
    return {arm: (one.estimate, one.low, one.high) for arm, one in found.items()}


QUESTIONS: Mapping[str, tuple[Callable[[pd.DataFrame, str], Any], Sequence[Run]]] = {
    "compare": (compare, PAIRED),
    "sequential": (sequential, PAIRED),
    "fit": (fit, GRID),
    "isoflop": (isoflop, GRID),
    "rank": (rank, SCORED),
    "aggregate": (aggregate, SCORED),
}
PROMISED = [
    (row.cells[0], question, word)
    for row in rows()
    if row.page == ROOT / "docs" / "sources.md" and row.header == "written by"
    for question, word in zip(QUESTIONS, row.cells[1:], strict=True)
]


@pytest.fixture(scope="module")
def table_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[pd.DataFrame, str]]:
    """The table that a question is asked of, read from a source, and the name of its metric; each is written once."""
    made: dict[tuple[str, int], tuple[str, str]] = {}
    places = {source: tmp_path_factory.mktemp("source") for source in WRITERS}

    def table(source: str, question: str) -> tuple[pd.DataFrame, str]:
        runs = QUESTIONS[question][1]
        writer, metric = WRITERS[source]
        if (source, id(runs)) not in made:
            folder = places[source] / question
            folder.mkdir()
            made[source, id(runs)] = (writer(folder, runs), metric)
        where, metric = made[source, id(runs)]
        renamed = question in ("fit", "isoflop") and source != "a sweep"
        return analysis.load_runs(where, columns={"loss": metric} if renamed else None), metric

    return table


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """The answers from the values themselves, with no source between."""
    found = {}
    for question, (ask, runs) in QUESTIONS.items():
        table = pd.DataFrame(runs)
        found[question] = ask(
            table.rename(columns={METRIC: "loss"}) if question in ("fit", "isoflop") else table, METRIC
        )
    return found


def close(found: Any, expected: Any) -> bool:
    """Whether two answers agree; numbers to a millionth."""
    if isinstance(expected, Mapping):
        return found.keys() == expected.keys() and all(close(found[key], expected[key]) for key in expected)
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(close, found, expected))
    return found == pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else found == expected


def test_the_page_promises_every_question_of_every_source() -> None:
    assert [source for source, question, _ in PROMISED if question == "fit"] == [
        *list(WRITERS)[:-1],
        "lm-evaluation-harness",
        "a sweep",
    ]


@pytest.mark.parametrize(
    ("source", "question"),
    [(source, question) for source, question, word in PROMISED if word == "yes" and source in WRITERS],
)
def test_a_source_answers_as_the_values_themselves_do(
    source: str, question: str, table_of: Callable[..., Any], expected: dict[str, Any]
) -> None:
    table, metric = table_of(source, question)
    found = QUESTIONS[question][0](table, metric)
    assert close(found, expected[question]), (found, expected[question])


@pytest.mark.parametrize(
    ("source", "question"),
    [(source, question) for source, question, word in PROMISED if word == "no" and source in WRITERS],
)
def test_a_source_without_the_columns_of_a_question_is_refused_with_their_name(
    source: str, question: str, table_of: Callable[..., Any]
) -> None:
    table, metric = table_of(source, question)
    with pytest.raises(AnalysisError, match="task"):
        QUESTIONS[question][0](table, metric)


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of results and samples of lm-evaluation-harness."""
    return foreign_sources.lm_eval(tmp_path_factory.mktemp("harness"), DOCUMENTS)


def test_lm_eval_answers_over_documents_and_over_tasks(harness: str) -> None:
    items = analysis.load_runs(f"{harness}#items")
    scores = {name: [score for task in tasks.values() for score in task] for name, tasks in DOCUMENTS.items()}
    found = analysis.compare(items, "acc", "adam", arm="model", block="item", direction="maximize")["muon"]
    assert found.n == 60
    assert found.difference == pytest.approx((sum(scores["muon"]) - sum(scores["adam"])) / 60)
    assert analysis.compare_sequentially(items, "acc", "adam", arm="model", block="item").verdicts
    tasks = analysis.load_runs(harness)
    assert len(tasks) == 4
    assert set(analysis.rank(tasks, "acc", arm="model", direction="maximize").mean_ranks) == {"adam", "muon"}
    means = analysis.aggregate(items, "acc", "mean", arm="model", seed="item", bootstrap=200)
    assert means["adam"].estimate == pytest.approx(sum(scores["adam"]) / 60)


def test_the_way_that_lm_eval_says_is_better_is_taken_from_it(harness: str) -> None:
    table = analysis.load_runs(harness)
    for name in ("acc_norm", "ours"):  # a name of which nothing is known, too
        runs = rename_columns(table, {name: "acc"}) if name == "ours" else table
        found = analysis.compare(runs, name, "adam", arm="model", block="task", equal=None)
        assert (found.direction, found.assumed) == ("maximize", False)
        ranked = analysis.rank(runs, name, arm="model")
        assert (ranked.direction, ranked.assumed) == ("maximize", False)


@pytest.mark.parametrize("name", ["value", "ours"])
def test_the_goal_of_a_study_decides_which_arm_is_better(tmp_path: Path, name: str) -> None:
    (tmp_path / "up").mkdir()
    table = analysis.load_runs(foreign_sources.optuna(tmp_path / "up", PAIRED, "maximize"), columns={name: "value"})
    found = analysis.compare(table, name, "adam", equal=None, arm="arm")
    assert (found.direction, found.assumed, found["muon"].verdict) == ("maximize", False, "worse")
    assert not analysis.compare_sequentially(table, name, "adam", equal=None).assumed


@pytest.mark.parametrize("ask", [fit, isoflop])
def test_lm_eval_has_no_columns_of_a_law(harness: str, ask: Callable[..., Any]) -> None:
    with pytest.raises(AnalysisError, match=r"column 'params'|'budget' is not a column"):
        ask(analysis.load_runs(harness), "acc")
