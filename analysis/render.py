"""Numbers and tables as people read them: rich, Markdown, LaTeX, HTML and plain text from one `Grid`.

Used by the results of every room, the report and the command line. It formats what it is given and computes nothing; a
value that is absent prints as "not measured", never as 0.
"""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.quantities import ABSENT

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.table import Table

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "–": "--",
    "±": r"$\pm$",
    "×": r"$\times$",
    "∞": r"$\infty$",
    "·": r"$\cdot$",
    "<": "$<$",
    ">": "$>$",
    "α": r"$\alpha$",
    "δ": r"$\delta$",
}


def format_p(p: float | None) -> str:
    """A p value with two digits.

    >>> format_p(0.00421), format_p(1e-7), format_p(None)
    ('0.0042', '<0.0001', 'not measured')
    """
    if p is None:
        return ABSENT
    return "<0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.995 else "1"


def equals_p(p: float | None) -> str:
    """A p value in a sentence.

    >>> equals_p(0.00421), equals_p(1e-7)
    ('p = 0.0042', 'p < 0.0001')
    """
    return f"p = {format_p(p)}".replace("= <", "< ")


def format_range(values: Iterable[float], form: Callable[[float], str]) -> str:
    """The least and the greatest of some values; one of them where both look alike, "not measured" for none.

    >>> format_range([3.0, 1.0], str), format_range([], str)
    ('1.0 – 3.0', 'not measured')
    """
    listed = [float(value) for value in values]
    if not listed:
        return ABSENT
    low, high = form(min(listed)), form(max(listed))
    return low if low == high else f"{low} – {high}"


