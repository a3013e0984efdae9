"""A plugin's analysis that goes wrong: one message with its name and place, and no other answer is lost."""

from __future__ import annotations

import html
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console
from synthetic_steps import DOCUMENT, BudgetTableStep, raises, write_sweep
from synthetic_sweeps import JournalBuilder, final_metrics, train_nothing

from analysis import summary_table, write_report
from analysis.plots.figures import Panel, PanelFigure
from analysis.report.page import Picture
from analysis.report.reported_steps import Finding
from analysis.report.summary import Summary
from analysis.report.verification import verify_report
from stackwise_ray.config.loading import sweep_from_plain
from stackwise_ray.config.space.designs import expand
from stackwise_ray.core.analysis_step import MetricRead
from stackwise_ray.core.errors import AnalysisError, ConfigError
from stackwise_ray.core.registries import ANALYSES


class Own:
    """A comparison that a plugin's step gives: not options of ours, and its values are anything."""

    def __init__(self, **values: Any) -> None:
        own = {"metric": "validation/loss", "equal": "budget", "tolerance": 0.01, "alpha": 0.05, "correction": "holm"}
        vars(self).update({"baseline": None, "direction": None, "margin": None, "test": "t"} | own)
        vars(self).update({"target": None, "hypothesis": "different", "side": "both"} | values)


class Raising(Own):
    """One of which a value cannot be had."""

    @property
    def anything(self) -> float:
        raise ZeroDivisionError("no level")

    def __getattribute__(self, name: str) -> Any:
        return super().__getattribute__("anything" if name == "alpha" else name)


def _own(made: Any) -> dict[str, Any]:
    return {"comparison": lambda self, options: made}


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "reads raises": ({"reads": raises}, "its `reads` raises KeyError"),
    "reads gives text": ({"reads": lambda self, options: ("validation/loss",)}, "its `reads` gives 'validation/loss'"),
    "reads gives nothing": ({"reads": lambda self, options: None}, "its `reads` raises TypeError"),
    "comparison raises": ({"comparison": raises}, "its `comparison` raises KeyError"),
    "comparison is none": (
        {"comparison": lambda self, options: "loss"},
        "its `comparison` gives a str, and that lacks m",
    ),
    "comparison is raising": (_own(Raising()), "its `comparison` raises ZeroDivisionError"),
    "comparison of no metric": (_own(Own(metric=None)), "its `comparison` has metric = null is null; it must be text"),
    "comparison sideways": (_own(Own(direction="sideways")), 'its `comparison` has direction = "sideways" is unknown'),
    "comparison alpha": (
        _own(Own(alpha=0.7)),
        "its `comparison` has alpha = 0.7 is out of range; it must be below",
    ),
    "comparison alpha 2": (_own(Own(alpha=2)), "its `comparison` has alpha = 2 is out of range"),
    "comparison tolerance": (_own(Own(tolerance=3)), "its `comparison` has tolerance = 3 is out of range"),
    "comparison margin": (_own(Own(margin=-1.0)), "its `comparison` has margin = -1.0 is out of range"),
    "comparison test": (_own(Own(test="mixture_t")), 'its `comparison` has test = "mixture_t" is unknown'),
    "comparison equal": (_own(Own(equal="x")), 'its `comparison` has equal = "x" is unknown'),
    "comparison correction": (_own(Own(correction="x")), 'its `comparison` has correction = "x" is unknown'),
    "comparison baseline": (
        _own(Own(baseline=3)),
        "its `comparison` has baseline = 3 is a number; it must be text",
    ),
    "comparison nan": (_own(Own(alpha=float("nan"))), "its `comparison` has alpha = nan is not a finite number"),
    "reads no text": (
        {"reads": lambda self, o: (MetricRead(metric=cast(str, None), instead="x"),)},
        "its `reads` gives",
    ),
    "check raises": ({"check": raises}, "its `check` raises KeyError"),
}


@pytest.mark.parametrize("objective", [{}, {"objective": [{"metric": "validation/loss"}]}])
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_of_a_plugins_step_is_one_message_with_its_name_and_place(
    case: str, objective: dict[str, Any]
) -> None:
    methods, said = MISTAKES[case]
    step = type("Wrong", (BudgetTableStep,), methods)()
    with ANALYSES.registered("wrong", step), pytest.raises(ConfigError) as caught:
        sweep_from_plain({**DOCUMENT, **objective, "analysis": [{"wrong": {}}]}, source="a.yaml")
    assert str(caught.value).startswith(f"a.yaml: analysis.0.wrong: the analysis 'wrong': {said}")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"metric": "validation/lost"}, r"analysis\.0\.wrong\.metric = validation/lost is not a metric of any trial"),
        ({"baseline": "nobody"}, r"analysis\.0\.wrong\.baseline = nobody is not an arm; choose one of a, b"),
    ],
)
def test_the_comparison_of_a_plugins_step_is_on_a_metric_of_trials_against_an_arm(
    values: dict[str, Any], said: str
) -> None:
    document = {**DOCUMENT, "objective": [{"metric": "validation/loss"}], "analysis": [{"wrong": {}}]}
    step = type("Wrong", (BudgetTableStep,), _own(Own(**values)))()
    with ANALYSES.registered("wrong", step), pytest.raises(ConfigError, match=said):
        sweep_from_plain(document)
    with ANALYSES.registered("wrong", type("Right", (BudgetTableStep,), _own(Own(alpha=0.2)))()):
        sweep = sweep_from_plain(document)
        assert expand(sweep).questions.comparisons[0].alpha == 0.2


