"""What would change the answer: every weak point is one of these runs, and where there is none there is no line."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic_sweeps import JournalBuilder, final_metrics

from analysis import summary_table


def limits(journal: JournalBuilder, **file: Any) -> list[str]:
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}} | file)
    return [limit.text for limit in summary_table(journal.close()).limits]


def arms_of(journal: JournalBuilder, **losses: list[float]) -> None:
    for arm, values in losses.items():
        for seed, loss in enumerate(values):
            journal.trial(arm, seed, final_metrics(loss), parameters={} if arm == "a" else {"model.d_ff": 8})


NOISY = {"a": [2.0, 2.1, 2.2], "quiet": [2.01, 2.11, 2.215], "loud": [2.0, 2.4, 2.1]}


def test_the_difference_that_may_be_missed_is_that_of_the_noisiest_arm(journal):
    arms_of(journal, **NOISY)
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}})
    summary = summary_table(journal.close())
    visible = {result.arm: result.minimum_detectable_effect for result in summary.comparisons[0].arms}
    assert visible["loud"] > 10 * visible["quiet"]
    (limit,) = [limit for limit in summary.limits if "would be missed" in limit.text]
    assert limit.arms == ("loud",)
    assert limit.text.startswith(f"With 3 seeds per arm, a true difference of less than {visible['loud']:.2f} nats ")


def test_undecided_arms_are_named_with_the_seeds_that_would_decide(journal):
    arms_of(journal, **NOISY)
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}})
    summary = summary_table(journal.close())
    undecided = [result for result in summary.comparisons[0].arms if result.verdict == "undecided"]
    (limit,) = [limit for limit in summary.limits if limit.text.startswith("Undecided")]
    assert limit.arms == tuple(result.arm for result in undecided) != ()
    for result in undecided:
        assert f"{result.arm} (about {result.more_seeds:,} more seed" in limit.text


def test_one_more_seed_is_one(journal):
    arms_of(journal, a=[2.0, 2.1], near=[2.09, 2.21])
    assert any(text.startswith("Undecided: near (about 1 more seed). So many") for text in limits(journal))


def test_many_undecided_arms_are_counted(journal):
    arms_of(journal, a=[2.0, 2.1, 2.2], **{f"arm-{k}": [2.0, 2.3, 2.2 + 0.01 * k] for k in range(5)})
    (text,) = [text for text in limits(journal) if "arms are undecided" in text]
    assert text.startswith("Five arms are undecided (about ")
    assert "arm-" not in text


def test_a_comparison_that_nobody_declared_says_so(journal):
    arms_of(journal, **NOISY)
    assert "The file declares no comparison: this one follows from its baseline." in limits(journal)


def test_a_declared_comparison_does_not(journal):
    arms_of(journal, **NOISY)
    found = limits(journal, analysis=[{"compare": {"baseline": "a"}}])
    assert not any("declares no comparison" in text for text in found)


@pytest.mark.parametrize("role", ["tuning", "search"])
def test_failed_trials_of_a_choice_are_counted_and_none_of_them_is_no_line(tmp_path, role):
    texts = {}
    for failed in (0, 1):
        journal = JournalBuilder(tmp_path / str(failed))
        arms_of(journal, **NOISY)
        for k in range(3):
            state = {"status": "failed", "reason": "NaN"} if k < failed else {}
            journal.trial("a", 900_000 + k, final_metrics(2.0), role=role, parameters={"training.lr": 0.1 * k}, **state)
        texts[failed] = [text for text in limits(journal) if "trials failed" in text]
    assert texts == {0: [], 1: [f"1 of 3 {role} trials failed: the choice is among the others."]}


@pytest.mark.parametrize(
    ("domain", "value", "at_edge"),
    [
        ({"uniform": [0.0, 1.0]}, 0.04, True),
        ({"uniform": [0.0, 1.0]}, 0.97, True),
        ({"uniform": [0.0, 1.0]}, 0.10, False),
        ({"log_uniform": [1e-4, 1e-2]}, 1.1e-4, True),
        ({"log_uniform": [1e-4, 1e-2]}, 3e-4, False),  # at 2 % of the range as a number, at 24 % on its scale
        ({"int": [1, 8]}, 8, True),
        ({"log_int": [1, 64]}, 8, False),
        ({"normal": [0.0, 1.0]}, 0.0, False),  # without ends
        ({"choice": [0.1, 0.2]}, 0.1, False),
        ({"choice": [0.1, 0.2, 0.3]}, 0.3, True),
        ([0.1, 0.2], 0.1, False),  # of two values each is an end
        ([1e-3, 3e-3, 1e-2], 1e-2, True),
        ([1e-3, 3e-3, 1e-2], 3e-3, False),
        ([True, False], True, False),
    ],
)
def test_a_winner_at_the_edge_of_its_range_is_a_weak_point(journal, domain, value, at_edge):
    for role, seed in (("search", 900_000), ("replicate", 0), ("replicate", 1)):
        journal.trial("point", seed, final_metrics(2.0 + 0.1 * (seed == 1)), role=role, parameters={"x.y": value})
    found = limits(journal, design={"kind": "search"}, search={"space": {"x.y": domain}})
    assert ("x.y of the winner is at the edge of its range: a better value may lie outside." in found) is at_edge
    assert "Every point was trained on one seed: another seed may choose another point." in found


def test_points_that_were_stopped_early_are_counted(journal):
    for k, status in enumerate(("finished", "stopped", "stopped")):
        journal.trial(f"p{k}", 9, final_metrics(2.0 + k), role="search", parameters={"x": k}, status=status)
    journal.trial("p0", 0, final_metrics(2.0), parameters={"x": 0})
    found = limits(journal, design={"kind": "search"}, search={"space": {"x": {"int": [0, 100]}}})
    expected = "Every point was trained on one seed; 2 of 3 were stopped early: another seed may choose another point."
    assert expected in found


@pytest.mark.parametrize(
    ("chosen", "tried", "end"),
    [
        (1e-3, [1e-3, 1e-2, 1e-1], "lowest"),
        (1e-1, [1e-3, 1e-2, 1e-1], "highest"),
        (1e-2, [1e-3, 1e-2, 1e-1], None),
        (1e-2, [1e-2, 1e-2], None),  # nothing else was tried
        (True, [True, False], None),  # a switch has no edge
        ([0.9, 0.95], [[0.9, 0.95], [0.9, 0.99]], None),  # nor has a list
        ("cosine", ["cosine", "linear"], None),
        (1, [1, 2, None], "lowest"),  # a trial may not have set it
    ],
)
def test_a_tuned_value_at_the_end_of_those_that_were_tried_is_a_weak_point(journal, chosen, tried, end):
    arms_of(journal, **NOISY)
    trials = [{"trial_id": f"{k:016x}", "values": {"x.y": value}, "loss": 2.0} for k, value in enumerate(tried)]
    journal.decision("tuning", "quiet", {"values": {"x.y": chosen}, "trials": trials, "flops": 1})
    found = [text for text in limits(journal) if "that was tried" in text]
    said = f"quiet: the chosen x.y is the {end} that was tried; a better one may lie outside."
    assert found == ([said] if end else [])


def test_the_scope_is_the_corpus_and_the_sizes_that_were_measured(journal):
    arms_of(journal, **NOISY)
    small = final_metrics(2.2) | {"model/params": 120_000}
    journal.trial("quiet", 3, small)
    journal.trial("a", 3, final_metrics(2.1))
    scope = "One corpus (python_stdlib), models of 120k to 230k parameters, 2.00M training tokens: nothing"
    assert [text.startswith(scope) for text in limits(journal)][-1]
