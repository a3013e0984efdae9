"""Declared analyses: one file brings one, from the search space to the report; what cannot be answered is refused."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from rich.console import Console
from synthetic_sweeps import JournalBuilder, final_metrics

from analysis import summary_table, write_report
from analysis.plots.figures import Panel, PanelFigure
from analysis.render import Grid
from analysis.report.page import Picture, sentence_and_table
from analysis.report.reported_steps import Finding, ReportedStep
from analysis.report.summary import Summary
from analysis.report.verification import verify_report
from analysis.table.sweep_directory import Sweep
from stackwise_ray.config.loading import sweep_from_plain
from stackwise_ray.config.space.designs import expand
from stackwise_ray.config.space.sweep_config import sweep_to_plain
from stackwise_ray.core.analysis_step import MetricRead, PlannedSweep, StepOptions
from stackwise_ray.core.errors import AnalysisError, ConfigError
from stackwise_ray.core.registries import ANALYSES

DOCUMENT: dict[str, Any] = {
    "name": "cheap",
    "base": {"model": "decoder/gpt2_family/tiny", "data": "markov"},
    "design": {"kind": "arms", "arms": {"a": {}, "b": {"training.lr": 1e-3}}, "baseline": "a"},
}


@dataclass(frozen=True, kw_only=True)
class BudgetTable(StepOptions):
    unit: Literal["flops", "tokens"] = "flops"
    fewest: int = 1


class BudgetTableStep(ReportedStep):
    """What every arm spent, and nothing else: a whole analysis in one class."""

    options = BudgetTable
    title = "Budget table"

    def check(self, options: BudgetTable, planned: PlannedSweep) -> None:
        if planned.seeds < options.fewest:
            raise ConfigError(f"= {options.fewest} is more than the {planned.seeds} seeds; lower it", path="fewest")

    def compute(self, sweep: Sweep, options: BudgetTable) -> Finding:
        spent = sweep.runs.groupby("arm")[options.unit].sum().to_dict()
        grid = Grid(("arm", options.unit), tuple((arm, f"{value:.3g}") for arm, value in spent.items()))
        sentence = f"All arms together spent {sum(spent.values()):.3g} {options.unit}."
        opening, blocks = sentence_and_table(sentence, grid)
        return Finding(sentence=sentence, facts=spent, opening=opening, blocks=blocks, grid=grid)


def _raises(self: Any, options: Any, *_: Any) -> Any:
    return {}["nothing"]


class Own:
    """A comparison that a plugin's step gives: not options of ours, and its values are anything."""

    def __init__(self, **values: Any) -> None:
        own = {"metric": "validation/loss", "equal": "budget", "tolerance": 0.01, "alpha": 0.05, "correction": "holm"}
        vars(self).update({"baseline": None, "direction": None, "margin": None, "test": "t"} | own | values)


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
    "reads raises": ({"reads": _raises}, "its `reads` raises KeyError"),
    "reads gives text": ({"reads": lambda self, options: ("validation/loss",)}, "its `reads` gives 'validation/loss'"),
    "reads gives nothing": ({"reads": lambda self, options: None}, "its `reads` raises TypeError"),
    "comparison raises": ({"comparison": _raises}, "its `comparison` raises KeyError"),
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
    "check raises": ({"check": _raises}, "its `check` raises KeyError"),
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


@pytest.fixture
def budget_table() -> Iterator[None]:
    with ANALYSES.registered("budget_table", BudgetTableStep()):
        yield


def write_sweep(folder: Path, *analysis: dict[str, Any]) -> Path:
    """Two arms of two seeds, journaled with the file that declares these analyses."""
    sweep = sweep_from_plain({**DOCUMENT, "analysis": list(analysis)})
    builder = JournalBuilder(folder)
    for arm, shift in (("a", 0.0), ("b", 0.1)):
        for seed in (0, 1):
            builder.trial(arm, seed, final_metrics(3.0 + shift + 0.01 * seed, flops=1e9, tokens=2e6))
    builder.meta(sweep=json.loads(json.dumps(sweep_to_plain(sweep))))
    return builder.close()


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
    text = write_report(folder).report.with_suffix(".md").read_text(encoding="utf-8")
    assert "No budget_table: unknown analysis 'budget_table'" in text


