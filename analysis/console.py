"""What the commands of `python -m analysis` share: options of the output, and how a result is printed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

    from .render import Grid

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")]
Latex = Annotated[bool, typer.Option("--latex", help="Print a LaTeX table (booktabs).")]
Alpha = Annotated[float, typer.Option(help="Level of the test.")]


def show(grid: Grid, facts: Any, *lines: str, as_json: bool, markdown: bool, latex: bool, shown: Any = None) -> None:
    """One result in the form that was asked for.

    Args:
        grid: The table.
        facts: What JSON holds.
        lines: What stands below the table in a terminal.
        shown: What a terminal shows instead of the plain table.
    """
    if as_json:
        from .files import dump_json

        print(dump_json(facts))
    elif markdown or latex:
        print(grid.to_markdown() if markdown else grid.to_latex(), end="")
    else:
        to_terminal(grid.to_rich() if shown is None else shown, *lines)


def excluded(table: pd.DataFrame) -> list[str]:
    """One line a reason for what loading left out."""
    counts: dict[str, int] = {}
    for item in table.attrs.get("exclusions", ()):
        counts[item["why"]] = counts.get(item["why"], 0) + 1
    return [f"left out when loading: {count} × {why}" for why, count in counts.items()]


def to_terminal(*things: Any) -> None:
    """To a terminal with rich; elsewhere wide and without ANSI."""
    from rich.console import Console

    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200, no_color=True)
    for thing in things:
        console.print(thing, markup=False) if isinstance(thing, str) else console.print(thing)
