"""Which figures a sweep's report has, and their captions.

Called by `compose` and `verification`. An encoder's training and validation losses are on each arm's own masks, so they
stand in no plot together: its curves are the loss on common masks, by the share of masked positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..plots import curves as panels
from ..plots import search_points
from ..plots.figures import Panel, PanelFigure, legend_entries
from .page import Picture
from .summary import MASKED_LOSS, Summary

if TYPE_CHECKING:
    import pandas as pd

_OWN_MASKS = (
    "No training curves: an encoder's training and validation losses are measured on each arm's own masks, and arms "
    "that mask differently cannot be compared by them. What is comparable is the loss on masks that all arms share, by "
    "the share of masked positions; it is measured at the end of a run."
)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The figures of a report, not drawn yet; None and empty where there is nothing to draw.

    Attributes:
        answers: Those of the declared steps, by the name of their file.
        search: The points of a search.
    """

    answers: Mapping[str, Picture] = field(default_factory=dict)
    training: Picture | None = None
    budgets: Picture | None = None
    search: Picture | None = None

    @property
    def leading(self) -> Picture | None:
        """The one figure of the first page."""
        return next(iter(self._all), None)

    def below(self, picture: Picture | None) -> Picture | None:
        """A figure for its own section; None where it is on the first page already."""
        return None if picture is self.leading else picture

    @property
    def figures(self) -> list[PanelFigure]:
        """Every one, in the order of the page."""
        return [picture.figure for picture in self._all]

    @property
    def _all(self) -> list[Picture]:
        return list(filter(None, (*self.answers.values(), self.search, self.training, self.budgets)))


def pictures(summary: Summary, folder: Path) -> Pictures:
    """Everything that the sweep's runs allow to be drawn into `folder`."""
    sweep = summary.sweep
    # The figure of the first page is that of the answer there, which a comparison gives wherever the file declares it.
    leading_first = sorted(summary.answers, key=lambda one: not (one.compares and one.finding is not None))
    found = {answer.figure: answer.picture(folder) for answer in leading_first}
    answers = {name: picture for name, picture in found.items() if picture is not None}
    search = _search(summary, folder)
    if sweep.runs.empty or sweep.is_search:
        return Pictures(answers=answers, search=search)
    metric = _metric(summary)
    shown = {"train/loss", "validation/perplexity", metric}
    curves = summary.curves[summary.curves["metric"].isin(shown)]
    training = _training(summary, curves, folder) if len(sweep.arms) <= panels.MOST_ARMS else None
    budgets = _budgets(summary, curves, metric, folder)
    return Pictures(answers=answers, training=training, budgets=budgets, search=search)


def _search(summary: Summary, folder: Path) -> Picture | None:
    """Every point of a search over each of its parameters."""
    sweep = summary.sweep
    goal = sweep.questions.first_goal
    points = search_points.points_of(sweep.search_trials, goal.metric)
    paths = search_points.drawn_paths(points)
    if not paths:
        return None
    again = search_points.points_of([t for t in sweep.trials if t.role == "replicate"], goal.metric)
    space = (sweep.file.get("search") or {}).get("space") or {}
    figure = PanelFigure(
        path=folder / "search_points.png",
        panels=tuple(
            Panel(
                path.replace(".", "-"),
                partial(
                    search_points.points_panel,
                    path=path,
                    metric=goal.metric,
                    points=points,
                    again=again,
                    logarithmic=search_points.is_logarithmic(space.get(path)),
                ),
            )
            for path in paths
        ),
    )
    fresh = "; crosses: the winner's runs on fresh seeds" if again else ""
    stopped = ""
    if any(point.stopped for point in points):
        stopped = "; hollow: stopped early, drawn at the edge where its loss then lies outside"
    caption = f"Dots: one run per point{stopped}{fresh}."
    return Picture(title=f"{goal.metric} over what was searched", figure=figure, caption=caption)


def _metric(summary: Summary) -> str:
    """What stands against the budgets: what the sweep compares; for encoders never the loss on own masks."""
    if _is_encoder(summary) and summary.metric == "validation/loss":
        return MASKED_LOSS
    return summary.metric


def _is_encoder(summary: Summary) -> bool:
    return MASKED_LOSS in summary.sweep.runs.columns


def _training(summary: Summary, curves: pd.DataFrame, folder: Path) -> Picture:
    sweep = summary.sweep
    runs, arms = sweep.runs, sweep.arms
    tuning = {arm: float(tuned.flops) for arm, tuned in sweep.tuning.items() if tuned.flops is not None}
    seeds = panels.seeds_drawn(curves)
    cost = [
        Panel("speed", partial(panels.speed, runs=runs, arms=arms)),
        Panel("flops", partial(panels.flops, runs=runs, arms=arms, tuning=tuning)),
    ]
    if _is_encoder(summary):
        first = [
            Panel("masked-shares", partial(panels.masked_shares, runs=runs, arms=arms)),
            Panel("masked-gaps", partial(panels.masked_gaps, runs=runs, arms=arms)),
        ]
        title, note = "Loss by share of masks, speed and FLOPs", f"{seeds}."
        caption = f"{_OWN_MASKS} Lines: {note}"
    else:
        first = [
            Panel("training-loss", partial(panels.training_loss, curves=curves, arms=arms)),
            Panel("perplexity", partial(panels.perplexity, curves=curves, arms=arms)),
        ]
        title = "Training curves, speed and FLOPs"
        note = f"{seeds}; training loss: mean of the reports within ±{panels.TRAIN_WINDOW:.0%} of the tokens"
        caption = f"Lines: {note}."
    figure = PanelFigure(path=folder / "training_curves.png", panels=(*first, *cost), arms=arms, note=note)
    return Picture(title=title, figure=figure, legend=legend_entries(arms), caption=caption)


def _budgets(summary: Summary, curves: pd.DataFrame, metric: str, folder: Path) -> Picture:
    sweep = summary.sweep
    arms = sweep.arms
    named = arms if len(arms) <= panels.MOST_ARMS else []
    against = tuple(
        Panel(
            budget.name.replace(" ", "-"),
            partial(
                panels.against_budget,
                budget=budget,
                metric=metric,
                curves=curves,
                runs=sweep.runs,
                arms=arms,
                direction=summary.sweep.questions.goal_on(metric).direction,
            ),
        )
        for budget in panels.BUDGETS
    )
    note = (
        f"{panels.seeds_drawn(curves[curves['metric'] == metric])}; markers: where the runs ended; ring: Pareto front"
    )
    figure = PanelFigure(path=folder / "loss_against_budgets.png", panels=against, arms=named, note=note)
    caption = (
        "Large markers: means of the finished runs, small dots: the runs; ringed and joined: the Pareto front of the "
        f"means, budgets within {panels.FRONT_TOLERANCE:.0%} counted as equal. Lines, against FLOPs and tokens, are "
        "the way there: a run that was planned to be shorter need not pass through their points."
    )
    title = f"{metric} against four budgets"
    return Picture(title=title, figure=figure, legend=legend_entries(named), caption=caption)


def fronts(summary: Summary) -> dict[str, list[str]]:
    """By budget that was measured, the arms on the Pareto front that the figure rings."""
    sweep, metric = summary.sweep, _metric(summary)
    direction = sweep.questions.goal_on(metric).direction
    ends = {budget.name: panels.ended(sweep.runs, metric, budget, sweep.arms) for budget in panels.BUDGETS}
    return {name: panels.pareto_front(points, direction=direction) for name, points in ends.items() if points}
