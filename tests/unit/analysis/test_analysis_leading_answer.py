"""The answer of a sweep that compares nothing: the best of what was searched or trained."""

from __future__ import annotations

import pytest

from analysis import summary_table


@pytest.mark.parametrize(("direction", "best", "said"), [("minimize", 0, "1.0"), ("maximize", 2, "3.0")])
def test_the_best_point_and_the_best_winner_are_those_of_the_objectives_direction(journal, direction, best, said):
    for k in range(3):
        for role, seed in (("search", 9), ("replicate", 0), ("replicate", 1)):
            metrics = {"my/score": 1.0 + k + 0.001 * seed}
            journal.trial(f"point-{k}", seed, metrics, role=role, parameters={"training.lr": 0.1 * (k + 1)})
    goal = [{"metric": "my/score", "direction": direction}]
    journal.meta(sweep={"name": "lr", "design": {"kind": "search"}, "objective": goal})
    summary = summary_table(journal.close())
    assert summary.search_grid().rows[0][-2] == f"point-{best}"
    assert f"training.lr = {0.1 * (best + 1):.3g}, reaches a mean my/score of {said}" in summary.verdict
    assert summary.verdict.startswith("The best of three winners of a search over three points")


@pytest.mark.parametrize(("direction", "words"), [("minimize", "a has the lowest"), ("maximize", "b has the highest")])
def test_where_nothing_is_compared_the_best_mean_is_that_of_the_objectives_direction(journal, direction, words):
    for arm, value in (("a", 1.0), ("b", 2.0)):
        journal.trial(arm, 0, {"my/score": value})
    journal.meta(sweep={"name": "x", "objective": [{"metric": "my/score", "direction": direction}]})
    verdict = summary_table(journal.close()).verdict
    assert verdict.startswith(f"No comparison was declared, so no arm is called better; {words} mean my/score")
