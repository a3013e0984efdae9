"""`python -m analysis compare | fit | isoflop | frontier | accuracy | report | verify | power | sequential | rank |
aggregate | hierarchical | items`, in a shell.

Each command prints a table; `--json`, `--markdown` and `--latex` print it for other programs and for papers. A mistake
in what was asked ends with one message and exit code 2.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackwise_ray.core.atomic import disk_full_is_named
from stackwise_ray.core.errors import AnalysisError, ConfigError, DiskFullError, StackwiseError
from stackwise_ray.core.invocation import ANALYSIS, as_started
from stackwise_ray.core.plugins import problems

from .commands import guess_command, law_commands, statistics_commands
from .commands.printing import (
    AlphaOrDeclared,
    Blocks,
    Compared,
    Direction,
    DropOutliers,
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
    WholeHelp,
    completed,
    declared_arguments,
    examples,
    excluded,
    show,
    to_terminal,
    with_or_without,
)
from .commands.selecting import DropMissing, Map, Selecting, Units, Where, selection, two_sources

if TYPE_CHECKING:
    from .table.sweep_directory import Sweep

app = typer.Typer(
    name="analysis",
    cls=WholeHelp,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help=(
        "Answers from runs: paired comparisons with verdicts, scaling laws, power, and the report of a sweep. With the "
        "source alone (runs.csv), what it is about is guessed and answered."
    ),
)


_COMPARE_HELP = """Compare every arm with a baseline, paired by block, or with a target value.

SOURCE is a table, an experiment of a tracker, or a folder of another program (docs/sources.md). For a sweep, what is
not given here is as its file declares it. With two sources, each is an arm named after its file or experiment, and the
first is the baseline.
"""


@app.command(
    cls=Selecting,
    help=_COMPARE_HELP,
    epilog=examples(
        "compare",
        "experiments/ablation",
        "runs.csv --metric loss --baseline adam --arm optimizer --margin 0.02",
        "runs.csv --metric loss --baseline adam --hypothesis non_inferior --margin 0.02",
        "runs.csv --metric loss --target 3.28 --side better",
        "old.csv new.csv --metric accuracy --equal none",
        'runs.csv --map loss=val_loss --where "lr == 0.001" --where "model != tiny" --baseline a',
        '"sqlite:///mlflow.db#lm" --metric val_loss --baseline a --latex',
    ),
)
def compare(
    source: Source,
    other: Annotated[str | None, typer.Argument(help="A second source, compared with the first.")] = None,
    metric: Compared = None,
    baseline: Annotated[str | None, typer.Option(help="Arm to compare with.")] = None,
    arm: Annotated[str, typer.Option(help="Column with the arms.")] = "arm",
    block: Blocks = None,
    correction: Annotated[
        str | None, typer.Option(help="Over the arms: holm, bonferroni, benjamini_hochberg or none. [holm]")
    ] = None,
    margin: Margin = None,
    target: Target = None,
    hypothesis: Question = None,
    side: OneSide = None,
    direction: Direction = None,
    test: Annotated[str | None, typer.Option(help="What decides: t, sign_flip or wilcoxon. [t]")] = None,
    equal: Equal = None,
    tolerance: Tolerance = None,
    alpha: AlphaOrDeclared = None,
    drop_outliers: DropOutliers = False,
    columns: Map = None,
    units: Units = None,
    where: Where = None,
    drop_missing: DropMissing = False,
    plugin: Plugins = None,
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    from .paired.significance import compare as run
    from .paired.significance import fixed_arguments
    from .table.outliers import names_of_runs

    given = {
        "metric": metric,
        "baseline": baseline,
        "correction": correction,
        "margin": margin,
        "target": target,
        "hypothesis": hypothesis,
        "side": side,
        "direction": direction,
        "test": test,
        "equal": equal,
        "tolerance": tolerance,
        "alpha": alpha,
    }
    selected = selection(columns, units, where, drop_missing)
    if other is None:
        table, sweep = selected.read(source)
        _refuse_adaptive(source, sweep)
        declared = declared_arguments(sweep, metric, fixed_arguments)
    else:
        table, first = two_sources(source, other, arm, selected)
        declared = {"baseline": first if target is None else None}
    asked = completed(given, declared, source, table, arm)
    blocks: str | list[str] = "seed" if not block else block[0] if len(block) == 1 else block
    table = selected.measured(table, asked["metric"], arm, *(block or ["seed"]))
    names = partial(names_of_runs, arm=arm, block=blocks)
    result, table = with_or_without(partial(run, arm=arm, block=blocks, **asked), table, names, drop_outliers)
    lines = (result.sentence, *excluded(table))
    show(result.grid, result.to_dict(), *lines, as_json=as_json, markdown=markdown, latex=latex, shown=result)


@app.command(epilog=examples("report", "experiments/ablation", "experiments/ablation --latex > table.tex"))
def report(
    directory: Annotated[Path, typer.Argument(help="Folder of a sweep, e.g. experiments/ablation.")],
    plugin: Plugins = None,
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    """Write the report of a sweep and print its answer; exit code 1 where a plugin's analysis went wrong."""
    from .report.compose import write_report

    summary = write_report(directory)
    path = summary.report
    if as_json:
        from .plain_json import dump_json

        print(dump_json({**summary.to_dict(), "report": str(path)}))
    elif markdown:
        print(path.with_suffix(".md").read_text(encoding="utf-8"), end="")
    elif latex:
        print(summary.grid().to_latex(), end="")
    else:
        to_terminal(summary, f"report: {path}")
    if summary.failed:
        raise SystemExit(1)