def test_only_what_the_file_or_its_questions_ask_is_answered(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", {"compare": {}})
    with ANALYSES.registered("budget_table", UnaskedStep()):
        assert [answer.kind for answer in summary_table(folder).answers] == ["compare"]


def _finding(**parts: Any) -> Any:
    return lambda self, sweep, options: Finding(**{"sentence": "It is so.", "facts": {}, **parts})


def _unfinished_figure(path: Path) -> Picture:
    return Picture(title="t", figure=PanelFigure(path=path, panels=(Panel("p", lambda axes: axes.nothing()),)))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "compute raises": ({"compute": _raises}, "its `compute` raises KeyError at line "),
    "compute gives no finding": ({"compute": lambda *_: 5}, "its `compute` gives a int; return a Finding"),
    "asked raises": ({"asked": _raises}, "its `asked` raises KeyError at line "),
    "asked gives nothing": ({"asked": lambda *_: None}, "its `asked` raises TypeError"),
    "called raises": ({"called": _raises}, "its title, `figure`, `compares` or `called` raises KeyError"),
    "draw raises": ({"compute": _finding(draw=_raises)}, "what it found, when it is shown, raises TypeError"),
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
    from stackwise_ray.distributed import driver
    from stackwise_ray.sweep import run

    builder = JournalBuilder(tmp_path / "s")
    builder.trial("a", 0, final_metrics(3.0))
    builder.meta(sweep={"name": "s", "analysis": [{"wrong": {}}]})
    folder = builder.close()

    def ran(*words: Any) -> driver.SweepOutcome:
        return driver.SweepOutcome(directory=folder, trials=(), failed=(), report=words[-1].report(folder))

    monkeypatch.setattr(driver, "run_sweep", ran)  # nothing is trained; the report and the command are the real ones
    with ANALYSES.registered("wrong", type("Wrong", (BudgetTableStep,), {"compute": _raises})()):
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


class UnaskedStep(BudgetTableStep):
    """A step that would answer without being asked."""

    def asked(self, sweep: Sweep, declared: list[Mapping[str, Any]]) -> list[Any]:
        return [BudgetTable()]


PLUGIN = """
from dataclasses import dataclass
from analysis.report.reported_steps import Finding, ReportedStep
from analysis.report.summary import Summary
from stackwise_ray.core.analysis_step import StepOptions
from stackwise_ray.core.registries import ANALYSES

@dataclass(frozen=True, kw_only=True)
class Counted(StepOptions):
    "None."

class CountedStep(ReportedStep):
    options = Counted
    title = "Counted"
    def compute(self, sweep, options):
        return Finding(sentence=f"{len(sweep.runs)} runs were counted.", facts={"runs": len(sweep.runs)})

ANALYSES.register("counted")(CountedStep())
"""


def analysis_command(*words: object) -> tuple[int, str]:
    """Exit code and what `python -m analysis` prints on both channels."""
    done = subprocess.run([sys.executable, "-m", "analysis", *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_a_sweep_with_a_plugins_analysis_is_reported_and_verified_with_the_plugin_and_asks_for_it_without(
    tmp_path: Path,
) -> None:
    plugin = tmp_path / "counting.py"
    plugin.write_text(PLUGIN)
    builder = JournalBuilder(tmp_path / "s")
    builder.trial("a", 0, final_metrics(3.0))
    record = {"name": "counting.py", "file": str(plugin), "sha256": sha256(PLUGIN.encode()).hexdigest()}
    builder.meta(sweep={"name": "s", "analysis": [{"counted": {}}]}, plugins=[record])
    folder = builder.close()
    code, shown = analysis_command("report", folder, "--plugin", plugin)
    assert (code, "1 runs were counted." in shown) == (0, True)
    assert analysis_command("verify", folder, "--plugin", plugin)[0] == 0
    code, shown = analysis_command("verify", folder)
    assert code == 2
    assert f"add --plugin {plugin} to this command" in shown
    code, shown = analysis_command("report", folder)
    assert code == 0
    assert f"add --plugin {plugin} to this command" in shown.replace("\n", "")
    code, shown = analysis_command("report", folder, "--plugin", tmp_path / "nowhere.py")
    assert code == 2
    assert shown.startswith("error: --plugin = ")


def test_the_report_command_ends_with_code_one_where_a_plugins_analysis_went_wrong_and_names_its_file(
    tmp_path: Path,
) -> None:
    plugin = tmp_path / "counting.py"
    plugin.write_text(PLUGIN.replace("return Finding", "raise ValueError('nothing\\nto count'); return Finding"))
    line = plugin.read_text().partition("raise ValueError")[0].count("\n") + 1
    builder = JournalBuilder(tmp_path / "s")
    builder.trial("a", 0, final_metrics(3.0))
    builder.meta(sweep={"name": "s", "analysis": [{"counted": {}}]})
    code, shown = analysis_command("report", builder.close(), "--plugin", plugin)
    said = " ".join(shown.split())
    assert code == 1
    assert f"counted could not be computed: the analysis 'counted' of the plugin {plugin}: its `compute`" in said
    assert f"ValueError at line {line} of {plugin}: nothing to count" in said
    assert (tmp_path / "s/report/report.html").is_file()


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