@dataclass(frozen=True)
class Grid:
    """A table of finished text: what every rendering shares.

    Attributes:
        columns: Headings.
        rows: Cells, one tuple per row.
        title: One line above.
        notes: Lines below.
        numeric: Columns to align right, by index.
        above: Lines above the title: what must be seen before the numbers.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    numeric: tuple[int, ...] = ()
    above: tuple[str, ...] = ()

    def of_columns(self, *names: str) -> Grid:
        """The same table with some of its columns, the first of each name, and without notes."""
        places = [self.columns.index(name) for name in names]
        rows = tuple(tuple(row[place] for place in places) for row in self.rows)
        numeric = tuple(index for index, place in enumerate(places) if place in self.numeric)
        return Grid(tuple(names), rows, self.title, (), numeric)

    def ends(self, most: int) -> Grid:
        """A table of at most so many rows: its first and its last ones, and one that says how many are between."""
        if len(self.rows) <= most:
            return self
        head = most // 2
        left_out = len(self.rows) - most
        between = (f"… {left_out} more", *("" for _ in self.columns[1:]))
        rows = (*self.rows[:head], between, *self.rows[head + left_out :])
        return Grid(self.columns, rows, self.title, self.notes, self.numeric, self.above)

    def to_markdown(self) -> str:
        """A pipe table (GitHub's dialect), title above and notes below."""
        head = [*(f"{_pipe(line)}\n" for line in self.above), *([f"**{_pipe(self.title)}**", ""] if self.title else [])]
        rules = ["---:" if index in self.numeric else "---" for index in range(len(self.columns))]
        lines = [_pipes(self.columns), "| " + " | ".join(rules) + " |", *(_pipes(row) for row in self.rows)]
        tail = ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n".join(head + lines + tail) + "\n"

    def to_latex(self) -> str:
        """A booktabs table."""
        shape = "".join("r" if index in self.numeric else "l" for index in range(len(self.columns)))
        body = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in self.rows]
        lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{shape}}}", r"\toprule"]
        lines += [" & ".join(_latex(name) for name in self.columns) + r" \\", r"\midrule", *body, r"\bottomrule"]
        lines += [r"\end{tabular}"]
        parts = [part.strip() for part in (*self.above, self.title, *self.notes) if part.strip()]
        caption = " ".join(part if part[-1] in ".;:" else f"{part}." for part in parts)
        if caption:
            lines.append(rf"\caption{{{_latex(caption)}}}")
        return "\n".join([*lines, r"\end{table}"]) + "\n"

    def to_html(self) -> str:
        """A plain HTML table, escaped."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td{self._style(i)}>{html.escape(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
            for row in self.rows
        )
        title = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        above = "".join(f"<p>{html.escape(line)}</p>" for line in self.above)
        return f"{above}<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"

    def _style(self, index: int) -> str:
        return ' style="text-align:right"' if index in self.numeric else ""

    def to_rich(self) -> Table:
        """A rich table; the notes are its caption."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=Text("\n".join([*self.above, self.title])) if self.above or self.title else None,
            caption=Text("\n".join(self.notes)) if self.notes else None,
            box=box.SIMPLE_HEAD,
            title_justify="left",
            caption_justify="left",
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for index, name in enumerate(self.columns):
            table.add_column(
                Text(name),
                justify="right" if index in self.numeric else "left",
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        return table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """On a terminal; title and notes are as wide as the screen, however narrow the table is."""
        from rich.text import Text

        table = Grid(self.columns, self.rows, "", (), self.numeric).to_rich()
        head = (
            [Text("\n".join([*self.above, *([self.title] if self.title else [])]))] if self.above or self.title else []
        )
        notes = [Text("\n".join(self.notes))] if self.notes else []
        yield from printed_lines(console, options, *head, table, *notes)

    def to_text(self) -> str:
        """Plain aligned text without ANSI, as wide as it needs."""
        widths = [max(len(row[i]) for row in (self.columns, *self.rows)) for i in range(len(self.columns))]
        lines = [*self.above, *([self.title] if self.title else [])]
        for row in (self.columns, tuple("─" * width for width in widths), *self.rows):
            padded = (
                cell.rjust(width) if index in self.numeric else cell.ljust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            lines.append("  ".join(padded).rstrip())
        return "\n".join([*lines, *self.notes])


def bullets(texts: Iterable[str]) -> Table:
    """A list for a terminal; further lines of a text begin below its first word."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1, 0, 0))
    for text in texts:
        table.add_row("  -", Text(text))
    return table


def printed_lines(console: Console, options: ConsoleOptions, *parts: RenderableType) -> Iterator[Segment]:
    """What rich prints of some tables and texts, without the blanks with which it fills every line."""
    from rich.segment import Segment

    for part in parts:
        for line in console.render_lines(part, options, pad=False):
            while line and not line[-1].text.rstrip():
                line.pop()
            yield from line[:-1]
            if line:
                yield Segment(line[-1].text.rstrip(), line[-1].style)
            yield Segment.line()


SHORT_ROWS = 8
"""Rows of a table in a short `repr`; the first and the last ones where it has more."""


class GridView(ABC):
    """How a result shows itself everywhere: a sentence, and a table with its notes. A result offers both.

    At a prompt it is short: the sentence and the ends of the table. `print` gives all of it.
    """

    @property
    @abstractmethod
    def sentence(self) -> str:
        """What was found, in one sentence."""

    @property
    @abstractmethod
    def grid(self) -> Grid:
        """The whole table as finished text."""

    def to_markdown(self) -> str:
        """A pipe table with the notes below."""
        return self.grid.to_markdown()

    def to_latex(self) -> str:
        """A booktabs table."""
        return self.grid.to_latex()

    def to_rich(self) -> Table:
        """A table for the terminal."""
        return self.grid.to_rich()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        yield from printed_lines(console, options, self.to_rich())

    def __str__(self) -> str:
        return f"{self.sentence}\n{self.grid.to_text()}"

    def __repr__(self) -> str:
        grid = self.grid
        table = Grid(grid.columns, grid.rows, "", (), grid.numeric, grid.above).ends(SHORT_ROWS).to_text()
        notes = f"\n({len(grid.notes)} notes; print() shows them)" if grid.notes else ""
        return f"<{type(self).__name__}: {self.sentence}>\n{table}{notes}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.sentence)}</p>{self.grid.to_html()}"


class TextView:
    """How a small result shows itself in a notebook: as its text."""

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>"


def _pipe(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_pipe(cell) for cell in cells) + " |"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
