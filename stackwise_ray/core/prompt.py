"""How our objects answer at a Python prompt and in a notebook: a title and a few rows, as text or as an HTML table.

Called by the objects' own `__repr__` and `_repr_html_`. Text is of at most 20 lines, whatever the object holds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape

MOST_LINES, MOST_NOTES, WIDTH = 20, 8, 100


def as_text(title: str, rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """Aligned columns under a title; rows and notes that do not fit are counted, long rows are cut, long notes wrapped.

    >>> print(as_text("Plan of x", [("arm", "steps"), ("a", "12")], ["not tuned"]))
    Plan of x
      arm  steps
      a    12
      not tuned
    """
    said = [line for note in notes for line in textwrap.wrap(note, WIDTH, subsequent_indent="  ")]
    if len(said) > MOST_NOTES:
        said = [*said[: MOST_NOTES - 1], f"… and {len(said) - MOST_NOTES + 1} more lines"]
    room = MOST_LINES - 1 - len(said)
    shown, hidden = (rows, 0) if len(rows) <= room else (rows[: room - 1], len(rows) - room + 1)
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)] if shown else []
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
    lines += [f"… and {hidden} more"] * bool(hidden)
    return "\n".join([_cut(title), *(f"  {_cut(line)}" for line in [*lines, *said])])


def as_html(title: str, rows: Sequence[Sequence[str]], notes: Sequence[str] = (), *, head: Sequence[str] = ()) -> str:
    """The same as an HTML table, complete.

    >>> as_html("a < b", [("x", "1")])
    '<b>a &lt; b</b><table><tr><td>x</td><td>1</td></tr></table>'
    """
    top = f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    said = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f"<b>{escape(title)}</b><table>{top}{body}</table>{said}"


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
