"""Numbers and tables as people read them: rich, Markdown, LaTeX, HTML and plain text from one `Grid`.

Called by `comparison`, `report` and the command line. It formats what it is given and computes nothing; a value that
is absent prints as "not measured", never as 0.
"""

from __future__ import annotations

import html
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

ABSENT = "not measured"
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


def decimals_for(spread: float, digits: int = 2) -> int:
    """Decimal places that show `digits` digits of `spread`.

    >>> decimals_for(0.0123), decimals_for(12.0)
    (3, 0)
    """
    if not math.isfinite(spread) or spread == 0:
        return 4
    return min(12, max(0, digits - 1 - math.floor(math.log10(abs(spread)))))


def format_number(value: float | None, decimals: int, *, signed: bool = False) -> str:
    """A number with a real minus sign; None is "not measured"."""
    if value is None:
        return ABSENT
    text = f"{value:{'+' if signed else ''},.{decimals}f}"
    return text.replace("-", "−")


def format_significant(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits, never in scientific notation.

    >>> format_significant(7.92412), format_significant(88412.37)
    ('7.924', '88,412')
    """
    if value is None or math.isnan(value):
        return ABSENT
    return format_number(value, decimals_for(value, digits))


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


def format_flops(value: float | None) -> str:
    """Counted FLOPs with a decimal prefix.

    >>> format_flops(1.234e12)
    '1.23 TFLOP'
    """
    if value is None or math.isnan(value):
        return ABSENT
    return f"{format_count(value)}FLOP"


def format_count(value: float | None) -> str:
    """A count with three digits and a decimal prefix, ready for a unit.

    >>> format_count(1.234e12), format_count(198_432)
    ('1.23 T', '198 k')
    """
    if value is None or math.isnan(value):
        return ABSENT
    for prefix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale * 0.9995:
            scaled = value / scale
            return f"{scaled:.{max(0, 2 - math.floor(math.log10(abs(scaled) * 1.0005)))}f} {prefix}"
    return f"{value:.0f} " if value == int(value) else f"{value:.3g} "


def format_bytes(value: float | None) -> str:
    """Bytes in binary units.

    >>> format_bytes(3 * 2**20)
    '3.0 MiB'
    """
    if value is None or math.isnan(value):
        return ABSENT
    for prefix, scale in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(value) >= scale:
            return f"{value / scale:.1f} {prefix}"
    return f"{value:.0f} B"


def format_seconds(value: float | None) -> str:
    """A duration in the two largest units that matter.

    >>> format_seconds(3725), format_seconds(42.3)
    ('1 h 02 min', '42 s')
    """
    if value is None or math.isnan(value):
        return ABSENT
    if value < 10:
        return f"{value:.2g} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@dataclass(frozen=True)
class Grid:
    """A table of finished text: what every rendering shares.

    Attributes:
        columns: Headings.
        rows: Cells, a tuple a row.
        title: One line above.
        notes: Lines below.
        numeric: Columns to align right, by index.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    numeric: tuple[int, ...] = ()

    def to_markdown(self) -> str:
        """A pipe table (GitHub's dialect), title above and notes below."""
        head = [f"**{_pipe(self.title)}**", ""] if self.title else []
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
        parts = [part.strip() for part in (self.title, *self.notes) if part.strip()]
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
        return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"

    def _style(self, index: int) -> str:
        return ' style="text-align:right"' if index in self.numeric else ""

    def to_rich(self) -> Table:
        """A rich table; the notes are its caption."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=Text(self.title) if self.title else None,
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

    def to_text(self) -> str:
        """Plain aligned text without ANSI, as wide as it needs."""
        widths = [max(len(row[i]) for row in (self.columns, *self.rows)) for i in range(len(self.columns))]
        lines = [self.title] if self.title else []
        for row in (self.columns, tuple("─" * width for width in widths), *self.rows):
            padded = (
                cell.rjust(width) if index in self.numeric else cell.ljust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            lines.append("  ".join(padded).rstrip())
        return "\n".join([*lines, *self.notes])


class GridView(ABC):
    """How a result shows itself everywhere: a sentence, and a table with its notes. A result offers both."""

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
        yield self.to_rich()

    def __str__(self) -> str:
        return f"{self.sentence}\n{self.grid.to_text()}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.sentence)}</p>{self.grid.to_html()}"


def _pipe(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_pipe(cell) for cell in cells) + " |"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
