"""The figures of a report: training curves with seed bands, loss against budgets, the forest plot.

Called by `report`. Each function takes data that is already loaded or decided and writes one PNG; none computes a
statistic beyond the mean and the range over seeds that it draws. matplotlib loads on first use, without pyplot and
without a display. Colours are Okabe and Ito's, which all common forms of colour blindness tell apart; lines differ in
style and markers in shape as well, so the figures survive a black-and-white print.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .comparison import ArmComparison, Comparison, verdict_text
from .render import format_count, format_p

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_COLOURS = ("#1a1a1a", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", "--", "-.", ":")
_VERDICTS = {
    "better": ("#0072B2", "o"),
    "worse": ("#D55E00", "s"),
    "equivalent": ("#009E73", "D"),
    "undecided": ("#777777", "o"),
}
_GREY = "#5a5a5a"
_STYLE: dict[Any, Any] = {
    "font.size": 9.5, "font.family": "DejaVu Sans", "axes.titlesize": 10.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#8a8a8a",
    "axes.labelcolor": "#222222", "xtick.color": "#444444", "ytick.color": "#444444", "axes.grid": True,
    "grid.color": "#e4e4e4", "grid.linewidth": 0.7, "axes.axisbelow": True, "legend.frameon": False,
    "figure.facecolor": "white", "lines.linewidth": 1.6,
}  # fmt: skip
_LEGEND_WIDTH = 125
"""Characters that fit into one row of a figure's legend; a line's sample takes eight."""
_TRAIN_WINDOW = 0.1
"""Each point of the drawn training loss averages the reports within ±10 % of its tokens: an even width on a
logarithmic axis. Single batches are too noisy to read."""
_Draw = TypeVar("_Draw", bound=Callable[..., Path])


def styled(draw: _Draw) -> _Draw:
    """Run a drawing function under the style of this module, leaving the user's matplotlib settings alone."""

    @functools.wraps(draw)
    def inside(*args: Any, **options: Any) -> Path:
        import matplotlib as mpl

        with mpl.rc_context(_STYLE):
            return draw(*args, **options)

    return cast("_Draw", inside)


@styled
def training_curves(
    path: Path,
    curves: pd.DataFrame,
    runs: pd.DataFrame,
    arms: Sequence[str],
    tuning_flops: Mapping[str, float] | None = None,
) -> Path:
    """Four panels: training loss, validation perplexity, speed, total training FLOPs.

    Args:
        path: PNG to write.
        curves: Long table of `runs.load_curves` with `train/loss` and `validation/perplexity`.
        runs: Table of `load_runs`.
        arms: Arms in drawing order, the baseline first; the order fixes the colours.
        tuning_flops: FLOPs spent on tuning by arm, stacked on the replicates' in another shade.
    """
    figure, axes = canvas(2, 2, (11.0, 7.8))
    _curve(axes[0][0], curves, "train/loss", arms, "tokens", window=_TRAIN_WINDOW)
    axes[0][0].set(title="Training loss", ylabel="loss (nats a token)")
    _curve(axes[0][1], curves, "validation/perplexity", arms, "tokens", markers=True)
    axes[0][1].set(title="Validation perplexity", ylabel="perplexity a token")
    if axes[0][1].lines:
        _log_axis(axes[0][1].yaxis)
    _dots(axes[1][0], runs, "throughput/tokens_per_s", arms)
    axes[1][0].set(title="Training speed (a dot a seed)", xlabel="tokens a second")
    _flops_bars(axes[1][1], runs, arms, tuning_flops or {})
    _legend(
        figure,
        arms,
        _seeds(curves),
        note=f"training loss: mean of the reports within ±{_TRAIN_WINDOW:.0%} of the tokens",
    )
    return save(figure, path)


@styled
def loss_curves(path: Path, curves: pd.DataFrame, arms: Sequence[str], metric: str = "validation/loss") -> Path:
    """The loss against the two budgets that every trial counts: tokens and training FLOPs."""
    figure, axes = canvas(1, 2, (11.0, 4.4), sharey=True)
    _curve(axes[0][0], curves, metric, arms, "tokens", markers=True)
    axes[0][0].set(title="against training tokens", ylabel=f"{metric} (nats a token)")
    _curve(axes[0][1], curves, metric, arms, "flops", markers=True)
    axes[0][1].set(title="against counted training FLOPs")
    _legend(figure, arms, _seeds(curves[curves["metric"] == metric]))
    return save(figure, path)


