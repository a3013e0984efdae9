"""A report as one HTML file that loads nothing: style and figures are inside, and there is no script.

Called by `compose` and `verification`. It renders what `page` holds and adds no word of its own. Tables scroll sideways
inside their own frame, so that the page itself never does on a phone. Figures do the same there, so that their text
keeps its size. Figures are SVG. They are on white in dark mode too, because their colours are chosen for white.
"""

from __future__ import annotations

import base64
import html
from pathlib import Path

from .page import Block, Items, Page, Paragraph, Picture, Section, Span, Table

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --soft: #5c5c5c; --line: #dcdcdc; --paper: #fff; --tint: #f5f5f2;
  --link: #0b5394; --warn: #8a4b00; --mark: #fff3c4; --shade: #0003; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --soft: #a3a3a3; --line: #3a3a3a; --paper: #161616;
  --tint: #202020; --link: #8ab8e6; --warn: #f0b866; --mark: #4a3f14; --shade: #fff4; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 1rem; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2.2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.8rem 0 .8rem; padding-top: .9rem; border-top: 1px solid var(--line); }
p, ul { max-width: 46rem; margin: .7rem 0; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; } li { margin: .25rem 0; }
a { color: var(--link); }
a.n { color: inherit; text-decoration: underline dotted var(--soft); text-decoration-thickness: 1px;
  text-underline-offset: .22em; }
a.n:hover, a.n:focus { color: var(--link); text-decoration-style: solid; }
.label { display: block; font-size: .78rem; letter-spacing: .06em; text-transform: uppercase; color: var(--soft); }
.question { font-size: 1.08rem; }
.answer { background: var(--tint); border-left: 3px solid var(--ink); padding: .8rem 1.1rem; font-size: 1.08rem;
  margin: 1.2rem 0; max-width: 52rem; }
.warning { color: var(--warn); border-left: 3px solid currentColor; padding-left: .8rem; font-size: .95rem; }
nav { font-size: .88rem; margin: 1.2rem 0 0; color: var(--soft); } nav a { margin-right: 1rem; white-space: nowrap;
  text-decoration: none; display: inline-block; padding: .15rem 0; }
.frame { overflow-x: auto; margin: 1rem 0; -webkit-overflow-scrolling: touch;
  background: linear-gradient(to left, var(--paper) 30%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--shade), transparent) right / 1rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .86rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: .86rem; padding-bottom: .4rem; }
caption span { position: sticky; left: 0; display: inline-block; max-width: calc(100vw - 2.5rem); }
th, td { padding: .38rem .75rem; border-bottom: 1px solid var(--line); vertical-align: top; white-space: nowrap; }
th { text-align: left; font-weight: 600; border-bottom: 1.5px solid var(--soft); vertical-align: bottom; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); padding-left: 0; max-width: 40vw;
  overflow: hidden; text-overflow: ellipsis; }
