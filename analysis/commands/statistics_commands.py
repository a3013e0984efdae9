"""`python -m analysis sequential | rank | aggregate | hierarchical | items | power`, from a shell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.quantities import format_share

from .printing import (
    Alpha,
    AlphaOrDeclared,
    Blocks,
    Compared,
    Direction,
    Equal,
    Json,
    Latex,
    Margin,
    Markdown,
    OneSide,
    Plugins,
    Question,
    Source,
    Target,
    Tolerance,
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


Metric = Annotated[str, typer.Option(help="Column to read.")]
Arm = Annotated[str, typer.Option(help="Column with the arms.")]
Task = Annotated[str, typer.Option(help="Column with the tasks.")]
Seed = Annotated[str, typer.Option(help="Column that tells the runs of an arm on a task apart.")]
Resamples = Annotated[int, typer.Option(help="Number of resamples.")]
Rng = Annotated[int, typer.Option(help="Seed of the resampling.")]


_SEQUENTIAL_HELP = """Verdicts that hold however often one looks.

Blocks count by the start time of their runs where the table has it (started_at, start_time, Created, …), else by their
numbers: seed 2 before seed 10. Where the rows are the only order, the sentence says so, and rows that are sorted by the
metric are refused. For a sweep, what is not given here is as its file declares it.
"""


@app.command(
    cls=Selecting,
    help=_SEQUENTIAL_HELP,
    epilog=examples(
        "sequential",
        "experiments/ablation",
        "runs.csv --baseline adam --arm optimizer --margin 0.02 --equal none",
        "runs.csv --target 3.28 --side better",
    ),
)
def sequential(
    source: Source,
    baseline: Annotated[str | None, typer.Option(help="Arm to compare with.")] = None,
    metric: Compared = None,
    arm: Arm = "arm",
    block: Blocks = None,
    margin: Margin = None,
    target: Target = None,
    hypothesis: Question = None,
    side: OneSide = None,
    direction: Direction = None,
    correction: Annotated[str, typer.Option(help="bonferroni (level alpha/m per arm) or none.")] = "bonferroni",
    equal: Equal = None,
    tolerance: Tolerance = None,
    alpha: AlphaOrDeclared = None,
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
        "target": target,
        "hypothesis": hypothesis,
        "side": side,
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
        "experiments/ablation --metric wikitext2/perplexity_word --metric ptb/perplexity_word",
    ),
)
def rank(
    source: Source,
    metric: Annotated[
        list[str] | None, typer.Option(help="Column to read; several: each is a task, one row per run. [loss]")
    ] = None,
    task: Task = "task",
    arm: Arm = "arm",
    seed: Seed = "seed",
    direction: Direction = None,
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
    metrics = metric or ["loss"]
    table = selected.table(source)
    by_task = [task] if len(metrics) == 1 else []
    table = selected.measured(table, *metrics, *by_task, arm, seed)
    found = run(table, metrics, task=task, arm=arm, seed=seed, direction=cast("Any", direction), alpha=alpha)
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
        "answers.csv --metric correct --baseline gpt2 --level seed",
        "glue.csv --metric accuracy --baseline classical --level seed --item none",
    ),
)
def hierarchical(
    source: Source,
    metric: Metric = "score",
    level: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of a level of noise, outermost first. [pretraining_seed, finetuning_seed; else seed]"
        ),
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
    from ..tasks.hierarchical import default_levels, hierarchical_bootstrap

    selected = selection(columns, units, where, drop_missing)
    table = selected.table(source)
    levels = level or default_levels(table)
    table = selected.measured(table, metric, arm, *levels, item)
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


@app.command(
    cls=Selecting,
    epilog=examples(
        "items",
        "answers.csv --baseline gpt2",
        "answers.csv --baseline gpt2 --metric acc --item task --item doc_id --test mid_p",
    ),
)
def items(
    source: Source,
    baseline: Annotated[str, typer.Option(help="Arm to compare with.")],
    metric: Annotated[str, typer.Option(help="Column of 1 (right) and 0 (wrong).")] = "correct",
    arm: Arm = "arm",
    item: Annotated[list[str] | None, typer.Option(help="Column of the items; may be repeated. [item]")] = None,
    test: Annotated[str, typer.Option(help="mcnemar (exact) or mid_p.")] = "mcnemar",
    correction: Annotated[
        str, typer.Option(help="Over the arms: holm, bonferroni, benjamini_hochberg or none.")
    ] = "holm",
    direction: Annotated[str, typer.Option(help="maximize: 1 is right; minimize: 1 is an error.")] = "maximize",
    alpha: Alpha = 0.05,
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
    """Compare arms on the same test items: McNemar's test, and a paired bootstrap over the items.

    SOURCE has one row per arm and item. For several seeds per arm use hierarchical.
    """
    from ..tasks.items import compare_items

    selected = selection(columns, units, where, drop_missing)
    table = selected.measured(selected.table(source), metric, arm, *(item or ["item"]))
    found = compare_items(
        table,
        metric,
        baseline,
        arm=arm,
        item=item or "item",
        test=cast("Any", test),
        correction=correction,
        direction=cast("Any", direction),
        alpha=alpha,
        bootstrap=bootstrap,
        rng=rng,
    )
    lines = (found.sentence, *excluded(table))
    show(found.grid, found.to_dict(), *lines, as_json=as_json, markdown=markdown, latex=latex)


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
    sd: Annotated[
        float,
        typer.Option(help="Standard deviation of the paired differences (with a target: of runs), in its unit."),
    ],
    effect: Annotated[
        float | None,
        typer.Option(
            help="True difference to find, in the same unit; for non_inferior how much worse the arm is. "
            "[non_inferior: 0]"
        ),
    ] = None,
    n: Annotated[int | None, typer.Option(help="Seeds (complete blocks).")] = None,
    target: Annotated[float, typer.Option("--power", help="Power to reach.")] = 0.8,
    alpha: Alpha = 0.05,
    hypothesis: Question = None,
    margin: Annotated[float | None, typer.Option(help="Margin of non-inferiority, in the metric's unit.")] = None,
    side: OneSide = None,
    looking: Annotated[
        bool, typer.Option("--sequential", help="Also for a design that looks after every seed (simulated).")
    ] = False,
    figure: Annotated[Path | None, typer.Option(help="Power curves to write (PNG).")] = None,
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    """Power of the paired t test: what n seeds can find, and how many an effect or a margin needs."""
    from ..paired.power_table import power_table

    found = power_table(
        sd,
        effect=effect,
        n=n,
        power=target,
        alpha=alpha,
        hypothesis=cast("Any", hypothesis or "different"),
        margin=margin,
        side=cast("Any", side or "both"),
    )
    lines, facts = list(found.lines), dict(found.facts)
    if (looking or figure is not None) and found.effect is None:
        raise AnalysisError("--sequential and --figure are about an effect: say which (--effect)")
    if looking and found.effect is not None:
        from ..anytime.simulation import sequential_seeds

        plan = sequential_seeds(
            sd,
            effect=found.effect,
            power=target,
            alpha=alpha,
            margin=margin,
            hypothesis=found.asked.hypothesis,
            side=found.asked.side,
        )
        facts["sequential"] = plan.to_dict()
        lines.append(str(plan))
    if figure is not None and found.effect is not None:
        if found.asked.claims:
            raise AnalysisError("--figure draws curves of the two-sided test; leave out --hypothesis and --side")
        from ..plots.diagrams import power_curves

        most = max(10, round(1.5 * facts["seeds_needed"]))
        effects = [found.effect / 2, found.effect, 2 * found.effect]
        lines.append(f"curves: {power_curves(figure, sd, effects, most=most, alpha=alpha)}")
    if found.effect is None and not as_json:
        to_terminal(*lines)
        return
    grid = found.grid(lines)
    show(grid, facts, as_json=as_json, markdown=markdown, latex=latex, shown=grid.to_text())
