"""What every `analysis:` step gives the report: its findings, computed here in the order of the search-space file.

A step is one module of `analysis.steps` (or of a plugin): what it checks beforehand is `core.analysis_step`, what it
adds for the report is here. `summary` calls `answers_of`; the page, the terminal and the JSON files show what the
answers hold and know no step by name, but for comparisons, whose verdicts stand in the table of arms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from stackwise_ray.core.analysis_step import AnalysisStep
from stackwise_ray.core.errors import AnalysisError, ConfigError, PluginError
from stackwise_ray.core.plugins import ask_again, at_fault, origin
from stackwise_ray.core.registries import ANALYSES

from ..plain_json import dump_json
from ..plots.figures import draw_panels
from ..render import Grid
from ..table.sweep_directory import Sweep
from .html_page import to_html
from .page import Block, Page, Picture, Section, plain, to_markdown


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a step found, ready to be shown.

    Attributes:
        sentence: The answer in words.
        facts: Plain data for JSON.
        result: The step's own result, for programs.
        opening: What stands in its section above the figure; `blocks`: what stands below.
        draw: From the path of a PNG to the figure; None: it has none.
        grid: What a terminal shows above the sentence; None: nothing.
        believable: Whether every check was made and none speaks against it.
        records: Files of JSON below the report's folder, each with one record; empty: one file with `facts`.
    """

    sentence: str
    facts: Mapping[str, Any]
    result: Any = None
    opening: tuple[Block, ...] = ()
    blocks: tuple[Block, ...] = ()
    draw: Callable[[Path], Picture] | None = None
    grid: Grid | None = None
    believable: bool = True
    records: tuple[tuple[str, Mapping[str, Any]], ...] = ()


class ReportedStep(AnalysisStep, ABC):
    """A kind of declared analysis, with what the report shows of it.

    Attributes:
        title: Heading of its section; sections of one title are one section.
        figure: Name of its figure's file, without suffix; the second of a kind gets a number; None: its key.
        compares: Whether its results are `Comparison` or `SequentialComparison`, whose verdicts lead the report.
    """

    title: ClassVar[str]
    figure: ClassVar[str | None] = None
    compares: ClassVar[bool] = False

    @abstractmethod
    def compute(self, sweep: Sweep, options: Any) -> Finding:
        """The finding on the runs that have finished.

        Args:
            options: Of the step's own class, or whatever its `asked` gives.

        Raises:
            AnalysisError: The runs cannot answer it; the report says why.
        """

    def asked(self, sweep: Sweep, declared: list[Mapping[str, Any]]) -> list[Any]:
        """What the sweep asks of this step.

        Args:
            declared: The options of every entry of the file with this key, as plain data.

        Raises:
            ConfigError: The step was declared in another version, with options that it has no more.
        """
        known = {entry.name for entry in fields(self.options)}
        for plain_options in declared:
            if unknown := sorted(set(plain_options) - known):
                raise ConfigError(f"its options have changed: it has no {', '.join(unknown)} any more")
        return [self.options(**plain_options) for plain_options in declared]

    def called(self, options: Any) -> str:
        """What a sentence calls it where it is refused, e.g. "law 'chinchilla'"."""
        return self.title.lower()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A step of a sweep: what it found, or why it found nothing.

    Attributes:
        kind: Its key in `core.registries.ANALYSES`.
        figure: Name of its figure's file, without suffix.
        compares: As the step's own.
        unknown: Whether nobody here knows this key or its options, so that nothing could even be asked.
        failed: Whether the step itself went wrong; `refused` then says where and how.
    """

    kind: str
    title: str
    called: str
    figure: str
    compares: bool = False
    finding: Finding | None
    refused: str | None = None
    unknown: bool = False
    failed: bool = False

    @property
    def sentence(self) -> str:
        """What was found, or why nothing was."""
        if self.failed:
            return f"{self.called} could not be computed: {self.refused}"
        return f"No {self.called}: {self.refused}" if self.finding is None else self.finding.sentence

    def picture(self, folder: Path) -> Picture | None:
        """Its figure in `folder`, not drawn yet; None where it has none."""
        if self.finding is None or self.finding.draw is None:
            return None
        return self.finding.draw(folder / f"{self.figure}.png")

    def section(self, picture: Picture | None) -> Section:
        """What the page says of it."""
        if self.finding is None:
            return Section(self.title, (plain(self.sentence, warning=True),))
        drawn = () if picture is None else (picture,)
        return Section(self.title, (*self.finding.opening, *drawn, *self.finding.blocks))

    def records(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """Files of JSON below the report's folder, each with one record."""
        if self.finding is not None and self.finding.records:
            return self.finding.records
        return ((f"analyses/{self.kind}.json", self.to_dict()),) if self.finding is not None else ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found = None if self.finding is None else dict(self.finding.facts)
        return {"step": self.kind, "sentence": self.sentence, "refused": self.refused, "found": found}


