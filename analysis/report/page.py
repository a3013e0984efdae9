"""What a report says, apart from how it looks: sections of paragraphs, lists, tables and figures, with their sources.

Used by `compose`, the modules of its sections and the steps; `to_markdown` writes `report.md`, `html_page` writes
`report.html` from the same parts. A number's source is the anchor of the runs it came from, in the page's own table of
runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..plots.figures import PanelFigure
from ..render import Grid
from ..table.sweep_directory import Sweep

ALL_RUNS = "runs"
"""Anchor of the section that lists every run."""


@dataclass(frozen=True)
class Span:
    """A piece of text and the anchor of the runs that it speaks of; None: it speaks of none."""

    text: str
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """Running text; `label` stands before it in bold, a `warning` stands out as a whole."""

    spans: tuple[Span, ...]
    label: str = ""
    warning: bool = False

    @property
    def text(self) -> str:
        """The paragraph without its links."""
        return "".join(span.text for span in self.spans)


@dataclass(frozen=True)
class Items:
    """A list, one line per item; `sources` are the anchors of the runs that each speaks of, empty: of none."""

    lines: tuple[str, ...]
    sources: tuple[str | None, ...] = ()

    @property
    def spans(self) -> tuple[tuple[Span, ...], ...]:
        """Every line, what follows its first colon linked where it has a source."""
        return tuple(
            _item(line, source)
            for line, source in zip(self.lines, self.sources or (None,) * len(self.lines), strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class Table:
    """A grid with where its cells lead and where links may arrive.

    Attributes:
        links: By row and cell, what a cell links to (an anchor "#…" or a path beside the page); empty: nothing.
        anchor: Anchor of the whole table; `row_anchors` those of its rows.
        words: Whether its cells are words, which wrap instead of making the table wider than the screen.
    """

    grid: Grid
    links: tuple[tuple[str | None, ...], ...] = ()
    anchor: str | None = None
    row_anchors: tuple[str | None, ...] = ()
    words: bool = False


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure: one PNG for `report.md`, the same panels as SVG for the page, which sets them side by side or stacked.

    Attributes:
        title: What it shows, also for those who cannot see it.
        figure: Its files, and how they are drawn.
        legend: Name, colour and dash pattern (of an SVG stroke) of each line.
        caption: How to read it.
        source: Anchor of the runs that it is drawn from.
    """

    title: str
    figure: PanelFigure
    legend: tuple[tuple[str, str, str], ...] = ()
    caption: str = ""
    source: str = ALL_RUNS


Block = Paragraph | Items | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]
    anchor: str | None = None


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole report; `head` stands above the first section."""

    title: str
    head: tuple[Block, ...]
    sections: tuple[Section, ...]


def arm_anchor(sweep: Sweep, arm: str) -> str:
    """Anchor of the table of an arm's runs; of the search's where the sweep is one."""
    return role_anchor("search") if sweep.is_search else f"{ALL_RUNS}-of-{_escaped(arm)}"


def arms_anchor(sweep: Sweep, arms: Sequence[str]) -> str | None:
    """Where the runs behind a remark are: those of its arm, those of all arms; None where it is about no runs."""
    if not arms:
        return None
    return arm_anchor(sweep, arms[0]) if len(arms) == 1 else ALL_RUNS


def arm_sources(sweep: Sweep, grid: Grid) -> list[str | None]:
    """The anchor of each row of a table with one row per arm, whose name comes first."""
    return [arm_anchor(sweep, row[0]) for row in grid.rows]


def role_anchor(role: str) -> str:
    """Anchor of the table of all tuning or all search trials."""
    return f"{ALL_RUNS}-{role}"


def run_anchor(trial_id: str, arm: str) -> str:
    """Anchor of one run in the table of one arm: a run may stand under two."""
    return f"run-{_escaped(trial_id)}-{_escaped(arm)}"


def _escaped(text: str) -> str:
    """Letters, digits and dots as they are, everything else by its number: different texts stay different.

    >>> _escaped("lr=1e-3 wide")
    'lr_61_1e_45_3_32_wide'
    """
    return re.sub(r"[^0-9A-Za-z.]", lambda found: f"_{ord(found.group())}_", text)


def plain(text: str, label: str = "", *, warning: bool = False) -> Paragraph:
    """A paragraph that links to nothing."""
    return Paragraph(spans=(Span(text),), label=label, warning=warning)


def _item(line: str, source: str | None) -> tuple[Span, ...]:
    if source is None or not any(character.isdigit() for character in line):
        return (Span(line),)
    subject, colon, rest = line.partition(": ")
    return (Span(subject + colon), Span(rest, source)) if colon else (Span(line, source),)


def sourced(grid: Grid, sources: Sequence[str | None], *, words: Sequence[int] = ()) -> Table:
    """A table whose numbers link to the runs of their row.

    Args:
        sources: Anchor by row.
        words: Columns whose digits are no measurements (names, settings), by index; the first is always one.
    """
    links = tuple(
        tuple(
            f"#{source}" if source and index and index not in words and any(c.isdigit() for c in cell) else None
            for index, cell in enumerate(row)
        )
        for row, source in zip(grid.rows, sources, strict=True)
    )
    return Table(grid=grid, links=links)


def sentence_and_table(
    sentence: str, grid: Grid, *, believable: bool = True
) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
    """A finding over all runs as a page shows it: its sentence (as a warning where it is not believable) above the
    figure, its table and the table's notes below."""
    table = sourced(Grid(grid.columns, grid.rows, grid.title, (), grid.numeric), [ALL_RUNS] * len(grid.rows))
    notes = (Items(grid.notes, (ALL_RUNS,) * len(grid.notes)),) if grid.notes else ()
    return (Paragraph(spans=(Span(sentence, ALL_RUNS),), warning=not believable),), (table, *notes)


def file_name(text: str) -> str:
    """`text` with everything that a file name should not hold replaced by "_".

    >>> file_name("lr=3e-4/wide")
    'lr=3e-4_wide'
    """
    kept = "".join(c if c.isalnum() or c in "-_.=+," else "_" for c in text).lstrip(".")
    return kept or "_"


def to_markdown(page: Page, folder: Path) -> str:
    """The page as Markdown; pictures are linked relative to `folder`."""
    parts = [f"# {page.title}", *(_block(block, folder) for block in page.head)]
    for section in page.sections:
        parts += [f"## {section.title}", *(_block(block, folder) for block in section.blocks)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _block(block: Block, folder: Path) -> str:
    match block:
        case Paragraph():
            if block.warning:
                return f"> **{block.label}{'. ' if block.label else ''}{block.text}**"
            return f"**{block.label}.** {block.text}" if block.label else block.text
        case Items():
            return "\n".join(f"- {line}" for line in block.lines)
        case Table():
            return block.grid.to_markdown()
        case Picture():
            image = f"![{block.title}]({block.figure.path.relative_to(folder).as_posix()})"
            return f"{image}\n\n{block.caption}" if block.caption else image
