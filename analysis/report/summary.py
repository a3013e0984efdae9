"""The answer of a sweep in short: what each arm reached and cost, the comparisons, and what stands in their way.

Called by the sweep command and `python -m analysis report` (which print it), by `compose` and by `verification`. Values
are means over an arm's finished runs of what the runs recorded; what no run recorded is None and prints as "not
measured".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.metric_catalogue import format_metric
from stackwise_ray.core.quantities import ABSENT, format_bytes, format_count, format_share

from ..anytime.adaptive_verdicts import cells, difference_heading
from ..anytime.verdict import SequentialComparison
from ..paired.comparison import ArmComparison, Comparison, verdict_text
from ..paired.intervals import Interval, t_interval
from ..render import Grid, format_p
from ..table.runs import load_curves
from ..table.sweep_directory import Sweep, read_sweep
from .plan_against_run import planned_trials
from .reported_steps import Answer, answers_of

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions

MOST_SEARCH_ROWS = 10
ON_THE_WAY = ("train/loss", "validation/loss", "validation/perplexity", "throughput/tokens_per_s")
"""Metrics whose curves stand in the JSON file of an arm."""
MASKED_LOSS = "validation/masked_loss"
"""What encoders that mask differently are compared by."""


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """One arm over its finished runs; None: no run recorded it.

    Attributes:
        n: Finished runs.
        trials: Their trial ids.
        mean: Mean of the sweep's first metric, with its own (unpaired) interval in `interval`.
        tokens_per_s: Training tokens per second.
        flops: Training FLOPs of a run.
        peak_bytes: Peak memory.
        params: Parameters without embeddings; `params_total` with them.
        tuned: Values that tuning chose.
        point: The point of the search that the arm trains; empty for other arms.
        tuning_flops: Training FLOPs of all tuning trials.
    """

    arm: str
    n: int
    trials: tuple[str, ...]
    mean: float | None
    interval: Interval | None
    tokens_per_s: float | None
    flops: float | None
    peak_bytes: float | None
    params: float | None
    params_total: float | None
    tuned: Mapping[str, Any]
    point: Mapping[str, Any]
    tuning_flops: float | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a sweep found.

    Attributes:
        metric: The metric of `ArmSummary.mean`.
        answers: What the steps that the file declares found, or why they found nothing.
        declared: Whether the file declares a comparison; else one may suggest itself.
        warnings: What must stand above the verdict.
    """

    sweep: Sweep
    metric: str
    arms: tuple[ArmSummary, ...]
    answers: tuple[Answer, ...]
    declared: bool
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
        """The verdict in one sentence, or why there is none."""
        made = next((answer for answer in self.compared if answer.finding is not None), None)
        if made is not None:
            return made.sentence
        best = self._best()
        if best is None:
            return f"No verdict: {self._nothing}."
        told = next((answer for answer in self.others if not answer.failed), None)
        if told is not None:
            return told.sentence
        if self.refused:
            return f"No verdict: {self.refused[0]}."
        if self.failed:
            return self.failed[0].sentence
        name, value = best
        point = point_text(self.sweep.parameters_of(name))
        name += f" ({point})" if point else ""
        return f"No comparison was declared; the best {self.metric} is {format_metric(self.metric, value)}, by {name}."

    @property
    def _nothing(self) -> str:
        """Why there is no best value."""
        if len(self.sweep.runs):
            return f"no finished trial has a {self.metric}"
        done = any(trial.status == "finished" for trial in self.sweep.trials)
        return "no replicate has finished" if done else "no trial has finished"

    def _best(self) -> tuple[str, float] | None:
        runs, metric = self.sweep.runs, self.metric
        if metric not in runs.columns or runs[metric].notna().sum() == 0:
            return None
        column = runs[metric]
        place = (self.sweep.questions.goal_on(metric).badness(1.0) * column).idxmin()
        row = runs.to_dict("index")[place]
        return (f"trial {row['trial_id']}" if self.sweep.is_search else str(row["arm"])), float(row[metric])

    def grid(self) -> Grid:
        """The table of the report: verdicts and costs, one row per arm."""
        first = self.comparisons[0] if self.comparisons else None
        anytime = self.sequential[0] if self.sequential else None
        tuned = any(arm.tuned or arm.tuning_flops for arm in self.arms)
        level = format_share(1 - first.alpha) if first else "95%"
        columns = ["arm", *(["verdict"] if first or anytime else []), "n", f"{self.metric}, mean"]
        if anytime is not None:
            columns += [difference_heading(anytime), "decided at n"]
        else:
            columns += [f"difference [{level}]", "adjusted p"] if first else [f"its {level} interval"]
        columns += ["tokens/s", "FLOPs per run", "peak memory", "params", "non-emb.", self._values_heading]
        columns += ["tuning FLOPs"] if tuned else []
        rows = []
        for arm in self.arms:
            row = [arm.arm, str(arm.n), format_metric(self.metric, arm.mean)]
            if first or anytime:
                *numbers, verdict = _verdict_cells(first, arm.arm) if first else cells(self.sequential[0], arm.arm)
                row = [arm.arm, verdict, *row[1:], *numbers]
            elif arm.interval is not None:
                row.append(
                    f"[{format_metric(self.metric, arm.interval.low)}, {format_metric(self.metric, arm.interval.high)}]"
                )
            else:
                row.append(ABSENT if arm.mean is None else "n < 2")
            row += self._cost_cells(arm, tuned)
            rows.append(tuple(row))
        words = {"arm", "verdict", self._values_heading}
        return Grid(
            tuple(columns), tuple(rows), numeric=tuple(i for i, name in enumerate(columns) if name not in words)
        )

    def cost_grid(self) -> Grid:
        """What each arm cost, for narrow terminals."""
        tuned = any(arm.tuned or arm.tuning_flops for arm in self.arms)
        columns = ["arm", "tokens/s", "FLOPs", "memory", "params", "non-emb.", self._values_heading]
        columns += ["tuning FLOPs"] if tuned else []
        rows = tuple((arm.arm, *self._cost_cells(arm, tuned)) for arm in self.arms)
        return Grid(tuple(columns), rows, "cost of a run (means over seeds)", numeric=(1, 2, 3, 4, 5))

    def search_grid(self, most: int | None = MOST_SEARCH_ROWS) -> Grid:
        """The best finished trials of a search, the best first; `most` None: all of them."""
        goal = self.sweep.questions.first_goal
        metric = goal.metric
        points = self.sweep.search_trials
        done = [trial for trial in points if trial.status == "finished" and metric in trial.metrics]
        done.sort(key=lambda trial: goal.badness(trial.metrics[metric]))
        paths = list(dict.fromkeys(path for trial in points for path in trial.parameters))
        named = len({trial.arm for trial in points}) > 1  # each point has a name of its own
        replicated = {trial.arm for trial in self.sweep.trials if trial.role == "replicate"}
        rows = []
        for trial in done[:most]:
            row = [trial.trial_id, format_metric(metric, trial.metrics[metric])]
            row += [_short(trial.parameters[path]) if path in trial.parameters else "not set" for path in paths]
            row += [trial.arm] if named else []
            row += ["yes" if trial.arm in replicated else ""] if replicated else []
            rows.append(tuple(row))
        columns = ["trial", metric, *paths, *(["point"] if named else []), *(["winner"] if replicated else [])]
        title = f"the best {len(rows)} of {len(done)} finished search trials"
        return Grid(tuple(columns), tuple(rows), title, numeric=(1,))

    @property
    def _values_heading(self) -> str:
        return "parameters" if self.sweep.search_trials else "tuned"

    def _cost_cells(self, arm: ArmSummary, tuned: bool) -> list[str]:
        tuned_to = ", ".join(f"{path.rpartition('.')[2]} = {_short(value)}" for path, value in arm.tuned.items())
        values = point_text(arm.point) or tuned_to
        cells = [
            format_count(arm.tokens_per_s),
            format_count(arm.flops),
            format_bytes(arm.peak_bytes),
            format_count(arm.params_total),
            format_count(arm.params),
            values or "not tuned",
        ]
        return cells + ([format_count(arm.tuning_flops)] if tuned else [])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "sweep": self.sweep.name,
            "question": self.sweep.question,
            "verdict": self.verdict,
            "declared": self.declared,
            "warnings": list(self.warnings),
            "refused": list(self.refused),
            "arms": [asdict(arm) for arm in self.arms],
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            "sequential": [comparison.to_dict() for comparison in self.sequential],
            "analyses": [answer.to_dict() for answer in self.others],
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        from rich.text import Text

        for line in self.warnings:
            yield Text(line, style="yellow")
        if self.sweep.is_search and not self.comparisons:
            yield self.search_grid().to_rich()
        else:
            if self.sweep.search_trials:
                yield self.search_grid().to_rich()
            for comparison in self.comparisons:
                yield comparison.verdict_grid.to_rich()
                yield Text("\n".join(comparison.remarks()))
            for anytime in self.sequential:
                yield anytime.grid.to_rich()
            yield (self.cost_grid() if self.comparisons or self.sequential else self.grid()).to_rich()
        for answer in self.others:
            if answer.finding is not None and answer.finding.grid is not None:
                yield answer.finding.grid.to_rich()
            if answer.sentence != self.verdict:  # which stands below
                yield Text(answer.sentence)
        yield Text(self.verdict, style="bold")


