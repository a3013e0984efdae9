"""`python -m analysis compare | report | power`: the package from a shell.

Each command prints a table; `--json`, `--markdown` and `--latex` print it for other programs and for papers. A mistake
in what was asked ends with one message and exit code 2.
"""

from __future__ import annotations

import errno
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import AnalysisError

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    name="analysis", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Answers from runs: paired comparisons with verdicts, power, and the report of a sweep.",
)  # fmt: skip


class Correction(StrEnum):
    """Corrections over the arms."""

    holm = "holm"
    bonferroni = "bonferroni"
    benjamini_hochberg = "benjamini_hochberg"
    none = "none"


class Direction(StrEnum):
    """Which values are good."""

    minimize = "minimize"
    maximize = "maximize"


class Test(StrEnum):
    """What decides."""

    t = "t"
    sign_flip = "sign_flip"
    wilcoxon = "wilcoxon"


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")]
Latex = Annotated[bool, typer.Option("--latex", help="Print a LaTeX table (booktabs).")]
Alpha = Annotated[float, typer.Option(help="Level of the test.")]

_COMPARE_HELP = """Compare every arm with a baseline, paired by block.

SOURCE is a sweep folder, a CSV file, or an MLflow experiment (sqlite:///mlflow.db#experiment). For a sweep, what is not
given here is as its file declares it. With two sources, each
is an arm named after its file or experiment, and the first is the baseline.

\b
Examples:
  python -m analysis compare experiments/ablation
  python -m analysis compare runs.csv --metric loss --baseline adam --arm optimizer --margin 0.02
  python -m analysis compare old.csv new.csv --metric accuracy --direction maximize --equal none
  python -m analysis compare "sqlite:///mlflow.db#lm" --metric val_loss --baseline a --latex
"""


@app.command(help=_COMPARE_HELP)
def compare(
    source: Annotated[str, typer.Argument(help="Sweep folder, CSV file or URI#EXPERIMENT.")],
    other: Annotated[str | None, typer.Argument(help="A second source, compared with the first.")] = None,
    metric: Annotated[str | None, typer.Option(help="Column to compare. [loss]")] = None,
    baseline: Annotated[str | None, typer.Option(help="Arm to compare with.")] = None,
    arm: Annotated[str, typer.Option(help="Column with the arms.")] = "arm",
    block: Annotated[list[str] | None, typer.Option(help="Column that pairs runs; may be repeated. [seed]")] = None,
    correction: Annotated[Correction | None, typer.Option(help="Over the arms. [holm]")] = None,
    margin: Annotated[float | None, typer.Option(help="Largest difference that does not matter.")] = None,
    direction: Annotated[Direction | None, typer.Option(help="Which values are good. [minimize]")] = None,
    test: Annotated[Test | None, typer.Option(help="What decides. [t]")] = None,
    equal: Annotated[
        str | None, typer.Option(help="flops, tokens, wall_seconds, steps, peak_bytes or none. [flops]")
    ] = None,
    tolerance: Annotated[float | None, typer.Option(help="Largest relative difference of budgets. [0.01]")] = None,
    alpha: Annotated[float | None, typer.Option(help="Level of the test. [0.05]")] = None,
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    from .significance import compare as run

    given = {
        "metric": metric, "baseline": baseline, "correction": correction, "margin": margin, "direction": direction,
        "test": test, "equal": equal, "tolerance": tolerance, "alpha": alpha,
    }  # fmt: skip
    asked: dict[str, Any] = {name: getattr(value, "value", value) for name, value in given.items() if value is not None}
    if other is None:
        from .runs import load_runs

        table = load_runs(source)
        asked = {**_declared(source, metric), **asked}
        if asked.get("baseline") is None:
            arms = ", ".join(map(str, table[arm].unique())) if arm in table.columns else f"no column '{arm}'"
            raise AnalysisError(f"say which arm is the baseline (--baseline); {source} has: {arms}")
    else:
        table, first = _two_sources(source, other, arm)
        asked = {"baseline": first, **asked}
    if asked.get("equal") == "none":
        asked["equal"] = None
    blocks: str | list[str] = "seed" if not block else block[0] if len(block) == 1 else block
    result = run(table, arm=arm, block=blocks, **{"metric": "loss", **asked})
    if as_json:
        from .files import dump_json

        print(dump_json(result.to_dict()))
    elif markdown or latex:
        print(result.to_markdown() if markdown else result.to_latex(), end="")
    else:
        _print(result, result.sentence, *_excluded(table))


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="Folder of a sweep, e.g. experiments/ablation.")],
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    """Write the report of a sweep and print its answer.

    \b
    Examples:
      python -m analysis report experiments/ablation
      python -m analysis report experiments/ablation --latex > table.tex
    """
    from .report import write_report
    from .summary import summary_table

    path = write_report(directory)
    summary = summary_table(directory)
    if as_json:
        from .files import dump_json

        print(dump_json({**summary.to_dict(), "report": str(path)}))
    elif markdown:
        print(path.read_text(encoding="utf-8"), end="")
    elif latex:
        print(summary.grid().to_latex(), end="")
    else:
        _print(summary, f"report: {path}")


