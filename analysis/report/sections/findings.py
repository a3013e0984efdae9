"""The sections of a report that say what was found: comparison, curves, budgets, perplexities, oracle, tuning.

Called by `report.compose`; each function gives a `Section`, or None where it has nothing to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from stackwise_ray.core.metric_catalogue import format_metric
from stackwise_ray.core.quantities import ABSENT, format_count, format_number, format_seconds

from ...plots.curves import MOST_ARMS
from ...render import Grid, format_range
from ...table.sweep_directory import Sweep
from ..page import (
    Block,
    Items,
    Picture,
    Section,
    Table,
    arm_sources,
    plain,
    run_anchor,
    sourced,
)
from ..pictures import Pictures, fronts
from ..plan_against_run import planned_table
from ..summary import Summary
from ..summary_grids import MOST_SEARCH_ROWS

_ORACLE = "validation/oracle_loss"


def comparison(summary: Summary, drawn: Pictures) -> Section:
    """The table of verdicts and costs, then what stands beside every comparison."""
    sweep = summary.sweep
    if sweep.is_search and not summary.comparisons:
        return Section("The best trials", (_search_table(summary),))
    if not summary.arms:
        return Section("Comparison", (plain("Nothing to compare: no replicate has started."),))
    grid, costs = summary.grid(), summary.cost_grid()
    words = (len(costs.columns) - 1,) if costs.columns[-1] == "parameters" else ()
    blocks: list[Block] = [
        sourced(grid, arm_sources(sweep, grid)),
        sourced(costs, arm_sources(sweep, costs), words=words),
    ]
    above = True
    for answer in summary.answers:
        if answer.compares and answer.finding is not None:
            shown = len(answer.finding.opening) if above else 0  # the verdicts of the first are in the table above
            blocks += answer.section(drawn.below(drawn.answers.get(answer.figure))).blocks[shown:]
            above = False
    if summary.refused:
        blocks.append(Items(tuple(f"Refused: {reason}" for reason in summary.refused)))
    return Section("Comparison", tuple(blocks))


def declared(summary: Summary, drawn: Pictures) -> list[Section]:
    """What the declared steps found that are no comparisons; those of one title stand under one heading."""
    joined: dict[str, tuple[Block, ...]] = {}
    for answer in summary.others:
        section = answer.section(drawn.below(drawn.answers.get(answer.figure)))
        joined[section.title] = (*joined.get(section.title, ()), *section.blocks)
    return [Section(title, blocks) for title, blocks in joined.items()]


def _drawn(figure: Picture | None) -> tuple[Picture, ...]:
    return () if figure is None else (figure,)


def curves(summary: Summary, drawn: Pictures) -> Section | None:
    """The training curves with their seed bands, or what stands in their place."""
    if len(summary.sweep.arms) > MOST_ARMS and not summary.sweep.is_search:
        text = f"Not drawn: the lines of {len(summary.sweep.arms)} arms cannot be told apart (at most {MOST_ARMS})."
        return Section("Training curves", (plain(text),))
    training = drawn.below(drawn.training)
    return None if training is None else Section(training.title.partition(",")[0], (training,))


def budgets(summary: Summary, drawn: Pictures) -> Section | None:
    """The loss against four budgets, and what every arm spent of them."""
    runs, sweep = summary.sweep.runs, summary.sweep
    if runs.empty or sweep.is_search:
        return None
    rows, on_front = [], fronts(summary)
    for arm in sweep.arms:
        part = runs[runs["arm"] == arm]
        nominal = float(part["budget"].iloc[0]) if "budget" in part.columns and len(part) else None
        rows.append(
            (
                arm,
                format_count(nominal),
                _range(part, "flops", format_count),
                _range(part, "tokens", format_count),
                _range(part, "flops/recomputed", format_count),
                _range(part, "flops/evaluation", format_count),
                _range(part, "attempt_seconds", format_seconds),
                ", ".join(name for name, front in on_front.items() if arm in front) or "none",
            )
        )
    kind = sweep.budget_kind or "mixed kinds"
    columns = (
        "arm",
        f"budget ({kind})",
        "training FLOPs",
        "training tokens",
        "recomputed",
        "evaluation",
        "wall time",
        "on the Pareto front of",
    )
    notes = "Ranges are over the seeds. Recomputation and evaluation are counted apart and stand outside the budget."
    grid = Grid(columns, tuple(rows), numeric=(1, 2, 3, 4, 5, 6))
    table = sourced(grid, arm_sources(sweep, grid))
    return Section("Loss against budgets", (*_drawn(drawn.below(drawn.budgets)), table, plain(notes)))


def _range(part: Any, column: str, form: Callable[[float], str]) -> str:
    return format_range(part[column].dropna() if column in part.columns else (), form)


def planned(sweep: Sweep) -> Section | None:
    """What was planned beside what was measured."""
    table = planned_table(sweep)
    if table is None:
        return None
    text = (
        "FLOPs of one trial are counted before the run and by it. Time and peak memory are what was predicted before "
        "each trial ran, from what this machine had been measured to do by then; beside them the means over the "
        "trials that were predicted, and their share of the prediction. Where no trial was, the means are over all."
    )
    return Section("Plan against run", (plain(text), table))


def perplexities(summary: Summary) -> Section | None:
    """Every perplexity that was measured, by arm."""
    runs = summary.sweep.runs
    names = sorted(name for name in runs.columns if "/perplexity" in name)
    if not names or summary.sweep.is_search:
        return None
    rows = tuple(
        (arm, *(_geometric_mean(runs[runs["arm"] == arm], name) for name in names)) for arm in summary.sweep.arms
    )
    grid = Grid(("arm", *names), rows, numeric=tuple(range(1, len(names) + 1)))
    text = (
        "Geometric means over the seeds: exp of the mean loss. Those by token, word and byte are of whole splits, "
        "validation/perplexity is of the fixed windows; a first token has no prediction and counts only as a byte."
    )
    return Section("Perplexities", (plain(text), sourced(grid, arm_sources(summary.sweep, grid))))


def _geometric_mean(part: Any, name: str) -> str:
    values = part[name].dropna()
    if values.empty:
        return ABSENT
    mean = math.exp(sum(map(math.log, values)) / len(values))
    return format_metric(name, mean) if mean < 1e6 else format_count(mean)


def oracle(sweep: Sweep) -> Section | None:
    """Every arm against the loss of an oracle that knows the source."""
    runs = sweep.runs
    if _ORACLE not in runs.columns or "loss" not in runs.columns or sweep.is_search:
        return None
    rows, below = [], []
    for arm in sweep.arms:
        part = runs[(runs["arm"] == arm)].dropna(subset=[_ORACLE, "loss"])
        if part.empty:
            rows.append((arm, ABSENT, ABSENT, ABSENT))
            continue
        excess = part["loss"] - part[_ORACLE]
        below += [
            f"{arm}, seed {seed} ({format_number(value, 5, signed=True)})"
            for seed, value in zip(part["seed"], excess, strict=True)
            if value < 0
        ]
        rows.append(
            (
                arm,
                format_metric("loss", float(part["loss"].mean())),
                format_metric(_ORACLE, float(part[_ORACLE].mean())),
                f"{_signed(excess.mean())} (least {_signed(excess.min())})",
            )
        )
    grid = Grid(("arm", "validation loss", "oracle's loss", "excess (nats per token)"), tuple(rows), numeric=(1, 2, 3))
    text = plain(f"The oracle knows the source; its loss on the same windows is the floor.{_uniform(sweep)}")
    found = f"Below the floor: {', '.join(below)}. Something leaks." if below else "No run is below the floor."
    return Section(
        "Against the oracle", (text, sourced(grid, arm_sources(sweep, grid)), plain(found, warning=bool(below)))
    )


def _signed(value: float) -> str:
    return format_number(float(value), 4, signed=True)


def _uniform(sweep: Sweep) -> str:
    """The other end of the scale: what a model has that has learned nothing."""
    sources = (trial.config.get("data", {}).get("markov") for trial in sweep.trials)
    symbols = {source["n_symbols"] for source in sources if source}
    if len(symbols) != 1:
        return ""
    (n_symbols,) = symbols
    return f" A uniform guess over its {n_symbols} symbols would lose {format_metric(_ORACLE, math.log(n_symbols))}."


def search_points(summary: Summary) -> Section | None:
    """All points of the search where the section on the best trials does not already show them."""
    sweep = summary.sweep
    grid = summary.search_grid(most=None)
    shown = sweep.is_search and not summary.comparisons and len(grid.rows) <= MOST_SEARCH_ROWS
    if shown or not sweep.search_trials:
        return None
    if not grid.rows:
        return Section(
            "Search points", (plain(f"No finished search trial has a {summary.sweep.questions.first_goal.metric}."),)
        )
    text = "One run per point, on a seed that no replicate uses: these losses say which points were trained again."
    return Section("Search points", ((plain(text),) if not sweep.is_search else ()) + (_search_table(summary, None),))


def _search_table(summary: Summary, most: int | None = MOST_SEARCH_ROWS) -> Table:
    grid = summary.search_grid(most=most)
    arms = {trial.trial_id: trial.arm for trial in summary.sweep.search_trials}
    words = range(2, len(grid.columns))
    return sourced(grid, [run_anchor(row[0], arms[row[0]]) for row in grid.rows], words=tuple(words))


def tuning(sweep: Sweep) -> Section | None:
    """What every arm's tuning tried and chose."""
    if not sweep.tuning:
        return None
    rows, sources, metric = [], [], sweep.questions.first_goal.metric
    for arm, tuned in sweep.tuning.items():
        for trial in tuned.trials:
            values = trial.get("values") or {}
            chosen = "chosen" if dict(values) == dict(tuned.values) else ""
            shown = ", ".join(f"{path} = {plain_value(value)}" for path, value in values.items())
            name = str(trial.get("trial_id", ABSENT))
            rows.append((arm, shown, format_metric(metric, trial.get("loss")), chosen, name))
            sources.append(run_anchor(name, arm))
    columns = ("arm", "values", "loss at the end of its short budget", "", "trial")
    grid = Grid(columns, tuple(rows), numeric=(2,))
    text = plain("Equal trials for every arm, on seeds that no replicate uses.")
    return Section("Tuning", (text, sourced(grid, sources, words=(1,))))


def plain_value(value: Any) -> str:
    """A value as a reader writes it; None is "not recorded"."""
    if value is None:
        return "not recorded"
    return f"{value:g}" if isinstance(value, float) else str(value)