@styled
def forest_plot(path: Path, comparisons: Sequence[Comparison]) -> Path:
    """Paired differences with their intervals, a panel a comparison; left and right say what is better."""
    heights = [len(comparison.arms) + 1.6 for comparison in comparisons]
    figure, axes = canvas(len(comparisons), 1, (11.0, 0.55 * sum(heights) + 0.5), height_ratios=heights)
    for row, comparison in zip(axes, comparisons, strict=True):
        _forest(row[0], comparison)
    return save(figure, path)


def canvas(
    rows: int,
    columns: int,
    size: tuple[float, float],
    *,
    sharey: bool = False,
    height_ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[list[Axes]]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey, height_ratios=height_ratios)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08, wspace=0.04, hspace=0.06)  # type: ignore[union-attr, call-arg]
    return figure, [list(row) for row in grid]


def save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    figure.savefig(temporary, format="png", metadata={"Software": None})
    os.replace(temporary, path)
    return path


def arm_style(arms: Sequence[str], arm: str) -> dict[str, Any]:
    index = list(arms).index(arm)
    return {"color": _COLOURS[index % len(_COLOURS)], "linestyle": _LINES[index % len(_LINES)]}


def _seeds(curves: pd.DataFrame) -> str:
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
    label = {"tokens": "training tokens", "flops": "training FLOPs"}[x]
    if chosen.empty:
        _nothing(axes, f"{metric}: not measured")
        axes.set_xlabel(label)
        return
    for arm in arms:
        lines = [
            _smooth(part[x].to_numpy(float), part["value"].to_numpy(float), window)
            for _, part in chosen[chosen["arm"] == arm].sort_values("step").groupby("seed")
        ]
        if not lines:
            continue
        grid, values = _common(lines)
        style = arm_style(arms, arm)
        marker: dict[str, Any] = {"marker": "o", "markersize": 3.2} if markers and len(grid) <= 40 else {}
        axes.plot(grid, values.mean(axis=0), **style, **marker)
        if len(lines) > 1:
            axes.fill_between(
                grid, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.16, linewidth=0
            )
    axes.set_xscale("log")
    _log_axis(axes.xaxis)
    axes.set_xlabel(label)


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


def _log_axis(axis: Any) -> None:
    """A logarithmic axis with plain labels (2 M, not 2 × 10⁶), sensible within one decade too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis._set_axes_scale("log")
    low, high = axis.get_view_interval()
    decades = math.log10(high / low) if low > 0 else 1.0
    steps: tuple[float, ...] = (1.0,)
    if decades <= 3:
        steps = (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0) if decades > 0.8 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(base=10, subs=steps))
    axis.set_major_formatter(FuncFormatter(_tick))
    axis.set_minor_formatter(NullFormatter())


def _tick(value: float, _: object = None) -> str:
    """A tick with a decimal prefix and no trailing zeros: 10 k, 1.5 M, 0.2."""
    for prefix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale * 0.9995:
            return f"{value / scale:g} {prefix}"
    return f"{value:g}"


def _dots(axes: Axes, runs: pd.DataFrame, metric: str, arms: Sequence[str]) -> None:
    """A dot a seed and a bar to the mean, an arm a row."""
    from matplotlib.ticker import FuncFormatter

    axes.set_yticks(range(len(arms)), arms)
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    if metric not in runs.columns or runs[metric].notna().sum() == 0:
        _nothing(axes, f"{metric}: not measured")
        return
    for row, arm in enumerate(arms):
        values = runs.loc[runs["arm"] == arm, metric].dropna().to_numpy(float)
        if not len(values):
            axes.text(
                0.01, row, "not measured", transform=axes.get_yaxis_transform(), va="center", color=_GREY, fontsize=8.5
            )
            continue
        colour = arm_style(arms, arm)["color"]
        axes.barh(row, values.mean(), height=0.55, color=colour, alpha=0.28, linewidth=0)
        axes.plot(
            values, [row] * len(values), "o", color=colour, markersize=4.5, markeredgecolor="white", markeredgewidth=0.6
        )
        axes.annotate(
            format_count(values.mean()).strip(), (values.max(), row), xytext=(7, 0), textcoords="offset points",
            va="center", fontsize=8.5, color="#222222",
        )  # fmt: skip
    axes.set_xlim(0, 1.14 * float(runs[metric].max()))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))


def _flops_bars(axes: Axes, runs: pd.DataFrame, arms: Sequence[str], tuning: Mapping[str, float]) -> None:
    """Training FLOPs of all of an arm's replicates, with those of its tuning stacked behind."""
    from matplotlib.ticker import FuncFormatter

    axes.set(title="Total training FLOPs", xlabel="FLOPs, all seeds of an arm")
    axes.set_yticks(range(len(arms)), arms)
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    if "flops" not in runs.columns:
        _nothing(axes, "flops/total: not measured")
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
        text = f"{format_count(total).strip()} in {len(values)} seed{'s' if len(values) != 1 else ''}"
        text += f" + {format_count(extra).strip()} tuning" if extra else ""
        axes.annotate(text, (total + extra, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5)
        widest = max(widest, total + extra)
    axes.set_xlim(0, 1.95 * widest if widest else 1.0)
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))