def test_why_a_plugins_step_refuses_a_search_is_text() -> None:
    search = {"design": {"kind": "search"}, "search": {"space": {"training.lr": {"log_uniform": [1e-4, 1e-3]}}}}
    step = type("Wrong", (BudgetTableStep,), {"refuses_search": 3})()
    said = r"analysis\.0\.wrong: the analysis 'wrong': its `refuses_search` is 3; give the reason"
    with ANALYSES.registered("wrong", step), pytest.raises(ConfigError, match=said):
        sweep_from_plain({**DOCUMENT, **search, "analysis": [{"wrong": {}}]})


def _finding(**parts: Any) -> Any:
    return lambda self, sweep, options: Finding(**{"sentence": "It is so.", "facts": {}, **parts})


def _unfinished_figure(path: Path) -> Picture:
    return Picture(title="t", figure=PanelFigure(path=path, panels=(Panel("p", lambda axes: axes.nothing()),)))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "compute raises": ({"compute": raises}, "its `compute` raises KeyError at line "),
    "compute gives no finding": ({"compute": lambda *_: 5}, "its `compute` gives a int; return a Finding"),
    "asked raises": ({"asked": raises}, "its `asked` raises KeyError at line "),
    "asked gives nothing": ({"asked": lambda *_: None}, "its `asked` raises TypeError"),
    "called raises": ({"called": raises}, "its title, `figure`, `compares` or `called` raises KeyError"),
    "draw raises": ({"compute": _finding(draw=raises)}, "what it found, when it is shown, raises TypeError"),
    "a panel raises": ({"compute": _finding(draw=_unfinished_figure)}, "raises AttributeError"),
    "facts are no data": ({"compute": _finding(facts={"x": object()})}, "raises TypeError"),
    "a block is text": ({"compute": _finding(blocks=("text",))}, "raises AttributeError"),
}


@pytest.fixture(scope="module")
def all_wrong(tmp_path_factory: pytest.TempPathFactory) -> tuple[Summary, str]:
    """The report of a sweep that declares every wrong step and a comparison, and what a terminal shows of it."""
    with ExitStack() as registered:
        for number, (methods, _) in enumerate(WRONG.values()):
            step = type("Wrong", (BudgetTableStep,), methods)()
            registered.enter_context(ANALYSES.registered(f"wrong_{number}", step))
        kinds = [{f"wrong_{number}": {}} for number in range(len(WRONG))]
        folder = write_sweep(tmp_path_factory.mktemp("wrong") / "s", *kinds, {"compare": {}})
        summary = write_report(folder)
        assert verify_report(folder).differences == ()
    console = Console(width=400, record=True, file=StringIO())
    console.print(summary)
    return summary, console.export_text()


@pytest.mark.parametrize("case", WRONG)
def test_a_plugins_step_that_goes_wrong_is_said_in_the_report_and_loses_no_other_answer(
    case: str, all_wrong: tuple[Summary, str]
) -> None:
    summary, printed = all_wrong
    number = list(WRONG).index(case)
    assert len(summary.failed) == len(WRONG)
    failed = summary.failed[number]
    said = f"wrong_{number} could not be computed: the analysis 'wrong_{number}': "
    assert failed.sentence.startswith(said)
    assert WRONG[case][1] in failed.sentence
    assert "\n" not in failed.sentence
    assert [comparison.metric for comparison in summary.comparisons] == ["validation/loss"]
    assert summary.verdict.startswith("It is undecided whether b reaches lower validation loss than a")
    text = summary.report.with_suffix(".md").read_text(encoding="utf-8")
    assert f"> **{failed.sentence}**" in text
    assert html.escape(failed.sentence) in summary.report.read_text(encoding="utf-8")
    assert summary.to_dict()["analyses"][number] == {
        "step": f"wrong_{number}",
        "sentence": failed.sentence,
        "refused": failed.refused,
        "found": None,
    }
    assert printed.count(failed.sentence) == 1


def test_where_all_that_was_asked_went_wrong_that_is_the_verdict_and_the_sweep_command_has_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stackwise_ray.sweep import run

    builder = JournalBuilder(tmp_path / "s")
    builder.trial("a", 0, final_metrics(3.0))
    builder.meta(sweep={"name": "s", "analysis": [{"wrong": {}}]})
    folder = builder.close()

    train_nothing(monkeypatch, folder)
    with ANALYSES.registered("wrong", type("Wrong", (BudgetTableStep,), {"compute": raises})()):
        result = run(sweep_from_plain(DOCUMENT), tmp_path)
    assert result.summary.verdict == result.summary.failed[0].sentence
    assert result.outcome.problems == ("wrong could not be computed; the report says why",)
    assert result.outcome.exit_code == 1


def test_what_a_step_refuses_when_it_is_asked_is_no_mistake_of_it(tmp_path: Path) -> None:
    def refuses(*_: Any) -> Any:
        raise AnalysisError("there are too few runs")

    with ANALYSES.registered("wrong", type("Wrong", (BudgetTableStep,), {"asked": refuses})()):
        summary = summary_table(write_sweep(tmp_path / "s", {"wrong": {}}))
    assert summary.failed == ()
    assert summary.others[0].sentence == "No wrong: there are too few runs"