@app.command()
def power(
    sd: Annotated[float, typer.Option(help="Standard deviation of the paired differences, in the metric's unit.")],
    effect: Annotated[float | None, typer.Option(help="True difference to find, in the same unit.")] = None,
    n: Annotated[int | None, typer.Option(help="Seeds (complete blocks).")] = None,
    target: Annotated[float, typer.Option("--power", help="Power to reach.")] = 0.8,
    alpha: Alpha = 0.05,
    as_json: Json = False,
    markdown: Markdown = False,
    latex: Latex = False,
) -> None:
    """Power of the paired t test: what n seeds can find, and how many an effect needs.

    \b
    Examples:
      python -m analysis power --sd 0.01 --effect 0.02
      python -m analysis power --sd 0.01 --n 3
    """
    from . import minimum_detectable_effect, seeds_needed
    from . import power as of_test
    from .render import Grid

    if effect is None and n is None:
        raise AnalysisError("say what to find (--effect) or how many seeds there are (--n), or both")
    facts: dict[str, Any] = {"sd_difference": sd, "alpha": alpha}
    if n is not None:
        facts |= {"n": n, "minimum_detectable_effect": minimum_detectable_effect(sd, n=n, power=target, alpha=alpha)}
    if effect is not None:
        facts |= {"effect": effect, "seeds_needed": seeds_needed(sd, effect=effect, power=target, alpha=alpha)}
        counts = sorted({*([n] if n else []), 2, 3, 5, 8, 10, 15, 20, 30, facts["seeds_needed"]})
        facts["power"] = {count: of_test(sd, effect=effect, n=count, alpha=alpha) for count in counts}
    lines = []
    if n is not None:
        lines.append(f"{n} seeds find a difference of ±{facts['minimum_detectable_effect']:.3g} with power {target:g}")
    if effect is not None:
        lines.append(f"a difference of {effect:g} needs {facts['seeds_needed']} seeds for power {target:g}")
    rows = tuple((str(count), f"{value:.3f}") for count, value in facts.get("power", {}).items())
    title = f"paired t test, sd of the differences {sd:g}, alpha {alpha:g}"
    grid = Grid(("seeds", f"power at {effect:g}"), rows, title, tuple(lines), (0, 1)) if effect is not None else None
    if as_json:
        from .files import dump_json

        print(dump_json(facts))
    elif grid is None:
        print("\n".join(lines))
    elif markdown or latex:
        print(grid.to_markdown() if markdown else grid.to_latex(), end="")
    else:
        _print(grid.to_text())


def _declared(source: str, metric: str | None) -> dict[str, Any]:
    """Arguments of the comparison that a sweep declares on `metric` (None: its first); only the baseline for others."""
    path = Path(source)
    if not path.is_dir() and path.suffix != ".sqlite":
        return {}
    from .sweep_directory import read_sweep

    sweep = read_sweep(path)
    listed = [arguments for arguments in sweep.declared() if metric in (None, arguments["metric"])]
    if listed:
        return listed[0]
    return {"baseline": sweep.baseline} if metric is not None else (sweep.undeclared() or {})


def _two_sources(first: str, second: str, arm: str) -> tuple[pd.DataFrame, str]:
    """Both tables as one, an arm a source (or `source/arm` where a source has several), and the first's name."""
    import pandas as pd

    from .runs import load_runs

    names = [_source_name(first), _source_name(second)]
    if names[0] == names[1]:
        names = [first, second]
    tables, exclusions = [], []
    for name, source in zip(names, (first, second), strict=True):
        table = load_runs(source)
        several = arm in table.columns and table[arm].nunique() > 1
        labels = [f"{name}/{value}" for value in table[arm]] if several else [name] * len(table)
        exclusions += [
            {**item, "arm": f"{name}/{item['arm']}" if several else name} for item in table.attrs["exclusions"]
        ]
        tables.append(table.assign(**{arm: labels}))
    merged = pd.concat([table.set_axis(table.columns) for table in tables], ignore_index=True)
    merged.attrs = {"exclusions": exclusions, "source": f"{first}, {second}"}
    return merged, str(tables[0][arm].iloc[0]) if len(tables[0]) else names[0]


def _source_name(source: str) -> str:
    return source.rpartition("#")[2] if "#" in source else Path(source).stem


def _excluded(table: pd.DataFrame) -> list[str]:
    """One line a reason for what loading left out."""
    counts: dict[str, int] = {}
    for item in table.attrs.get("exclusions", ()):
        counts[item["why"]] = counts.get(item["why"], 0) + 1
    return [f"left out when loading: {count} × {why}" for why, count in counts.items()]


def _print(*things: Any) -> None:
    """To a terminal with rich; elsewhere wide and without ANSI."""
    from rich.console import Console

    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200, no_color=True)
    for thing in things:
        console.print(thing, markup=False) if isinstance(thing, str) else console.print(thing)


def main() -> None:
    """Run the command line; our own errors become one message and exit code 2."""
    try:
        app(prog_name="python -m analysis")
    except AnalysisError as error:
        print(f"AnalysisError: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: {error.strerror} while writing; free some space and run the command again", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
