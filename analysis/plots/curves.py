"""The panels of a report's curves: loss along the way with seed bands, loss against four budgets, speed, FLOPs.

Called by `report.pictures`. Each panel takes data that is already loaded; none computes a statistic beyond the mean and
the range over seeds that it draws, and the Pareto front of those means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.metric import Direction
from stackwise_ray.core.metric_catalogue import badness, metric_axis
from stackwise_ray.core.quantities import format_count

from .figures import GREY, arm_marker, arm_style, log_axis, nothing, tick

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


TRAIN_WINDOW = 0.1
"""Each point of the drawn training loss averages the reports within ±10 % of its tokens: an even width on a
logarithmic axis. Single batches are too noisy to read."""
MOST_ARMS = 14
"""More arms than this are not told apart by colours and lines: no legend, no names, no training curves."""
FRONT_TOLERANCE = 0.01
"""Budgets within this share of each other count as equal, as they do in `compare`."""
MASKED_SHARES = (15, 30, 50, 75, 90)
"""Per cent of masked positions at which an encoder is scored; `validation/masked_loss` is the mean over them."""


@dataclass(frozen=True)
class BudgetAxis:
    """A budget that a run spends, as an axis.

    Attributes:
        column: In the table of runs; `on_the_way`: in the curves, where it is there.
        unit: Of the axis, in that of the column.
    """

    name: str
    label: str
    column: str
    on_the_way: str | None = None
    unit: float = 1.0


BUDGETS = (
    BudgetAxis("FLOPs", "training FLOPs", "flops", "flops"),
    BudgetAxis("tokens", "training tokens", "tokens", "tokens"),
    BudgetAxis("wall clock", "wall time of all attempts (s)", "attempt_seconds"),
    BudgetAxis("memory", "peak memory (MiB)", "memory/peak_bytes", unit=2.0**20),
)


def training_loss(axes: Axes, curves: pd.DataFrame, arms: Sequence[str]) -> None:
    """Training loss against tokens, smoothed."""
    _curve(axes, curves, "train/loss", arms, "tokens", window=TRAIN_WINDOW)
    axes.set(title="Training loss", ylabel=metric_axis("train/loss"), xlabel=metric_axis("tokens/total"))


def perplexity(axes: Axes, curves: pd.DataFrame, arms: Sequence[str]) -> None:
    """Validation perplexity against tokens."""
    _curve(axes, curves, "validation/perplexity", arms, "tokens", markers=True)
    axes.set(
        title="Validation perplexity", ylabel=metric_axis("validation/perplexity"), xlabel=metric_axis("tokens/total")
    )
    if axes.lines:
        log_axis(axes.yaxis)


def masked_shares(axes: Axes, runs: pd.DataFrame, arms: Sequence[str]) -> None:
    """An encoder's final loss against the share of masked positions, on masks that all arms have in common."""
    columns = [f"validation/masked_loss_{share}" for share in MASKED_SHARES]
    for arm in arms:
        values = runs.loc[runs["arm"] == arm, columns].dropna().to_numpy(float)
        if len(values):
            _band(axes, MASKED_SHARES, values, arm_style(arms, arm), marker="o")
    axes.set_xticks(MASKED_SHARES)
    axes.set(title="Loss by share of masks", xlabel="masked positions (%)", ylabel="loss (nats per masked token)")


def masked_gaps(axes: Axes, runs: pd.DataFrame, arms: Sequence[str]) -> None:
    """The same as paired differences from the first arm, whose curve would hide them."""
    columns = [f"validation/masked_loss_{share}" for share in MASKED_SHARES]
    first = runs[runs["arm"] == arms[0]].set_index("seed")[columns]
    for arm in arms:
        own = runs[runs["arm"] == arm].set_index("seed")[columns]
        gaps = (own - first).dropna().to_numpy(float)
        if len(gaps):
            _band(axes, MASKED_SHARES, gaps, arm_style(arms, arm), marker="o")
    axes.set_xticks(MASKED_SHARES)
    axes.set(title=f"Difference from {arms[0]}", xlabel="masked positions (%)", ylabel="nats per masked token, paired")


