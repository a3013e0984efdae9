"""The figure of a search: every point over every parameter that it set."""

from __future__ import annotations

import math

import pytest
from matplotlib.figure import Figure

from analysis.plots.search_points import SearchPoint, drawn_paths, is_logarithmic, points_of, points_panel
from stackwise_ray.core.records import TrialRecord


def drawn(points, again=(), *, path="lr", logarithmic=False):
    axes = Figure().subplots()
    points_panel(axes, path=path, metric="validation/loss", points=points, again=again, logarithmic=logarithmic)
    return axes


def point(reached, *, stopped=False, **values):
    return SearchPoint(values=values, reached=reached, stopped=stopped)


def places(line):
    return sorted(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_finished_points_stopped_ones_and_the_winners_runs_are_three_kinds_of_marks():
    points = [point(2.0, lr=0.1), point(3.0, lr=0.2), point(2.5, lr=0.3, stopped=True)]
    stopped, finished, again = drawn(points, [point(2.1, lr=0.1), point(2.2, lr=0.1)]).lines
    assert places(finished) == [(0.1, 2.0), (0.2, 3.0)]
    assert places(stopped) == [(0.3, 2.5)]
    assert places(again) == [(0.1, 2.1), (0.1, 2.2)]
    assert stopped.get_markerfacecolor() == "white" != finished.get_markerfacecolor()


def test_a_stopped_point_far_away_is_drawn_at_the_edge_and_a_finished_one_where_it_is():
    points = [point(2.0, lr=1), point(3.0, lr=2), point(90.0, lr=3, stopped=True), point(-90.0, lr=4, stopped=True)]
    stopped, finished, _ = drawn(points).lines
    assert places(stopped) == [(3, 3.25), (4, 1.75)]
    assert places(finished) == [(1, 2.0), (2, 3.0)]


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_point_that_did_not_set_a_parameter_is_left_out_of_its_panel(logarithmic):
    points = [point(2.0, lr=0.1), point(3.0, lr=0.2), point(1.0, other=1)]
    axes = drawn(points, [point(2.1, other=1)], logarithmic=logarithmic)
    assert places(axes.lines[1]) == [(0.1, 2.0), (0.2, 3.0)]
    assert axes.get_xscale() == ("log" if logarithmic else "linear")


def test_a_scale_with_a_zero_on_it_stays_linear():
    assert drawn([point(2.0, lr=0.0), point(3.0, lr=0.2)], logarithmic=True).get_xscale() == "linear"


def test_values_that_are_no_numbers_are_side_by_side_under_their_names():
    axes = drawn([point(2.0, lr="cosine"), point(3.0, lr="linear"), point(2.5, lr="cosine")])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cosine", "linear"]
    assert places(axes.lines[1]) == [(0.0, 2.0), (0.0, 2.5), (1.0, 3.0)]
    mixed = drawn([point(2.0, lr=0.1), point(3.0, lr="auto"), point(4.0, lr=True)])
    assert [label.get_text() for label in mixed.get_xticklabels()] == ["0.1", "auto", "True"]


def test_only_parameters_that_vary_are_drawn_and_at_most_four():
    points = [point(2.0, same=1, a=k, b=[k], c=k, d=k, e=k) for k in range(2)]
    assert drawn_paths(points) == ["a", "b", "c", "d"]


def test_runs_without_a_finite_value_are_no_points():
    def trial(**metrics):
        given = {"trial_id": "t", "number": 0, "arm": "a", "seed": 0, "config": {}, "role": "search"}
        return TrialRecord(**given, status="stopped", parameters={"lr": 0.1}, metrics=metrics)

    trials = [trial(loss=2.0), trial(loss=math.inf), trial(loss=math.nan), trial(other=1.0)]
    assert points_of(trials, "loss") == [SearchPoint(values={"lr": 0.1}, reached=2.0, stopped=True)]


def test_the_scale_is_that_of_the_domain():
    assert [is_logarithmic(domain) for domain in ({"log_uniform": [1, 2]}, {"log_int": [1, 2]})] == [True, True]
    assert [is_logarithmic(domain) for domain in ({"uniform": [1, 2]}, [1, 2], None)] == [False, False, False]
