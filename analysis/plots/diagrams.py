"""Diagrams of the statistics themselves: Demšar's critical-difference diagram and power curves.

Called by `python -m analysis`; style and palette are those of `figures`. Nothing is computed here
that is not a function of what is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..paired.power import power
from ..tasks.ranking import Ranking
from .figures import arm_style, canvas, save, styled

_ROW = 0.26
"""Height of a name in a critical-difference diagram, in units of its axis."""


@styled
def critical_difference(path: Path, ranking: Ranking) -> Path:
    """Write a PNG: arms on an axis of mean ranks, best on the left; bars join those that are not told apart."""
    arms = list(ranking.mean_ranks)
    count = len(arms)
    half = (count + 1) // 2
    joined = [group for group in ranking.groups if len(group) > 1]
    bars = 0.16 * len(joined)
    depth = 0.35 + bars + _ROW * half
    figure, grid = canvas(1, 1, (9.0, 1.2 + 1.25 * depth))
    axes = grid[0][0]
    axes.set(xlim=(0.55, count + 0.45), ylim=(-depth - 0.1, 0.72), yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.grid(visible=False)
    axes.xaxis.set_ticks_position("top")
    axes.spines["top"].set_visible(True)
    axes.spines["top"].set_position(("data", 0.0))
    axes.set_xticks(range(1, count + 1))
    axes.tick_params(axis="x", direction="in", pad=3)
    span = ranking.critical_difference
    fits = 1 + span <= count + 0.4
    end = 1 + span if fits else count + 0.4
    axes.plot([1, end], [0.34, 0.34], "|-" if fits else "-", color="#222222", linewidth=1.2, markersize=9)
    beyond = "" if fits else ", wider than the axis"
    text = f"critical difference {span:.2f} (Nemenyi, level {ranking.alpha:g}{beyond})"
    axes.text(1, 0.46, text, va="bottom", fontsize=8.5)
    for index, (arm, rank) in enumerate(ranking.mean_ranks.items()):
        left = index < half
        row = -(0.35 + bars + _ROW * (index if left else count - 1 - index))
        edge = 0.62 if left else count + 0.38
        axes.plot([rank, rank, edge], [0.0, row, row], color=arm_style(arms, arm)["color"], linewidth=1.1)
        place, align = (edge, "left") if left else (edge, "right")
        axes.text(place, row + 0.03, f"{arm}  {rank:.2f}", ha=align, va="bottom", fontsize=9)
    for level, group in enumerate(joined):
        ends = (ranking.mean_ranks[group[0]] - 0.03, ranking.mean_ranks[group[-1]] + 0.03)
        axes.plot(ends, [-0.14 - 0.16 * level] * 2, color="#222222", linewidth=3.5, solid_capstyle="butt")
    axes.set_title(
        f"{ranking.metric}: mean ranks over {len(ranking.tasks)} tasks (1 is best; bars: not told apart)", pad=14
    )
    return save(figure, path)


@styled
def power_curves(path: Path, sd_difference: float, effects: Sequence[float], *, most: int, alpha: float = 0.05) -> Path:
    """Power of the paired t test against the number of seeds, one line per effect.

    Args:
        path: PNG to write.
        sd_difference: Standard deviation of the paired differences, in the metric's unit.
        effects: True differences, in the same unit.
        most: Largest number of seeds drawn.
    """
    figure, grid = canvas(1, 1, (7.5, 4.6))
    axes = grid[0][0]
    counts = sorted({*range(2, min(most, 40) + 1), *(round(most * share / 60) for share in range(3, 61) if most > 40)})
    counts = [count for count in counts if count >= 2]
    names = [f"{effect:g} ({abs(effect) / sd_difference:.2g} sd)" for effect in effects]
    for effect, name in zip(effects, names, strict=True):
        values = [power(sd_difference, effect=effect, n=count, alpha=alpha) for count in counts]
        axes.plot(counts, values, label=name, marker="o" if most <= 40 else "", markersize=3, **arm_style(names, name))
    axes.axhline(0.8, color="#8a8a8a", linewidth=0.9, linestyle=":")
    axes.set(ylim=(0, 1.02), xlabel="seeds (complete blocks)", ylabel="probability of a verdict")
    axes.set_title(f"Paired t test: sd of the differences {sd_difference:g}, level {alpha:g}")
    axes.legend(title="true difference", loc="lower right")
    return save(figure, path)