def answers_of(sweep: Sweep) -> tuple[Answer, ...]:
    """The answers to everything that a sweep asks: what its file declares, in that order, then what suggests itself."""
    declared: dict[str, list[Mapping[str, Any]]] = {}
    for kind, options in sweep.analysis:
        declared.setdefault(kind, []).append(options)
    found: list[Answer] = []
    for kind in dict.fromkeys([*declared, *(comparison.step for comparison in sweep.questions.comparisons)]):
        try:
            step = _step(sweep, kind)
        except ConfigError as error:  # its plugin is not there
            found.append(_nothing(kind, str(error), unknown=True))
            continue
        try:
            with at_fault(ANALYSES, kind, "its `asked`"):
                asked = list(step.asked(sweep, declared.get(kind, [])))
        except PluginError as error:
            found.append(_nothing(kind, str(error), failed=True))
            continue
        except ConfigError as error:  # its plugin is another version
            found.append(_nothing(kind, str(error), unknown=True))
            continue
        except AnalysisError as error:
            found.append(_nothing(kind, str(error)))
            continue
        found += [_answer(sweep, kind, step, options, number) for number, options in enumerate(asked)]
    return tuple(found)


def _step(sweep: Sweep, kind: str) -> ReportedStep:
    """What answers entries of this key.

    Raises:
        ConfigError: Nobody has registered it; where the sweep was started with plugins, the message names them.
    """
    if kind not in ANALYSES:
        ask_again(sweep.meta.get("plugins") or (), str(sweep.directory))
    step: ReportedStep = ANALYSES.get(kind)
    return step


def _nothing(kind: str, why: str, *, unknown: bool = False, failed: bool = False) -> Answer:
    """The answer of a step of which nothing is known but its key."""
    return Answer(
        kind=kind, title=kind, called=kind, figure=kind, finding=None, refused=why, unknown=unknown, failed=failed
    )


def _answer(sweep: Sweep, kind: str, step: ReportedStep, options: Any, number: int) -> Answer:
    """What a step found; where a step of somebody else's goes wrong, that is its answer, and the others stand."""
    try:
        with at_fault(ANALYSES, kind, "its title, `figure`, `compares` or `called`"):
            answer = Answer(
                kind=kind,
                title=str(step.title),
                called=str(step.called(options)),
                figure=(step.figure or kind) + ("" if number == 0 else f"_{number + 1}"),
                compares=bool(step.compares),
                finding=None,
            )
        try:
            with at_fault(ANALYSES, kind, "its `compute`"):
                finding = step.compute(sweep, options)
        except AnalysisError as error:
            return replace(answer, refused=str(error))
        if not isinstance(finding, Finding):
            problem = f"its `compute` gives a {type(finding).__name__}; return a Finding"
            raise PluginError(f"{origin(ANALYSES, kind)}: {problem}")
        answer = replace(answer, finding=finding)
        if not ANALYSES.ours(kind):
            with at_fault(ANALYSES, kind, "what it found, when it is shown,"):
                _try_to_show(answer)
    except ConfigError as error:
        return _nothing(kind, str(error), failed=True)
    return answer


def _try_to_show(answer: Answer) -> None:
    """Everything that a report makes of a finding, made once where it can still be left out of the report."""
    assert answer.finding is not None
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        picture = answer.picture(folder)
        if picture is not None:
            draw_panels(picture.figure)
        page = Page(title="", head=(plain(answer.sentence),), sections=(answer.section(picture),))
        to_markdown(page, folder)
        to_html(page)
    for record in (answer.to_dict(), *(record for _, record in answer.records())):
        dump_json(record)
    if answer.finding.grid is not None:
        answer.finding.grid.to_rich()
