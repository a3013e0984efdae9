"""Whole pages and whole answers of the commands, word by word and number by number."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import run
from synthetic_laws import make_runs, make_valleys
from synthetic_sweeps import JournalBuilder, write_ablation
from test_analysis_adaptive import write_adaptive
from test_analysis_direction import write_speeds
from test_analysis_first_page import printed
from test_analysis_report import write_search
from test_analysis_report_page import composed, write_encoders, write_flags

from analysis.report.html_page import to_html
from analysis.report.page import to_markdown
from tests.golden import Golden

FORMS = {"text": (), "markdown": ("--markdown",), "latex": ("--latex",), "json": ("--json",)}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of made-up runs: three arms over eight seeds, four arms over five tasks, items, a law, valleys."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.RandomState(5)
    rows = []
    for arm, mean in {"base": 2.0, "close": 1.99, "better": 1.8, "worse": 2.3}.items():
        for seed in range(8):
            loss = mean + 0.03 * np.sin(seed) + 0.01 * rng.randn()
            rows.append(
                {"arm": arm, "seed": seed, "loss": round(loss, 4), "flops": 1e12, "accuracy": round(1 / loss, 4)}
            )
    runs = pd.DataFrame(rows)
    runs.drop(index=[9]).to_csv(folder / "runs.csv", index=False)
    rows = [
        {"arm": arm, "task": task, "seed": seed, "score": round(level * (1 + number / 9) + 0.02 * rng.randn(), 4)}
        for number, task in enumerate(("cola", "sst2", "mrpc", "qqp", "rte", "wnli"))
        for arm, level in {"a": 0.5, "b": 0.55, "c": 0.61}.items()
        for seed in range(3)
    ]
    pd.DataFrame(rows).to_csv(folder / "tasks.csv", index=False)
    answers = [
        {"arm": arm, "item": item, "correct": int(np.sin(item) + 0.3 * np.cos(3 * item * (arm == "b")) > level)}
        for arm, level in {"a": 0.2, "b": -0.1}.items()
        for item in range(120)
    ]
    pd.DataFrame(answers).to_csv(folder / "answers.csv", index=False)
    make_runs(n=36, noise=0.002).to_csv(folder / "law.csv", index=False)
    make_valleys(seeds=1).to_csv(folder / "valleys.csv", index=False)
    return folder


COMPARE = ("compare", "runs.csv", "--metric", "loss", "--baseline", "base")
FIT = ("fit", "law.csv", "--bootstrap", "100")
COMMANDS = {
    "compare": (*COMPARE, "--margin", "0.02", "--equal", "flops"),
    "compare by signs": (*COMPARE, "--test", "sign_flip", "--correction", "benjamini_hochberg"),
    "compare by ranks": (*COMPARE, "--test", "wilcoxon", "--correction", "none", "--equal", "none"),
    "compare maximised": (
        "compare",
        "runs.csv",
        "--metric",
        "accuracy",
        "--baseline",
        "base",
        "--direction",
        "maximize",
    ),
    "compare non inferior": (*COMPARE, "--hypothesis", "non_inferior", "--margin", "0.02"),
    "compare target": ("compare", "runs.csv", "--metric", "loss", "--target", "1.99", "--side", "better"),
    "sequential non inferior": ("sequential", *COMPARE[1:], "--hypothesis", "non_inferior", "--margin", "0.02"),
    "items": ("items", "answers.csv", "--baseline", "a"),
    "power non inferior": ("power", "--sd", "0.8", "--hypothesis", "non_inferior", "--margin", "0.5", "--n", "12"),
    "sequential": ("sequential", "runs.csv", "--metric", "loss", "--baseline", "base", "--equal", "flops"),
    "rank": ("rank", "tasks.csv", "--metric", "score", "--direction", "maximize"),
    "aggregate": ("aggregate", "tasks.csv"),
    "aggregate the gap": ("aggregate", "tasks.csv", "--statistic", "optimality_gap", "--target", "0.9"),
    "hierarchical": ("hierarchical", "tasks.csv", "--level", "seed", "--item", "task", "--baseline", "a"),
    "power": ("power", "--sd", "0.8", "--effect", "0.5", "--n", "12", "--sequential"),
    "fit": (*FIT, "--allocate", "1e22"),
    "fit power_offset": (*FIT, "--law", "power_offset", "--loss", "gaussian_log", "--drop-highest", "2"),
    "isoflop": ("isoflop", "valleys.csv", "--bootstrap", "100", "--allocate", "1e21"),
}
SLOW = ("fit", "isoflop")
BOTH = [
    (name, form)
    for name in COMMANDS
    for form in FORMS
    if form in ("text", "json") or not (" " in name or name.startswith(SLOW))
]


@pytest.mark.parametrize(("name", "form"), BOTH)
def test_a_command_answers_as_on_file(
    name: str,
    form: str,
    tables: Path,
    golden: Golden,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tables)
    monkeypatch.setenv("COLUMNS", "100")
    code, out, err = run(capsys, *COMMANDS[name], *FORMS[form])
    assert code == 0, err
    file = f"analysis/{name.replace(' ', '_')}.{form}"
    if form == "json":
        golden.check_json(file, json.loads(out))
    else:
        golden.check(file, out, digits=4 if name.startswith(SLOW) else None)


def write_search_of_rates(folder: Path) -> Path:
    return write_search(JournalBuilder(folder), points=6)


SWEEPS: dict[str, Callable[[Path], Path]] = {
    "comparison": write_ablation,
    "search": write_search_of_rates,
    "adaptive": write_adaptive,
    "encoders": lambda folder: write_encoders(JournalBuilder(folder)),
    "flags": lambda folder: write_flags(JournalBuilder(folder)),
    "two goals": write_speeds,
}


@pytest.mark.parametrize("name", SWEEPS)
def test_the_report_of_a_sweep_is_as_on_file(name: str, golden: Golden, tmp_path: Path) -> None:
    folder = SWEEPS[name](tmp_path / "sweep")
    text = to_markdown(composed(folder), folder / "report")
    golden.check(f"report/{name.replace(' ', '_')}.md", text.replace(str(tmp_path), "FOLDER"))


@pytest.mark.parametrize("name", ["comparison", "search"])
def test_the_page_of_a_sweep_with_its_links_is_as_on_file(name: str, golden: Golden, tmp_path: Path) -> None:
    page = to_html(composed(SWEEPS[name](tmp_path / "sweep")))
    body = page.split("<body>")[1].replace(str(tmp_path), "FOLDER")
    golden.check(f"report/{name}.html", re.sub(r"(</(?:tr|p|li|h\d|table|section)>)(?=.)", r"\1\n", body))


@pytest.mark.parametrize("name", SWEEPS)
def test_what_the_terminal_says_after_a_sweep_is_as_on_file(name: str, golden: Golden, tmp_path: Path) -> None:
    golden.check(f"report/{name.replace(' ', '_')}.terminal", printed(SWEEPS[name](tmp_path / "sweep")))
