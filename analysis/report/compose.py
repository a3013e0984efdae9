"""The report of a sweep: `report/report.html` and `report/report.md` with figures, and the JSON files beside them.

Called by the sweep command at its end and by `python -m analysis report`. The page is composed once (`compose`) and
written twice, so that both files say the same. Order: the first page (question, answer, one figure, set-up, cost, what
would change the answer), comparison tables, curves, loss against budgets, what the declared steps found (scaling laws),
what else was measured, claims of the flags, what failed and why, provenance, every run.
It prints what the journal holds and what `compare` found; a number that nobody measured is "not measured".
"""

from __future__ import annotations

from pathlib import Path

from stackwise_ray.core.atomic import atomic_write_text

from ..plots.figures import draw_panels
from ..table.sweep_directory import read_sweep
from .digests import write_digests
from .html_page import to_html
from .page import Page, to_markdown
from .pictures import Pictures, pictures
from .results_json import write_results
from .sections import findings as sections
from .sections import first_page
from .sections import trial_tables as trials
from .sections.claims import claims_section
from .summary import Summary, summarise, summary_table

__all__ = ["summary_table", "write_report"]


def write_report(sweep_directory: str | Path) -> Summary:
    """Write the report of a sweep and return what it says; `Summary.report` is the path of its page.

    Every file is written whole or not at all; figures and JSON files come first, the text that links to them after,
    and last `digests.json`, by which `verify` finds an input or an output that has changed since.

    Raises:
        AnalysisError: There is no journal in `sweep_directory`, or no trial in it.
    """
    sweep = read_sweep(sweep_directory)
    summary = summarise(sweep)
    folder = summary.report.parent
    drawn = pictures(summary, folder / "figures")
    files = [path for figure in drawn.figures for path in figure.files]
    for figure in drawn.figures:
        draw_panels(figure)
    for stale in {*folder.glob("figures/*.png"), *folder.glob("figures/*.svg")} - set(files):
        stale.unlink()
    results = write_results(summary, folder)
    page = compose(summary, drawn)
    html, text = summary.report, folder / "report.md"
    atomic_write_text(html, to_html(page))
    atomic_write_text(text, to_markdown(page, folder))
    write_digests(folder, sweep.directory, [text, html, *results, *files])
    return summary


def compose(summary: Summary, drawn: Pictures) -> Page:
    """The whole page; sections that have nothing to say are left out."""
    sweep = summary.sweep
    found = [
        sections.comparison(summary, drawn),
        first_page.arms(summary),
        sections.curves(summary, drawn),
        sections.budgets(summary, drawn),
        *sections.declared(summary, drawn),
        sections.planned(sweep),
        sections.perplexities(summary),
        sections.oracle(sweep),
        sections.search_points(summary),
        sections.tuning(sweep),
        claims_section(sweep, summary),
        trials.failures(sweep),
        trials.provenance(sweep),
        trials.every_run(summary),
    ]
    return Page(
        title=sweep.name,
        head=first_page.head(summary, drawn),
        sections=tuple(part for part in found if part is not None),
    )