def _forest(axes: Axes, comparison: Comparison) -> None:
    sign = 1.0 if comparison.direction == "minimize" else -1.0
    order = sorted(
        comparison.arms, key=lambda result: math.inf if result.difference is None else sign * result.difference
    )
    axes.axvline(0, color="#222222", linewidth=1.1, zorder=1)
    if comparison.margin is not None:
        axes.axvspan(-comparison.margin, comparison.margin, color="#009E73", alpha=0.10, linewidth=0, zorder=0)
    for row, result in enumerate(order):
        _forest_row(axes, row, result)
    axes.set_yticks(range(len(order)), [f"{result.arm}  (n = {result.n})" for result in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    left, right = ("better", "worse") if comparison.direction == "minimize" else ("worse", "better")
    legend = (
        f"bar: {1 - comparison.alpha:.0%} interval; small dots: blocks; p after correction ({comparison.correction})"
    )
    if comparison.margin is not None:
        legend += f"; green band: margin ±{comparison.margin:g}"
    axes.set_xlabel(f"← {left}     difference from {comparison.baseline}     {right} →\n{legend}", linespacing=1.6)
    axes.set_title(f"{comparison.metric}: paired difference, arm − {comparison.baseline}")
    axes.margins(x=0.06)


def _forest_row(axes: Axes, row: int, result: ArmComparison) -> None:
    colour, marker = _VERDICTS[result.verdict]
    at_right: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8.8}
    if result.difference is None:
        axes.text(1.015, row, "no complete block", color=_GREY, **at_right)
        return
    axes.plot(
        result.differences, [row + 0.22] * result.n, "o", color=colour, alpha=0.45, markersize=3.2, markeredgewidth=0
    )
    if result.interval is not None:
        axes.plot(
            [result.interval.low, result.interval.high], [row, row], color=colour, linewidth=2.2, solid_capstyle="butt"
        )
    filled: dict[str, Any] = {"markerfacecolor": colour if result.verdict != "undecided" else "white"}
    axes.plot([result.difference], [row], marker, color=colour, markersize=7, markeredgewidth=1.6, **filled)
    p = f"   p = {format_p(result.p_adjusted)}".replace("= <", "< ") if result.p_adjusted is not None else ""
    axes.text(
        1.015, row, f"{result.difference_text}{p}\n{verdict_text(result)}", color=colour, linespacing=1.25, **at_right
    )


def _legend(figure: Figure, arms: Sequence[str], seeds: str, note: str = "") -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linewidth=2, **arm_style(arms, arm)) for arm in arms]
    title = f"{seeds}; {note}" if note else seeds
    columns = max(1, min(len(arms), _LEGEND_WIDTH // (max(map(len, arms), default=0) + 8)))
    figure.legend(handles, list(arms), loc="outside upper center", ncols=columns, title=title, title_fontsize=8.5)


def _nothing(axes: Axes, text: str) -> None:
    axes.grid(visible=False)
    axes.tick_params(axis="x", length=0, labelbottom=False)
    if not axes.yaxis_inverted():  # rows of arms keep their names
        axes.tick_params(axis="y", length=0, labelleft=False)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=_GREY)
