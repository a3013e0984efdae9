"""The first page of a report: question, answer, one figure, set-up, what differs, cost, what would change the answer.

Called by `report.compose`. Every word is the summary's own, so that the terminal and JSON say the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...render import Grid
from ..page import ALL_RUNS, Block, Items, Paragraph, Section, Span, Table, arm_anchor, arms_anchor, plain
from ..pictures import Pictures
from ..setup_words import MANY_ARMS, Fact
from ..summary import Summary


def head(summary: Summary, drawn: Pictures) -> tuple[Block, ...]:
    """Everything above the first section."""
    sweep = summary.sweep
    blocks: list[Block] = [plain(sweep.question, "Question")] if sweep.question else []
    if summary.error is not None:
        blocks.append(plain(summary.error, "Error", warning=True))
    blocks += [plain(line, warning=True) for line in summary.warnings]
    blocks.append(Paragraph(label="Answer", spans=_answer(summary)))
    if summary.further:
        blocks.append(Items(summary.further, (ALL_RUNS,) * len(summary.further)))
    if drawn.leading is not None:
        blocks.append(drawn.leading)
    blocks += _facts(summary.setup, ("Setup", "what all arms share, or its range"))
    changed = summary.differences
    if changed is not None and len(changed.rows) <= MANY_ARMS:
        blocks.append(Table(grid=changed, words=True))
    elif changed is not None:
        blocks.append(plain(f"What differs: {len(changed.rows)} arms, listed under Arms."))
    blocks += _facts(summary.cost, ("Cost", "measured"))
    if summary.limits:
        blocks.append(plain("", "What would change the answer"))
        sources = tuple(arms_anchor(sweep, limit.arms) for limit in summary.limits)
        blocks.append(Items(tuple(limit.text for limit in summary.limits), sources))
    return tuple(blocks)


def arms(summary: Summary) -> Section | None:
    """What every arm changes, where the arms are too many for the first page."""
    changed = summary.differences
    if changed is None or len(changed.rows) <= MANY_ARMS:
        return None
    return Section("Arms", (Table(grid=changed, words=True),))


def _answer(summary: Summary) -> tuple[Span, ...]:
    """The sentence, each number linked to the runs behind it."""
    phrases = summary.phrases
    if not any(phrase.arm for phrase in phrases):
        return (Span(summary.verdict, ALL_RUNS if len(summary.sweep.runs) else None),)
    return tuple(Span(phrase.text, arm_anchor(summary.sweep, phrase.arm) if phrase.arm else None) for phrase in phrases)


def _facts(facts: Sequence[Fact], columns: tuple[str, str]) -> list[Block]:
    """Facts as a table of two columns, measured ones linked to the runs."""
    if not facts:
        return []
    links = tuple(
        (None, f"#{ALL_RUNS}" if fact.measured and any(c.isdigit() for c in fact.text) else None) for fact in facts
    )
    return [Table(grid=Grid(columns, tuple((fact.name, fact.text) for fact in facts)), links=links, words=True)]
