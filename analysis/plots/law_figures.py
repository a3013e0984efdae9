"""The figures of scaling laws: a law with its band and hold-out, and the valleys of IsoFLOP budgets.

Same style, palette and rules as `figures`: nothing is computed here beyond evaluating what was fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..scaling.allocation import optimal_allocation
from ..scaling.law_text import show_ends, show_value
from .figures import COLOURS, GREY, Panel, canvas, log_axis, save, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..scaling.certificate import HoldOut
    from ..scaling.isoflop_valleys import IsoFlopBudget, IsoFlopFit
    from ..scaling.laws import Array
    from ..scaling.scaling_fit import ScalingFit

_INK, _BLUE, _ORANGE, _GREEN = COLOURS[:4]
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_POINTS = 120
_LARGEST_PREFIX = 1e18


@styled
def law_figure(path: Path, fit: ScalingFit) -> Path:
    """The law with its 95 % band among the runs and, where runs were held out, these against what was predicted.

    Laws in one variable are drawn over it; `chinchilla` along its optimal allocation, below which no run should lie.
    """
    figure = _side_by_side(law_panels(fit))
    figure.suptitle(f"{fit.law}, {fit.n} runs: the certificate {fit.certificate.verdict}", fontsize=9.5)
    return save(figure, path)


def law_panels(fit: ScalingFit) -> list[Panel]:
    """The panels of `law_figure`, for a page that sets them itself."""
    panels = [Panel("law", lambda axes: _law(axes, fit))]
    held = fit.certificate.holdout
    if held is not None:
        panels.append(Panel("hold-out", lambda axes: _holdout(axes, held)))
    return panels


def _law(axes: Axes, fit: ScalingFit) -> None:
    measured = np.exp(fit.problem.y)
    if fit.law == "data_constrained":
        law = np.exp(fit.problem.law.log_loss(fit.theta[None, : len(fit.problem.law.parameters)], fit.problem.x)[0])
        axes.plot(law, measured, "o", color=_BLUE, alpha=0.6, markersize=3.5, markeredgewidth=0)
        axes.axline((float(law[0]), float(law[0])), slope=1, color=_INK, linewidth=1.1)
        axes.set(title="Measured against the law", xlabel="loss by the law", ylabel="measured loss")
        return
    if fit.variable is not None:
        name, x = fit.variable, np.exp(fit.problem.x[0])
    else:
        k = fit.flops_per_product[0] if fit.flops_per_product else 6.0
        name, x = f"{k:.3g} × params × tokens (FLOPs)", k * np.exp(fit.problem.x.sum(axis=0))
    line = np.geomspace(x.min(), x.max(), _POINTS)
    mean, low, high = _along(fit, line)
    axes.plot(x, measured, "o", color=_BLUE, alpha=0.5, markersize=3.5, markeredgewidth=0, label="runs")
    if low is not None:
        axes.fill_between(line, low, high, color=_ORANGE, alpha=0.18, linewidth=0, label="95% prediction interval")
    label = "law" if fit.variable else "law at the optimal allocation"
    axes.plot(line, mean, color=_ORANGE, label=label)
    axes.set(title=f"{fit.problem.law.quantity} = {fit.formula}", xlabel=name, ylabel="loss")
    _compute_axis(axes.xaxis)
    log_axis(axes.yaxis)
    axes.legend(loc="upper right")  # a law falls: this corner is the emptiest


def _compute_axis(axis: Any) -> None:
    """A logarithmic axis for FLOPs, in powers of ten where no decimal prefix is left."""
    log_axis(axis)
    if axis.get_view_interval()[1] > _LARGEST_PREFIX:
        axis.set_major_formatter(lambda value, _: f"{value:.3g}")


def _along(fit: ScalingFit, line: Array) -> tuple[Any, Any, Any]:
    """The law and its interval over its variable, or along the optimal allocation of a budget."""
    if fit.variable is not None:
        given: dict[str, Any] = {fit.variable: line}
        return fit.predict(**given)
    best = [optimal_allocation(fit, float(flops)) for flops in line]
    params, tokens = np.array(best).T
    return fit.predict(params=params, tokens=tokens)


def _holdout(axes: Axes, held: HoldOut) -> None:
    axes.set(title="Hold-out: the largest budget")
    predicted, measured = np.array(held.predicted), np.array(held.measured)
    ends = np.array([held.low, held.high])
    order = np.argsort(predicted, kind="stable")[::-1]
    rows = np.arange(held.n)
    inside = (ends[0] <= measured) & (measured <= ends[1])
    spread = np.abs(ends - predicted)[:, order]
    axes.errorbar(predicted[order], rows, xerr=spread, fmt="none", ecolor=GREY, linewidth=1.6, label="predicted, 95%")
    for mask, colour, marker, label in ((inside, _GREEN, "o", "measured, inside"), (~inside, _ORANGE, "X", "outside")):
        chosen = mask[order]
        if chosen.any():
            axes.plot(measured[order][chosen], rows[chosen], marker, color=colour, markersize=6, label=label)
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="loss", ylabel=f"runs from {held.at_least:.3g} {held.variable} on")
    axes.legend()


@styled
def isoflop_figure(path: Path, fit: IsoFlopFit) -> Path:
    """Each budget's losses over params with its curve's floor and, where there are floors, these over the budget."""
    return save(_side_by_side(isoflop_panels(fit)), path)


def isoflop_panels(fit: IsoFlopFit) -> list[Panel]:
    """The panels of `isoflop_figure`, for a page that sets them itself."""
    panels = [Panel("valleys", lambda axes: _valleys(axes, fit))]
    if fit.accepted:
        panels.append(Panel("optima", lambda axes: _growth(axes, fit)))
    return panels


def _side_by_side(panels: Sequence[Panel]) -> Figure:
    """All panels in one row."""
    figure, axes = canvas(1, len(panels), (5.5 * len(panels), 4.6))
    for panel, place in zip(panels, axes[0], strict=True):
        panel.draw(place)
    return figure


def _valleys(axes: Axes, fit: IsoFlopFit) -> None:
    for number, budget in enumerate(fit.budgets):
        _valley(axes, budget, COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)])
    axes.set(title="Loss over model size, by budget (FLOPs)", xlabel="params", ylabel="loss")
    log_axis(axes.xaxis)
    axes.legend(ncols=1 + len(fit.budgets) // 8, fontsize=8)


def _valley(axes: Axes, budget: IsoFlopBudget, colour: str, marker: str) -> None:
    label = budget.name if budget.refused is None else f"{budget.name} (no optimum)"
    filled: dict[str, Any] = {} if budget.refused is None else {"markerfacecolor": "white"}
    axes.plot(budget.sizes, budget.losses, marker, color=colour, markersize=4.5, label=label, **filled)
    if budget.params is None:
        return
    axes.plot(budget.curve_params, budget.curve_losses, color=colour, linewidth=1.2)
    floor = np.interp(budget.params, budget.curve_params, budget.curve_losses)
    axes.plot(budget.params, floor, "*", color=colour, markersize=12, markeredgecolor="white")


def _growth(axes: Axes, fit: IsoFlopFit) -> None:
    flops = [budget.flops for budget in fit.accepted]
    best = np.array([budget.params for budget in fit.accepted], dtype=float)
    for budget in fit.accepted:
        if budget.interval is not None:
            axes.plot([budget.flops] * 2, budget.interval, color=_BLUE, linewidth=2.2, solid_capstyle="butt")
    axes.plot(flops, best, "o", color=_BLUE, label="shared curve, 95%")
    akima = [(budget.flops, budget.akima_params) for budget in fit.accepted if budget.akima_params is not None]
    if akima:
        axes.plot(*zip(*akima, strict=True), "s", color=_GREEN, markerfacecolor="none", label="Akima")
    if fit.optima is not None:
        line = np.geomspace(min(flops), max(flops), 2)
        level, slope = fit.optima.params
        ends = f" [{show_ends(fit.intervals['a'])}]" if fit.intervals else ""
        label = f"flops^{show_value(fit.exponents['a'])}{ends}"
        axes.plot(line, np.exp(level + slope * (np.log(line) - fit.optima.centre)), color=_ORANGE, label=label)
    axes.set(title="Optimal size over the budget", xlabel="FLOPs", ylabel="optimal params")
    _compute_axis(axes.xaxis)
    log_axis(axes.yaxis)
    axes.legend()
