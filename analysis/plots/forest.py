"""The forest plot: paired differences with their intervals, one panel per comparison.

Called by `steps.compare`. An arm's name and numbers stand above its bar, so that the plot reads on a narrow screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.metric_catalogue import badness

from ..paired.comparison import ArmComparison, Comparison, verdict_text
from ..render import equals_p
from .figures import GREY, Panel, PanelFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_VERDICTS = {
    "better": ("#0072B2", "o"),
    "non_inferior": ("#009E73", "D"),
    "worse": ("#D55E00", "s"),
    "inferior": ("#D55E00", "s"),
    "equivalent": ("#009E73", "D"),
    "undecided": ("#777777", "o"),
}


MOST_BARS = 24
"""Arms that are drawn; of more of them the best and the worst."""
_OVER_LINES = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
"""Behind the text, which the line at zero would cross."""


def forest_plot(path: Path, comparison: Comparison) -> PanelFigure:
    """The comparison's panel, for a PNG at `path`; left and right say what is better."""
    height = 0.62 * min(len(comparison.arms), MOST_BARS) + 1.25
    panel = Panel("forest", partial(_forest, comparison))
    return PanelFigure(path=path, panels=(panel,), size=(6.0, height))


def how_to_read(comparison: Comparison) -> str:
    """What the bars, dots and bands are."""
    open_end = "" if comparison.side == "both" else ", on the open side drawn as far as the dots go"
    text = f"Bar: {comparison.interval_level} interval{open_end}; small dots: {comparison.dots}; "
    text += f"p after correction ({comparison.correction})"
    if len(comparison.arms) > MOST_BARS:
        text += f"; drawn are the {MOST_BARS // 2} best and the {MOST_BARS // 2} worst of {len(comparison.arms)} arms"
    if comparison.margin is None:
        return f"{text}."
    kind = "±" if comparison.hypothesis == "different" else "of non-inferiority, "
    return f"{text}; green band: margin {kind}{comparison.margin:g}."


def _forest(comparison: Comparison, axes: Axes) -> None:
    sign = badness(comparison.direction)
    order: Sequence[ArmComparison] = sorted(
        comparison.arms, key=lambda result: math.inf if result.difference is None else sign * result.difference
    )
    if len(order) > MOST_BARS:
        order = [*order[: MOST_BARS // 2], *order[-(MOST_BARS // 2) :]]
    axes.axvline(0, color="#222222", linewidth=1.1, zorder=1)
    if comparison.margin is not None:
        low, high = sorted((0.0, sign * comparison.margin))
        if comparison.hypothesis == "different":
            low, high = -comparison.margin, comparison.margin
        axes.axvspan(low, high, color="#009E73", alpha=0.10, linewidth=0, zorder=0)
    for row, result in enumerate(order):
        _row(axes, row, result)
    axes.set_yticks([])
    axes.set_ylim(len(order) - 0.6, -0.75)
    axes.grid(visible=False, axis="y")
    left, right = ("better", "worse") if comparison.direction == "minimize" else ("worse", "better")
    axes.set_xlabel(f"← {left}     difference from {comparison.reference}     {right} →")
    paired = "paired difference, arm" if comparison.target is None else "difference, run"
    axes.set_title(f"{comparison.metric}: {paired} − {comparison.reference}")
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)


def _row(axes: Axes, row: int, result: ArmComparison) -> None:
    colour, marker = _VERDICTS[result.verdict]
    above: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "bbox": _OVER_LINES}
    axes.text(0.0, row - 0.4, f"{result.arm}  (n = {result.n})", fontsize=9, color="#222222", **above)
    if result.difference is None:
        axes.text(1.0, row - 0.4, "no complete block", fontsize=8.5, color=GREY, ha="right", **above)
        return
    p = f"  {equals_p(result.p_adjusted)}" if result.p_adjusted is not None else ""
    found = f"{result.difference_text}{p}  {verdict_text(result)}"
    axes.text(1.0, row - 0.4, found, fontsize=8.5, color=colour, ha="right", **above)
    axes.plot(
        result.differences, [row + 0.2] * result.n, "o", color=colour, alpha=0.45, markersize=3.2, markeredgewidth=0
    )
    if result.interval is not None:
        reach = (min(*result.differences, result.difference), max(*result.differences, result.difference))
        ends = [
            end if math.isfinite(end) else far  # one side: the bar goes as far as the runs do
            for end, far in zip((result.interval.low, result.interval.high), reach, strict=True)
        ]
        axes.plot(ends, [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
    filled: dict[str, Any] = {"markerfacecolor": colour if result.verdict != "undecided" else "white"}
    axes.plot([result.difference], [row], marker, color=colour, markersize=7, markeredgewidth=1.6, **filled)