def summary_table(sweep_directory: str | Path) -> Summary:
    """The answer of a sweep, ready for `rich.print`: verdicts, costs and warnings.

    Raises:
        AnalysisError: There is no journal in `sweep_directory`, or no trial in it.
    """
    return summarise(read_sweep(sweep_directory))


def summarise(sweep: Sweep) -> Summary:
    """Answer everything that the sweep asks, and gather what the arms cost."""
    answers = answers_of(sweep)
    listed = sweep.questions.comparisons
    declared = any(asked.declared for asked in listed)
    made = next((found for found in _results(answers) if isinstance(found, Comparison | SequentialComparison)), None)
    metric = made.metric if made else (listed[0].metric if declared else sweep.questions.first_goal.metric)
    compared = any(isinstance(found, Comparison) for found in _results(answers))
    return Summary(
        sweep=sweep,
        metric=metric,
        arms=tuple(_arm_summary(sweep, arm, metric) for arm in sweep.arms),
        answers=answers,
        declared=declared,
        warnings=tuple(_warnings(sweep, declared, compared)),
    )


def _results(answers: tuple[Answer, ...]) -> Iterator[Any]:
    return (answer.finding.result for answer in answers if answer.finding is not None)


def _arm_summary(sweep: Sweep, arm: str, metric: str) -> ArmSummary:
    runs = sweep.runs[sweep.runs["arm"] == arm] if "arm" in sweep.runs.columns else sweep.runs
    tuning = sweep.tuning.get(arm)

    def mean(column: str) -> float | None:
        if column not in runs.columns or runs[column].notna().sum() == 0:
            return None
        return float(runs[column].mean())

    values: Any = runs[metric].dropna().to_numpy(float) if metric in runs.columns else []
    return ArmSummary(
        arm=arm,
        n=len(runs),
        trials=tuple(runs["trial_id"]) if len(runs) else (),
        mean=mean(metric),
        interval=t_interval(values),
        tokens_per_s=mean("throughput/tokens_per_s"),
        flops=mean("flops"),
        peak_bytes=mean("memory/peak_bytes"),
        params=mean("params"),
        params_total=mean("params_total"),
        tuned=tuning.values if tuning else {},
        point=sweep.parameters_of(arm),
        tuning_flops=tuning.flops if tuning else None,
    )


