"""The answer of a sweep in short: what its first page, the terminal, JSON and notebooks say, from one source of words.

Called by the sweep command and `python -m analysis report` (which print it), by `compose` and by `verification`. Values
are means over an arm's finished runs of what the runs recorded; what no run recorded is None and prints as "not
measured".
"""

from __future__ import annotations

import functools
import html
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..anytime.verdict import SequentialComparison
from ..paired.answer_words import AnsweredView, Phrase
from ..paired.comparison import Comparison
from ..render import Grid, bullets, printed_lines
from ..table.runs import load_curves
from ..table.sweep_directory import Sweep, read_sweep
from .arm_summary import ArmSummary, summarise_arm
from .leading_answer import failure, sweep_answer
from .limits import Limit, limits_of
from .plan_against_run import planned_trials
from .reported_steps import Answer, answers_of
from .setup_words import MANY_ARMS, Fact, differences, setup_facts
from .spending import cost_facts
from .summary_grids import MOST_SEARCH_ROWS, cost_grid, search_grid, verdict_grid

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

ON_THE_WAY = ("train/loss", "validation/loss", "validation/perplexity", "throughput/tokens_per_s")
"""Metrics whose curves stand in the JSON file of an arm."""
MASKED_LOSS = "validation/masked_loss"
"""What encoders that mask differently are compared by."""
_SHOWN_LIMITS = 3
"""Weak points on a terminal; the report has all."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Summary:
    """What a sweep found.

    Attributes:
        metric: The metric of `ArmSummary.mean`.
        answers: What the steps that the file declares found, or why they found nothing.
        declared: Whether the file declares a comparison; else one may suggest itself.
        error: Why there is no result at all, said before everything else; None where some trial gave a number.
        warnings: What must be said above the answer.
    """

    sweep: Sweep
    metric: str
    arms: tuple[ArmSummary, ...]
    answers: tuple[Answer, ...]
    declared: bool
    error: str | None
    warnings: tuple[str, ...]

    @property
    def report(self) -> Path:
        """Where `report.html` of this sweep lies, once it is written."""
        return self.sweep.directory / "report" / "report.html"

    @functools.cached_property
    def curves(self) -> pd.DataFrame:
        """What the finished replicates reported on the way of everything that the report shows of it."""
        return load_curves(self.sweep.directory, {*ON_THE_WAY, MASKED_LOSS, self.metric})

    @property
    def compared(self) -> tuple[Answer, ...]:
        """The answers of comparisons, refused ones included."""
        return tuple(answer for answer in self.answers if answer.compares)

    @property
    def others(self) -> tuple[Answer, ...]:
        """The answers of all other steps."""
        return tuple(answer for answer in self.answers if not answer.compares)

    @property
    def failed(self) -> tuple[Answer, ...]:
        """The answers of steps that went wrong themselves: they are a plugin's."""
        return tuple(answer for answer in self.answers if answer.failed)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Those that the file declares, else the one that suggests itself; empty with adaptive replicates."""
        return tuple(found for found in _results(self.answers) if isinstance(found, Comparison))

    @property
    def sequential(self) -> tuple[SequentialComparison, ...]:
        """The comparisons of a sweep with adaptive replicates."""
        return tuple(found for found in _results(self.answers) if isinstance(found, SequentialComparison))

    @property
    def refused(self) -> tuple[str, ...]:
        """Why comparisons could not be made."""
        return tuple(answer.refused for answer in self.compared if answer.refused is not None)

    @property
    def verdict(self) -> str:
        """The answer in one plain sentence, or why there is none."""
        return "".join(phrase.text for phrase in self.phrases)

    @functools.cached_property
    def phrases(self) -> tuple[Phrase, ...]:
        """The answer in pieces, each number with the arm that it comes from."""
        return sweep_answer(self.sweep, self.metric, self.arms, self.answers)

    @property
    def further(self) -> tuple[str, ...]:
        """The sentences of all other steps that the file declares."""
        said = [answer.sentence for answer in (*self.compared, *self.others)]
        return tuple(dict.fromkeys(sentence for sentence in said if sentence != self.verdict))

    @functools.cached_property
    def setup(self) -> tuple[Fact, ...]:
        """The set-up that was compared, in words."""
        return setup_facts(self.sweep)

    @functools.cached_property
    def cost(self) -> tuple[Fact, ...]:
        """What all of it cost."""
        return cost_facts(self.sweep)

    @functools.cached_property
    def limits(self) -> tuple[Limit, ...]:
        """What would change the answer, the weakest point first."""
        return () if self.error else limits_of(self.sweep, self.arms, self.answers)

    @property
    def differences(self) -> Grid | None:
        """What every arm changes of the base."""
        return differences(self.sweep)

    def grid(self) -> Grid:
        """Verdicts and means, one row per arm; many arms by their difference, the best first."""
        found: list[Comparison | SequentialComparison] = [*self.comparisons, *self.sequential]
        first = found[0] if found else None
        return verdict_grid(self._arms_in_order(), self.metric, first)

    def _arms_in_order(self) -> list[ArmSummary]:
        if len(self.arms) <= MANY_ARMS:
            return list(self.arms)
        goal = self.sweep.questions.goal_on(self.metric)
        return sorted(
            self.arms,
            key=lambda arm: (
                arm.arm != self.sweep.baseline,
                float("inf") if arm.mean is None else goal.badness(arm.mean),
            ),
        )

    def cost_grid(self, *, narrow: bool = False) -> Grid:
        """What a run of each arm costs; `narrow`: for a terminal."""
        return cost_grid(self.sweep, self._arms_in_order(), narrow=narrow)

    def search_grid(self, most: int | None = MOST_SEARCH_ROWS, *, narrow: bool = False) -> Grid:
        """The best finished trials of a search, the best first; `most` None: all of them; `narrow`: for a terminal."""
        return search_grid(self.sweep, most, narrow=narrow)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        changed = self.differences
        return {
            "sweep": self.sweep.name,
            "question": self.sweep.question,
            "error": self.error,
            "verdict": self.verdict,
            "further": list(self.further),
            "declared": self.declared,
            "warnings": list(self.warnings),
            "setup": {fact.name: fact.text for fact in self.setup},
            "differences": {arm: what for arm, what, *_ in changed.rows} if changed else {},
            "cost": {fact.name: fact.text for fact in self.cost},
            "limits": [limit.text for limit in self.limits],
            "refused": list(self.refused),
            "arms": [asdict(arm) for arm in self.arms],
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            "sequential": [comparison.to_dict() for comparison in self.sequential],
            "analyses": [answer.to_dict() for answer in self.others],
        }

    def tables(self) -> Iterator[Grid]:
        """The tables of a short answer, each of at most a dozen rows."""
        if self.error:
            return
        if self.sweep.search_trials:
            yield self.search_grid(5, narrow=True)
        if not self.sweep.is_search:
            yield self.grid().ends(MANY_ARMS)
        for answer in self.others:
            if answer.finding is not None and answer.finding.grid is not None and answer.finding.grid.rows:
                yield answer.finding.grid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        yield from printed_lines(console, options, *self._printed())

    def _printed(self) -> Iterator[RenderableType]:
        """The short answer of a terminal, the sentence last: that is where the eye is when a sweep ends."""
        from rich.text import Text

        if self.error:
            yield Text(self.error, style="bold red")
            return
        for line in self.warnings:
            yield Text(line, style="yellow")
        for table in self.tables():
            yield table.to_rich()
        if not self.sweep.is_search:
            yield self.cost_grid(narrow=True).ends(MANY_ARMS).to_rich()
        if self.cost:
            yield Text(f"cost: {'; '.join(fact.text for fact in self.cost if fact.name in ('trials', 'time'))}")
        if self.limits:
            yield Text("what would change the answer:")
            yield bullets(limit.text for limit in self.limits[:_SHOWN_LIMITS])
        for sentence in self.further:
            yield Text(sentence)
        yield Text(self.verdict, style="bold")

    def __repr__(self) -> str:
        """A few lines: the answer, and where the rest is."""
        head = f"<Summary of sweep {self.sweep.name}: {len(self.sweep.distinct_trials)} trials>"
        lines = [head, *([self.error] if self.error else [*self.warnings, self.verdict])]
        return "\n".join([*lines, f"report: {self.report}"])

    def _repr_html_(self) -> str:
        """The short answer of a notebook: the sentence, its tables, cost and weak points."""
        if self.error:
            return f"<p><strong>{html.escape(self.error)}</strong></p>"
        parts = [f"<p>{html.escape(line)}</p>" for line in self.warnings]
        parts.append(f"<p><strong>{html.escape(self.verdict)}</strong></p>")
        parts += [f"<p>{html.escape(sentence)}</p>" for sentence in self.further]
        parts += [table.to_html() for table in self.tables()]
        parts += [f"<p>{html.escape(fact.name)}: {html.escape(fact.text)}</p>" for fact in self.cost]
        weak = "".join(f"<li>{html.escape(limit.text)}</li>" for limit in self.limits)
        return "".join([*parts, f"<p>What would change the answer:</p><ul>{weak}</ul>" if weak else ""])


def summary_table(sweep_directory: str | Path) -> Summary:
    """The answer of a sweep, ready for `rich.print`: verdicts, costs, warnings and weak points.

    A sweep of which every trial failed has an answer too, and `Summary.error` says so.

    Raises:
        AnalysisError: There is no journal in `sweep_directory`, or no trial in it.
    """
    return summarise(read_sweep(sweep_directory))


def summarise(sweep: Sweep) -> Summary:
    """Answer everything that the sweep asks, and gather what the arms cost."""
    answers = answers_of(sweep)
    listed = sweep.questions.comparisons
    declared = any(asked.declared for asked in listed)
    made = next((found for found in _results(answers) if isinstance(found, AnsweredView)), None)
    metric = made.metric if made else (listed[0].metric if declared else sweep.questions.first_goal.metric)
    return Summary(
        sweep=sweep,
        metric=metric,
        arms=tuple(summarise_arm(sweep, arm, metric) for arm in sweep.arms),
        answers=answers,
        declared=declared,
        error=failure(sweep),
        warnings=tuple(_warnings(sweep)),
    )


def _results(answers: tuple[Answer, ...]) -> Iterator[Any]:
    return (answer.finding.result for answer in answers if answer.finding is not None)


def _warnings(sweep: Sweep) -> list[str]:
    """What makes the answer provisional, or weaker than its p values say."""
    lines = []
    trials, planned = sweep.distinct_trials, planned_trials(sweep)
    counts = {state: sum(trial.status == state for trial in trials) for state in ("running", "interrupted", "pending")}
    counts["not started"] = counts.pop("pending") + planned - len(trials)
    if any(counts.values()):
        shown = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        waiting = sum(counts.values())
        lines.append(f"Provisional: {waiting} of {planned} trials have not ended ({shown}); run the sweep again.")
    after = sweep.meta.get("analysis_plan_amended_after")
    if after is not None:
        held = (
            "verdicts at any time allow for more seeds, not for another metric, margin or level."
            if sweep.is_adaptive
            else "p values and intervals are those of a plan that was fixed beforehand. Seeds that were added because "
            "of a look make a false alarm likelier than they say."
        )
        lines.append(f"The analysis plan was amended after {after} trials; {held}")
    return lines
