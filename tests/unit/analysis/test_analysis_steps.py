"""Declared analyses: one file brings one, from the search space to the report; what cannot be answered is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from synthetic_steps import DOCUMENT, BudgetTable, BudgetTableStep, write_sweep

from analysis import summary_table, write_report
from analysis.report.compose import compose
from analysis.report.page import to_markdown
from analysis.report.pictures import Pictures
from analysis.report.verification import verify_report
from analysis.table.sweep_directory import Sweep
from stackwise_ray.config.loading import sweep_from_plain
from stackwise_ray.config.space.sweep_config import sweep_to_plain
from stackwise_ray.core.analysis_step import StepOptions
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.registries import ANALYSES


@pytest.fixture
def budget_table() -> Iterator[None]:
    with ANALYSES.registered("budget_table", BudgetTableStep()):
        yield


@pytest.mark.usefixtures("budget_table")
def test_one_class_brings_an_analysis_from_the_search_space_to_the_report(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", {"budget_table": {"unit": "tokens"}})
    text = write_report(folder).report.with_suffix(".md").read_text(encoding="utf-8")
    sentence = "All arms together spent 8e+06 tokens."
    assert "## Budget table" in text
    assert text.count(sentence) == 2  # under the answer and in its section
    assert "4e+06" in text.partition("## Budget table")[2]
    assert summary_table(folder).to_dict()["analyses"][0]["found"] == {"a": 4e6, "b": 4e6}
    recorded = json.loads((folder / "report/analyses/budget_table.json").read_text(encoding="utf-8"))
    assert recorded["analyses"][0]["sentence"] == sentence
    assert verify_report(folder).differences == ()


@pytest.mark.usefixtures("budget_table")
@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"budget_table": {"unti": "tokens"}}, r"analysis\.0\.budget_table\.unti: unknown key; did you mean 'unit'"),
        ({"budget_table": {"unit": "steps"}}, r"analysis\.0\.budget_table\.unit = \"?steps\"? is unknown"),
        ({"budget_table": {"fewest": 99}}, r"analysis\.0\.budget_table\.fewest = 99 is more than the 3 seeds"),
        ({"budget_tabel": {}}, r"analysis\.0\.budget_tabel: is an unknown analysis; did you mean 'budget_table'"),
    ],
)
def test_its_options_and_its_check_are_asked_before_anything_runs(step: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        sweep_from_plain({**DOCUMENT, "analysis": [step]})


@pytest.mark.usefixtures("budget_table")
def test_options_are_stored_and_read_back_equal() -> None:
    sweep = sweep_from_plain({**DOCUMENT, "analysis": [{"budget_table": {"fewest": 2}}, {"compare": {}}]})
    assert sweep.steps[0].options == BudgetTable(fewest=2)
    assert sweep_from_plain(sweep_to_plain(sweep)) == sweep


def test_a_report_without_the_plugin_says_which_analysis_it_cannot_make(tmp_path: Path) -> None:
    with ANALYSES.registered("budget_table", BudgetTableStep()):
        folder = write_sweep(tmp_path / "s", {"budget_table": {}})
    text = to_markdown(compose(summary_table(folder), Pictures()), folder)
    assert "No budget_table: unknown analysis 'budget_table'" in text


def test_only_what_the_file_or_its_questions_ask_is_answered(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", {"compare": {}})
    with ANALYSES.registered("budget_table", UnaskedStep()):
        assert [answer.kind for answer in summary_table(folder).answers] == ["compare"]


class UnaskedStep(BudgetTableStep):
    """A step that would answer without being asked."""

    def asked(self, sweep: Sweep, declared: list[Mapping[str, Any]]) -> list[Any]:
        return [BudgetTable()]


@pytest.mark.parametrize("kind", ANALYSES.names())
def test_every_analysis_has_frozen_options_with_defaults_and_words(kind: str) -> None:
    step = ANALYSES.get(kind)
    assert issubclass(step.options, StepOptions)
    assert is_dataclass(step.options)
    options = step.options()
    with pytest.raises(FrozenInstanceError):
        options.anything = 1
    assert not step.options.__doc__.startswith(f"{step.options.__name__}("), "a dataclass writes that one itself"
    assert step.title
    assert {read.key for read in step.reads(options)} - {None} <= {entry.name for entry in fields(options)}
    with pytest.raises(ConfigError, match=rf"analysis\.0\.{kind}\.nobodys_option: unknown key"):
        sweep_from_plain({**DOCUMENT, "analysis": [{kind: {"nobodys_option": 1}}]})


def test_a_search_space_with_every_analysis_is_validated_without_pandas_and_matplotlib() -> None:
    program = (
        "import sys; from stackwise_ray.core.registries import ANALYSES; dict(ANALYSES.items()); "
        "print({'pandas', 'numpy', 'scipy', 'matplotlib', 'torch', 'ray'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": 0.5}, r"analysis\.0\.compare\.alpha = 0\.5 "),
        ({"tolerance": 1.0}, r"analysis\.0\.compare\.tolerance = 1\.0 "),
        ({"test": "sign_flip"}, r"compare\.test = sign_flip cannot decide anything with 3 seeds.*seeds to 6 or more"),
        ({"test": "wilcoxon", "margin": 0.1}, r"seeds to 5 or more"),
        ({"test": "wilcoxon", "alpha": 0.3, "correction": "bonferroni"}, None),
    ],
)
def test_a_comparison_that_no_run_could_answer_is_refused_before_anything_runs(
    options: dict[str, Any], words: str | None
) -> None:
    plain = {**DOCUMENT, "analysis": [{"compare": options}]}
    if words is None:
        assert sweep_from_plain(plain).steps
        return
    with pytest.raises(ConfigError, match=words):
        sweep_from_plain(plain)


def test_the_fewest_seeds_of_a_rank_test_grow_with_the_arms_that_share_its_level() -> None:
    arms = {name: {"training.lr": rate} for name, rate in zip("abcd", (1e-3, 2e-3, 3e-3, 4e-3), strict=True)}
    plain = {**DOCUMENT, "design": {**DOCUMENT["design"], "arms": arms}, "replicates": {"seeds": 6}}
    sweep_from_plain({**plain, "analysis": [{"compare": {"test": "sign_flip", "correction": "benjamini_hochberg"}}]})
    with pytest.raises(ConfigError, match=r"over 3 arms; set replicates\.seeds to 7 or more"):
        sweep_from_plain({**plain, "analysis": [{"compare": {"test": "sign_flip"}}]})