def _warnings(sweep: Sweep, declared: bool, compared: bool) -> list[str]:
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
    if compared and not declared:
        lines.append("The file declares no comparison; this one follows its baseline and was not declared beforehand.")
    if not sweep.tuning and len(sweep.arms) > 1 and not sweep.search_trials and not sweep.file.get("tune"):
        lines.append("One learning rate for all arms, not tuned." if _one_rate(sweep) else "The arms were not tuned.")
    return lines


def _one_rate(sweep: Sweep) -> bool:
    rates = {trial.config.get("training", {}).get("lr") for trial in sweep.trials if trial.role == "replicate"}
    return len(rates) == 1


def _verdict_cells(comparison: Comparison, arm: str) -> tuple[str, str, str]:
    if arm == comparison.baseline:
        return "", "", "baseline"
    found: ArmComparison | None = next((result for result in comparison.arms if result.arm == arm), None)
    if found is None:
        return ABSENT, ABSENT, "undecided (no run)"
    return found.difference_text, format_p(found.p_adjusted), verdict_text(found)


def point_text(parameters: Mapping[str, Any]) -> str:
    """The values of a point under their paths, short."""
    return ", ".join(f"{path} = {_short(value)}" for path, value in parameters.items())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return ABSENT if math.isnan(value) else f"{value:.3g}"
    return str(value)