def against_budget(
    axes: Axes,
    budget: BudgetAxis,
    metric: str,
    curves: pd.DataFrame,
    runs: pd.DataFrame,
    arms: Sequence[str],
    direction: Direction,
) -> None:
    """The metric against one budget: the way there as a line, the end as a marker, the Pareto front ringed."""
    axes.set(title=f"against {budget.name}", xlabel=budget.label, ylabel=metric_axis(metric))
    ends = ended(runs, metric, budget, arms)
    if not ends:
        nothing(axes, f"{budget.column}: not measured")
        return
    measured = curves[curves["metric"] == metric].groupby(["arm", "seed"]).size()
    with_curves = budget.on_the_way is not None and bool((measured > 1).any())  # one report is the end, no way there
    if with_curves:
        _curve(axes, curves, metric, arms, str(budget.on_the_way))
    for arm, (spent, value) in ends.items():
        own = runs.loc[runs["arm"] == arm, [budget.column, metric]].dropna()
        colour = arm_style(arms, arm)["color"]
        axes.plot(own[budget.column] / budget.unit, own[metric], ".", color=colour, markersize=4, alpha=0.5)
        marker = arm_marker(arms, arm)
        axes.plot([spent / budget.unit], [value], marker, color=colour, markersize=6.5, markeredgecolor="white")
    front = pareto_front(ends, direction=direction)
    xs, ys = [ends[arm][0] / budget.unit for arm in front], [ends[arm][1] for arm in front]
    axes.plot(xs, ys, "o", markersize=13, markerfacecolor="none", markeredgecolor="#222222", markeredgewidth=1.1)
    axes.step(xs, ys, where="post", color="#222222", linewidth=0.8, linestyle=(0, (1, 2)))
    if not with_curves:
        _scattered(axes, {arm: (spent / budget.unit, value) for arm, (spent, value) in ends.items()}, arms)


def _scattered(axes: Axes, points: Mapping[str, tuple[float, float]], arms: Sequence[str]) -> None:
    """Names beside the markers, which no line tells apart, and an axis that does not magnify equal budgets."""
    from matplotlib.ticker import FuncFormatter

    spent = [x for x, _ in points.values()]
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    axes.margins(x=0.14, y=0.1)
    if max(spent) > 10 * min(spent) > 0:
        axes.set_xscale("log")
        log_axis(axes.xaxis)
    elif max(spent) < 1.1 * min(spent):
        axes.set_xlim(0.9 * min(spent), 1.1 * max(spent))
    if len(points) > MOST_ARMS:
        return
    bottom, top = axes.get_ylim()
    free = bottom
    for arm, (x, y) in sorted(points.items(), key=lambda item: item[1][1]):
        height = max(y, free)
        free = height + 0.055 * (top - bottom)
        right = axes.transLimits.transform(axes.transScale.transform((x, y)))[0] > 0.5
        axes.annotate(
            arm,
            (x, height),
            xytext=(-9 if right else 9, 4),
            textcoords="offset points",
            fontsize=8.5,
            ha="right" if right else "left",
            color=arm_style(arms, arm)["color"],
        )


def ended(runs: pd.DataFrame, metric: str, budget: BudgetAxis, arms: Sequence[str]) -> dict[str, tuple[float, float]]:
    """By arm, the mean budget and the mean metric over the runs that recorded both."""
    if metric not in runs.columns or budget.column not in runs.columns:
        return {}
    means = {arm: runs.loc[runs["arm"] == arm, [budget.column, metric]].dropna() for arm in arms}
    return {
        arm: (float(part[budget.column].mean()), float(part[metric].mean())) for arm, part in means.items() if len(part)
    }


def speed(axes: Axes, runs: pd.DataFrame, arms: Sequence[str]) -> None:
    """Tokens a second."""
    _dots(axes, runs, "throughput/tokens_per_s", arms)
    axes.set(title="Training speed (one dot per seed)", xlabel="tokens per second")


def seeds_drawn(curves: pd.DataFrame) -> str:
    """How many seeds stand behind the lines, in words."""
    if curves.empty:
        return "no reports"
    counts = curves.groupby("arm")["seed"].nunique()
    least, most = int(counts.min()), int(counts.max())
    if most == 1:
        return "one seed"
    return f"mean over {most if least == most else f'{least} to {most}'} seeds, band: their range"


def _curve(
    axes: Axes,
    curves: pd.DataFrame,
    metric: str,
    arms: Sequence[str],
    x: str,
    *,
    window: float = 0.0,
    markers: bool = False,
) -> None:
    """Mean over seeds as a line, their range as a band, on a logarithmic budget axis."""
    chosen = curves[(curves["metric"] == metric) & (curves[x] > 0)]
    if chosen.empty:
        nothing(axes, f"{metric}: not measured")
        return
    for arm in arms:
        lines = [
            _smooth(part[x].to_numpy(float), part["value"].to_numpy(float), window)
            for _, part in chosen[chosen["arm"] == arm].sort_values("step").groupby("seed")
        ]
        if not lines:
            continue
        grid, values = _common(lines)
        _band(axes, grid, values, arm_style(arms, arm), marker="o" if markers and len(grid) <= 40 else "")
    axes.set_xscale("log")
    log_axis(axes.xaxis)


def _band(axes: Axes, x: Any, values: NDArray[np.float64], style: Mapping[str, Any], *, marker: str) -> None:
    """The mean over seeds (rows of `values`) as a line, their range as a band where there are several."""
    axes.plot(x, values.mean(axis=0), marker=marker, markersize=3.2, **style)
    if len(values) > 1:
        band = values.min(axis=0), values.max(axis=0)
        axes.fill_between(x, *band, color=style["color"], alpha=0.16, linewidth=0)