@app.command(epilog=examples("verify", "experiments/ablation"))
def verify(
    directory: Annotated[Path, typer.Argument(help="Folder of a sweep with a report, e.g. experiments/ablation.")],
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Compute a report again; exit code 1 where a number differs or an input has changed, naming each."""
    from .report.verification import verify_report

    found = verify_report(directory)
    if as_json:
        from dataclasses import asdict

        from .plain_json import dump_json

        print(dump_json(asdict(found)))
    else:
        looked = f"{found.inputs} inputs and {found.outputs} files of the report in {directory}"
        print("\n".join([*found.differences, f"{len(found.differences) or 'no'} differences in {looked}"]))
    if found.differences:
        raise SystemExit(1)


app.add_typer(law_commands.app)
app.add_typer(statistics_commands.app)
app.add_typer(guess_command.app)


def _refuse_adaptive(source: str, sweep: Sweep | None) -> None:
    """The p values of a fixed number of seeds do not hold where seeds were added because of the results."""
    if sweep is not None and sweep.is_adaptive:
        raise AnalysisError(
            f"{source}: its seeds were added until the verdicts decided, so no test of a fixed number of seeds holds; "
            f"use {as_started(ANALYSIS)} sequential {source}"
        )


@contextmanager
def _plugins_warned_of() -> Iterator[None]:
    """What is wrong with installed plugins goes to standard error at the end, but for what ends the command itself."""
    said = ""
    try:
        yield
    except StackwiseError as error:
        said = str(error)
        raise
    finally:
        for problem in problems(said):
            print(f"warning: {problem}", file=sys.stderr)


def main(argv: list[str] | None = None) -> None:
    """Run the command line under the name that it was started by; our own errors become a message and exit code 2.

    Args:
        argv: The words behind the name of the program; None: of this process.
    """
    program = as_started(ANALYSIS)
    try:
        with disk_full_is_named(program), _plugins_warned_of():
            app(argv, prog_name=program)
    except (AnalysisError, ConfigError) as error:  # the second: of a plugin that was named, or was not
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except DiskFullError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        if error.filename is None:  # nobody's file: a fault of the program
            raise
        why = (error.strerror or str(error)).lower()
        print(f"error: {error.filename}: {why}; give a file or a folder that can be read or written", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
