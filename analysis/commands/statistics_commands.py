"""`python -m analysis sequential | rank | aggregate | hierarchical | power`: beyond the comparison, from a shell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.quantities import format_share

from .printing import (
    Alpha,
    Json,
    Latex,
    Markdown,
    Plugins,
    completed,
    declared_arguments,
    examples,
    excluded,
    show,
    to_terminal,
)
from .selecting import DropMissing, Map, Selecting, Units, Where, selection

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from ..paired.intervals import Interval

app = typer.Typer(rich_markup_mode=None)


Source = Annotated[str, typer.Argument(help="Sweep folder, CSV file or URI#EXPERIMENT.")]
Metric = Annotated[str, typer.Option(help="Column to read.")]
Arm = Annotated[str, typer.Option(help="Column with the arms.")]
Task = Annotated[str, typer.Option(help="Column with the tasks.")]
Seed = Annotated[str, typer.Option(help="Column that tells the runs of an arm on a task apart.")]
Resamples = Annotated[int, typer.Option(help="Number of resamples.")]
Rng = Annotated[int, typer.Option(help="Seed of the resampling.")]
Good = Annotated[
    str | None, typer.Option(help="Which values are good: minimize or maximize. [as is known of the metric]")
]


_SEQUENTIAL_HELP = """Verdicts that hold however often one looks.

Blocks count by the start time of their runs where the table has it (started_at, start_time, Created, …), else by their
numbers: seed 2 before seed 10. Where the rows are the only order, the sentence says so, and rows that are sorted by the
metric are refused. For a sweep, what is not given here is as its file declares it.
"""


@app.command(
    cls=Selecting,
    help=_SEQUENTIAL_HELP,
    epilog=examples(
        "sequential", "experiments/ablation", "runs.csv --baseline adam --arm optimizer --margin 0.02 --equal none"
    ),
)
def sequential(
    source: Source,
    baseline: Annotated[str | None, typer.Option(help="Arm to compare with.")] = None,
    metric: Annotated[str | None, typer.Option(help="Column to compare. [loss]")] = None,
    arm: Arm = "arm",
    block: Annotated[list[str] | None, typer.Option(help="Column that pairs runs; may be repeated. [seed]")] = None,
    margin: Annotated[float | None, typer.Option(help="Largest difference that does not matter.")] = None,
    direction: Annotated[str | None, typer.Option(help="minimize or maximize. [as is known of the metric]")] = None,
    correction: Annotated[str, typer.Option(help="bonferroni (level alpha/m per arm) or none.")] = "bonferroni",
    equal: Annotated[
        str | None, typer.Option(help="flops, tokens, wall_seconds, steps, peak_bytes or none. [flops]")
    ] = None,
    tolerance: Annotated[float | None, typer.Option(help="Largest relative difference of budgets. [0.01]")] = None,
    alpha: Annotated[float | None, typer.Option(help="Level of the test. [0.05]")] = None,
    prior_variance: Annotated[
        float, typer.Option(help="Prior variance of the standardised effect; choose it beforehand.")
    ] = 10.0,
    columns: Map = None,
    units: Units = None,
    where: Where = None,
    drop_missing: DropMissing = False,
    plugin: Plugins = None,
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    from ..anytime.adaptive_verdicts import anytime_arguments, compare_in_order
    from ..anytime.sequential import compare_sequentially

    selected = selection(columns, units, where, drop_missing)
    table, sweep = selected.read(source)
    given = {
        "metric": metric,
        "baseline": baseline,
        "margin": margin,
        "direction": direction,
        "equal": equal,
        "tolerance": tolerance,
        "alpha": alpha,
    }
    declared = declared_arguments(sweep, metric, anytime_arguments)
    asked = {
        **completed(given, declared, source, table, arm),
        "arm": arm,
        "block": block or "seed",
        "correction": correction,
        "prior_variance": prior_variance,
    }
    table = selected.measured(table, asked["metric"], arm, *(block or ["seed"]))
    found = compare_in_order(table, asked) if sweep is not None else compare_sequentially(table, **asked)
    lines = (found.sentence, *excluded(table))
    show(found.grid, found.to_dict(), *lines, as_json=as_json, markdown=markdown, latex=latex)


@app.command(
    cls=Selecting,
    epilog=examples(
        "rank",
        "scores.csv --metric accuracy --direction maximize",
        "scores.csv --metric accuracy --direction maximize --figure ranks.png --latex",
    ),
)
def rank(
    source: Source,
    metric: Metric = "loss",
    task: Task = "task",
    arm: Arm = "arm",
    seed: Seed = "seed",
    direction: Good = None,
    alpha: Alpha = 0.05,
    figure: Annotated[Path | None, typer.Option(help="Critical-difference diagram to write (PNG).")] = None,
    columns: Map = None,
    units: Units = None,
    where: Where = None,
    drop_missing: DropMissing = False,
    plugin: Plugins = None,
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    """Rank the arms over several tasks: Friedman, Nemenyi's critical difference, Wilcoxon with Holm."""
    from ..tasks.ranking import rank as run

    selected = selection(columns, units, where, drop_missing)
    table = selected.measured(selected.table(source), metric, task, arm, seed)
    found = run(table, metric, task=task, arm=arm, seed=seed, direction=cast("Any", direction), alpha=alpha)
    drawn = []
    if figure is not None:
        from ..plots.diagrams import critical_difference

        drawn.append(f"diagram: {critical_difference(figure, found)}")
    lines = (found.sentence, *drawn, *excluded(table))
    show(found.grid, found.to_dict(), *lines, as_json=as_json, markdown=markdown, latex=latex)