def _smooth(
    x: NDArray[np.float64], y: NDArray[np.float64], window: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of the points whose budget lies within a share `window` of each point's own."""
    import numpy as np

    if window == 0:
        return x, y
    sums = np.concatenate([[0.0], np.cumsum(y)])
    starts, ends = np.searchsorted(x, x * (1 - window), side="left"), np.searchsorted(x, x * (1 + window), side="right")
    return x, (sums[ends] - sums[starts]) / (ends - starts)


def _common(
    lines: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All seeds' values on one grid: their own points, inside the range that every seed covers."""
    import numpy as np

    low, high = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    longest = max((x for x, _ in lines), key=len)
    grid = longest[(longest >= low) & (longest <= high)]
    grid = np.unique(np.concatenate([[low], grid, [high]])) if low <= high else longest[:1]
    return grid, np.stack([np.interp(grid, x, y) for x, y in lines])


def _dots(axes: Axes, runs: pd.DataFrame, metric: str, arms: Sequence[str]) -> None:
    """One dot per seed and a bar to the mean, one row per arm."""
    from matplotlib.ticker import FuncFormatter

    axes.set_yticks(range(len(arms)), arms)
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    if metric not in runs.columns or runs[metric].notna().sum() == 0:
        nothing(axes, f"{metric}: not measured")
        return
    for row, arm in enumerate(arms):
        values = runs.loc[runs["arm"] == arm, metric].dropna().to_numpy(float)
        if not len(values):
            axes.text(
                0.01, row, "not measured", transform=axes.get_yaxis_transform(), va="center", color=GREY, fontsize=8.5
            )
            continue
        colour = arm_style(arms, arm)["color"]
        axes.barh(row, values.mean(), height=0.55, color=colour, alpha=0.28, linewidth=0)
        axes.plot(
            values, [row] * len(values), "o", color=colour, markersize=4.5, markeredgecolor="white", markeredgewidth=0.6
        )
        axes.annotate(
            format_count(values.mean()),
            (values.max(), row),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color="#222222",
        )
    axes.set_xlim(0, 1.14 * float(runs[metric].max()))
    axes.xaxis.set_major_formatter(FuncFormatter(tick))


def flops(axes: Axes, runs: pd.DataFrame, arms: Sequence[str], tuning: Mapping[str, float]) -> None:
    """Training FLOPs of all of an arm's replicates, with those of its tuning stacked behind."""
    from matplotlib.ticker import FuncFormatter

    axes.set(title="Total training FLOPs", xlabel="FLOPs, all seeds of an arm")
    axes.set_yticks(range(len(arms)), arms)
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    if "flops" not in runs.columns:
        nothing(axes, "flops/total: not measured")
        return
    widest = 0.0
    for row, arm in enumerate(arms):
        values = runs.loc[runs["arm"] == arm, "flops"].dropna()
        total, extra = float(values.sum()), float(tuning.get(arm, 0.0))
        colour = arm_style(arms, arm)["color"]
        axes.barh(row, total, height=0.55, color=colour, alpha=0.75, linewidth=0)
        if extra:
            axes.barh(
                row, extra, left=total, height=0.55, facecolor="white", edgecolor=colour, hatch="////", linewidth=0.8
            )
        text = f"{format_count(total)} in {len(values)} seed{'s' if len(values) != 1 else ''}"
        text += f" + {format_count(extra)} tuning" if extra else ""
        axes.annotate(text, (total + extra, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5)
        widest = max(widest, total + extra)
    axes.set_xlim(0, 2.4 * widest if widest else 1.0)
    axes.xaxis.set_major_formatter(FuncFormatter(tick))


def pareto_front(points: Mapping[str, tuple[float, float]], *, direction: Direction) -> list[str]:
    """Names of the points (budget, value) on the Pareto front, the cheapest first.

    A point is off the front where another has a better value for a budget no larger (within `FRONT_TOLERANCE`), or the
    same value for a smaller budget. It is a front of means: whether a difference is more than noise is for `compare`.

    >>> pareto_front({"a": (1.0, 2.0), "b": (2.0, 1.0), "c": (2.0, 3.0)}, direction="minimize")
    ['a', 'b']
    """
    sign = badness(direction)

    def beats(other: tuple[float, float], own: tuple[float, float]) -> bool:
        cheaper = other[0] * (1 + FRONT_TOLERANCE) < own[0]
        affordable = other[0] <= own[0] * (1 + FRONT_TOLERANCE)
        gain = sign * (own[1] - other[1])
        return (gain > 0 and affordable) or (gain == 0 and cheaper)

    front = [name for name, own in points.items() if not any(beats(other, own) for other in points.values())]
    return sorted(front, key=lambda name: points[name])