td.long { white-space: normal; min-width: 14rem; max-width: 34rem; overflow-wrap: anywhere; }
table.words th, table.words td { white-space: normal; min-width: 0; max-width: none; overflow-wrap: anywhere; }
table.words { width: 100%; max-width: 52rem; } table.words td:first-child { width: 11rem; }
.error { font-size: 1.08rem; font-weight: 600; }
.what-would-change-the-answer { margin-bottom: 0; }
tbody tr:hover td { background: var(--tint); }
tr:target td, table:target caption span, table:target td:first-child { background: var(--mark); }
figure { margin: 1.2rem 0; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: .8rem;
  background: #fff; border-radius: 4px; }
.panels:has(img:only-child) { max-width: 46rem; }
.panels img { width: 100%; max-width: 46rem; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .86rem; max-width: 46rem; margin-top: .5rem; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: .3rem 0 .6rem;
  font-size: .88rem; max-width: none; } .legend li { display: flex; align-items: center; gap: .45rem; margin: 0; }
.legend svg { background: #fff; border-radius: 2px; flex: none; }
@media (max-width: 40rem) { .panels { overflow-x: auto; grid-template-columns: minmax(100%, max-content); }
  .panels img { width: auto; min-width: 100%; max-width: none; } }
@media (max-width: 40rem) { table.words td:first-child { width: 30%; } }
@media (max-width: 40rem) { main { padding: 1.3rem 1rem 3rem; } h1 { font-size: 1.4rem; } }
@media print { main { max-width: none; padding: 0; } h2, figure, tr { break-inside: avoid; } nav { display: none; } }
"""
_LONG = 44
"""Characters from which a cell wraps instead of widening its table."""
_ONLY_ITSELF = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The page's content security policy: a browser that honours it could not load anything either."""


def to_html(page: Page) -> str:
    """The whole page; figures are read from their files, and one that is not there is an empty image."""
    anchors = [section.anchor or f"section-{index}" for index, section in enumerate(page.sections)]
    links = "".join(
        f'<a href="#{html.escape(anchor)}">{html.escape(section.title)}</a> '
        for anchor, section in zip(anchors, page.sections, strict=True)
    )
    head = "\n".join(_block(block) for block in page.head)
    body = "\n".join(_section(section, anchor) for section, anchor in zip(page.sections, anchors, strict=True))
    title = html.escape(page.title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_ONLY_ITSELF}">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n{head}\n<nav>{links}</nav>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _section(section: Section, anchor: str) -> str:
    blocks = "\n".join(_block(block) for block in section.blocks)
    return f'<section id="{html.escape(anchor)}">\n<h2>{html.escape(section.title)}</h2>\n{blocks}\n</section>'


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            kinds = ("warning" if block.warning else "", block.label.lower().replace(" ", "-"))
            kind = " ".join(filter(None, kinds))
            label = f'<span class="label">{html.escape(block.label)}</span>' if block.label else ""
            opened = f'<p class="{html.escape(kind)}">' if kind else "<p>"
            return f"{opened}{label}{''.join(map(_span, block.spans))}</p>"
        case Items():
            lines = ("".join(map(_span, spans)) for spans in block.spans)
            return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"
        case Table():
            return _table(block)
        case Picture():
            return _picture(block)


def _span(span: Span) -> str:
    return html.escape(span.text) if span.source is None else _link(html.escape(span.text), f"#{span.source}")


def _link(escaped: str, target: str) -> str:
    return f'<a class="n" href="{html.escape(target)}">{escaped}</a>'


def _table(table: Table) -> str:
    grid = table.grid
    rows = [_row(table, index) for index in range(len(grid.rows))]
    head = "".join(f'<th scope="col"{_right(table, i)}>{html.escape(name)}</th>' for i, name in enumerate(grid.columns))
    caption = f"<caption><span>{html.escape(grid.title)}</span></caption>" if grid.title else ""
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in grid.notes)
    return (
        f'<div class="frame" tabindex="0"><table{_words(table)}{_identity(table.anchor)}>{caption}'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{notes}"
    )


def _row(table: Table, index: int) -> str:
    links = table.links[index] if table.links else (None,) * len(table.grid.columns)
    cells = ""
    for place, (cell, link) in enumerate(zip(table.grid.rows[index], links, strict=True)):
        text = html.escape(cell)
        kind = ' class="long"' if len(cell) > _LONG and place else ""
        cells += f"<td{kind}{_right(table, place)}>{_link(text, link) if link else text}</td>"
    anchor = table.row_anchors[index] if table.row_anchors else None
    return f"<tr{_identity(anchor)}>{cells}</tr>"


def _words(table: Table) -> str:
    return ' class="words"' if table.words else ""


def _right(table: Table, index: int) -> str:
    return ' style="text-align:right"' if index in table.grid.numeric else ""


def _identity(anchor: str | None) -> str:
    return f' id="{html.escape(anchor)}"' if anchor else ""


def _picture(picture: Picture) -> str:
    legend = "".join(
        f'<li><svg width="34" height="12" aria-hidden="true"><line x1="1" x2="33" y1="6" y2="6" stroke="{colour}" '
        f'stroke-width="2.4" stroke-dasharray="{dashes}"/></svg>{html.escape(name)}</li>'
        for name, colour, dashes in picture.legend
    )
    listed = f'<ul class="legend">{legend}</ul>' if legend else ""
    images = "".join(
        f'<img src="{_embedded(path)}" alt="{html.escape(picture.title)}: {html.escape(path.stem)}">'
        for path in picture.figure.panel_paths
    )
    title = _link(html.escape(picture.title), f"#{picture.source}")
    caption = f"{title}. {html.escape(picture.caption)}".strip()
    return f'<figure>{listed}<div class="panels">{images}</div><figcaption>{caption}</figcaption></figure>'


def _embedded(path: Path) -> str:
    content = path.read_bytes() if path.is_file() else b""
    return f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"