@app.command(
    cls=Selecting,
    epilog=examples(
        "aggregate",
        "scores.csv --metric score",
        "scores.csv --metric score --statistic optimality_gap --target 0.9 --markdown",
    ),
)
def aggregate(
    source: Source,
    metric: Metric = "score",
    statistic: Annotated[str, typer.Option(help="iqm, mean, median or optimality_gap.")] = "iqm",
    task: Task = "task",
    arm: Arm = "arm",
    seed: Seed = "seed",
    bootstrap: Resamples = 2000,
    rng: Rng = 0,
    target: Annotated[float | None, typer.Option(help="Score that closes the optimality gap. [1]")] = None,
    columns: Map = None,
    units: Units = None,
    where: Where = None,
    drop_missing: DropMissing = False,
    plugin: Plugins = None,
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    """One number per arm over all tasks, with a stratified bootstrap interval."""
    from ..tasks.aggregation import aggregate as run

    selected = selection(columns, units, where, drop_missing)
    table = selected.measured(selected.table(source), metric, task, arm, seed)
    found = run(table, metric, statistic, task=task, arm=arm, seed=seed, bootstrap=bootstrap, rng=rng, target=target)
    _show_intervals(found, statistic, "runs", metric, table, as_json=as_json, markdown=markdown, latex=latex)


@app.command(
    cls=Selecting,
    epilog=examples(
        "hierarchical",
        "glue.csv --metric accuracy",
        "glue.csv --metric accuracy --baseline classical --level seed --item none",
    ),
)
def hierarchical(
    source: Source,
    metric: Metric = "score",
    level: Annotated[
        list[str] | None,
        typer.Option(help="Column of a level of noise, outermost first. [pretraining_seed, finetuning_seed]"),
    ] = None,
    item: Annotated[str, typer.Option(help="Column that all of these share (test items), or none.")] = "item",
    arm: Arm = "arm",
    baseline: Annotated[str | None, typer.Option(help="Arm to subtract; left out: the mean of every arm.")] = None,
    bootstrap: Resamples = 2000,
    rng: Rng = 0,
    columns: Map = None,
    units: Units = None,
    where: Where = None,
    drop_missing: DropMissing = False,
    plugin: Plugins = None,
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    """The mean of an arm where noise has levels, with a bootstrap interval over all of them.

    Levels are, for example, seeds within seeds, or test items that all runs share. Each level is resampled as it was
    drawn.
    """
    from ..tasks.hierarchical import hierarchical_bootstrap

    levels = level or ["pretraining_seed", "finetuning_seed"]
    selected = selection(columns, units, where, drop_missing)
    table = selected.measured(selected.table(source), metric, arm, *levels, item)
    found = hierarchical_bootstrap(
        table,
        metric,
        levels,
        None if item == "none" else item,
        arm,
        baseline,
        bootstrap,
        rng,
    )
    what = "mean" if baseline is None else f"mean difference from {baseline}"
    _show_intervals(
        found,
        what,
        levels[0],
        metric,
        table,
        as_json=as_json,
        markdown=markdown,
        latex=latex,
    )


def _show_intervals(
    found: Mapping[str, Interval], what: str, counted: str, metric: str, table: pd.DataFrame, **form: bool
) -> None:
    """One interval per arm; `counted` is what the column of their `n` counts."""
    from ..render import Grid

    first = next(iter(found.values()))
    rows = tuple((name, str(interval.n), str(interval)) for name, interval in found.items())
    by_method: dict[str, list[str]] = {}
    for name, interval in found.items():
        by_method.setdefault(interval.method, []).append(name)
    methods = tuple(f"{', '.join(arms)}: {text}" if len(by_method) > 1 else text for text, arms in by_method.items())
    grid = Grid(("arm", counted, f"{what} [{format_share(first.level)}]"), rows, metric, methods, (1, 2))
    show(grid, {name: interval.to_dict() for name, interval in found.items()}, *excluded(table), **form)


@app.command(
    epilog=examples(
        "power",
        "--sd 0.01 --effect 0.02",
        "--sd 0.01 --n 3",
        "--sd 0.01 --effect 0.012 --sequential --figure power.png",
    )
)
def power(
    sd: Annotated[float, typer.Option(help="Standard deviation of the paired differences, in the metric's unit.")],
    effect: Annotated[float | None, typer.Option(help="True difference to find, in the same unit.")] = None,
    n: Annotated[int | None, typer.Option(help="Seeds (complete blocks).")] = None,
    target: Annotated[float, typer.Option("--power", help="Power to reach.")] = 0.8,
    alpha: Alpha = 0.05,
    looking: Annotated[
        bool, typer.Option("--sequential", help="Also for a design that looks after every seed (simulated).")
    ] = False,
    figure: Annotated[Path | None, typer.Option(help="Power curves to write (PNG).")] = None,
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    """Power of the paired t test: what n seeds can find, and how many an effect needs."""
    from ..paired.power import minimum_detectable_effect, seeds_needed
    from ..paired.power import power as of_test
    from ..render import Grid

    if effect is None and n is None:
        raise AnalysisError("say what to find (--effect) or how many seeds there are (--n), or both")
    if effect is None and (looking or figure is not None):
        raise AnalysisError("--sequential and --figure are about an effect: say which (--effect)")
    facts: dict[str, Any] = {"sd_difference": sd, "alpha": alpha}
    lines = []
    if n is not None:
        facts |= {"n": n, "minimum_detectable_effect": minimum_detectable_effect(sd, n=n, power=target, alpha=alpha)}
        lines.append(f"{n} seeds find a difference of ±{facts['minimum_detectable_effect']:.3g} with power {target:g}")
    if effect is not None:
        facts |= {"effect": effect, "seeds_needed": seeds_needed(sd, effect=effect, power=target, alpha=alpha)}
        counts = sorted({*([n] if n else []), 2, 3, 5, 8, 10, 15, 20, 30, facts["seeds_needed"]})
        facts["power"] = {count: of_test(sd, effect=effect, n=count, alpha=alpha) for count in counts}
        lines.append(f"a difference of {effect:g} needs {facts['seeds_needed']} seeds for power {target:g}")
    if effect is not None and looking:
        from ..anytime.simulation import sequential_seeds

        plan = sequential_seeds(sd, effect=effect, power=target, alpha=alpha)
        facts["sequential"] = plan.to_dict()
        lines.append(str(plan))
    if effect is not None and figure is not None:
        from ..plots.diagrams import power_curves

        most = max(10, round(1.5 * facts["seeds_needed"]))
        lines.append(f"curves: {power_curves(figure, sd, [effect / 2, effect, 2 * effect], most=most, alpha=alpha)}")
    rows = tuple((str(count), f"{value:.3f}") for count, value in facts.get("power", {}).items())
    title = f"paired t test, sd of the differences {sd:g}, alpha {alpha:g}"
    if effect is None and not as_json:
        to_terminal(*lines)
        return
    grid = Grid(("seeds", f"power at {effect:g}" if effect else "power"), rows, title, tuple(lines), (0, 1))
    show(grid, facts, as_json=as_json, markdown=markdown, latex=latex, shown=grid.to_text())
