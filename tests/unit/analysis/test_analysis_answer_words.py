"""The one plain sentence of a comparison: who is ahead, by how much, how much is decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from analysis.anytime.verdict import format_e
from analysis.paired.answer_words import AnsweredView, Standing
from analysis.paired.comparison import folded
from analysis.render import Grid


@dataclass(frozen=True, kw_only=True, repr=False)
class Found(AnsweredView):
    """What was found, as it is given."""

    given: list[Standing]
    grid = Grid((), ())

    @property
    def standings(self) -> list[Standing]:
        return self.given


def said(*standings: Standing, **changes: Any) -> str:
    settings: dict[str, Any] = {
        "metric": "validation/loss",
        "baseline": "attention",
        "direction": "minimize",
        "assumed": False,
        "budgets": "flops",
        "margin": 0.02,
        "family": len(standings),
    }
    return Found(given=list(standings), **(settings | changes)).sentence


def test_the_best_of_the_better_arms_leads_and_the_rest_is_counted():
    four = [Standing(arm, "better", size) for arm, size in (("a", -0.1), ("resolvent", -0.9), ("c", -0.2), ("d", -0.3))]
    lead = "resolvent reaches 0.90 nats lower validation loss than attention at equal FLOPs"
    assert said(*four) == f"{lead}; all four differences are decided (all better)."
    mixed = [*four[:2], Standing("c", "worse", 0.2), Standing("d", "equivalent", 0.0)]
    assert said(*mixed) == f"{lead}; all four differences are decided (two better, one worse, one equivalent)."
    open_one = [*four[:3], Standing("llama", "undecided", 0.01)]
    assert said(*open_one) == f"{lead}; three of four differences are decided (all better); llama is undecided."


def test_where_more_is_better_the_highest_leads():
    pair = [Standing("a", "better", 0.01), Standing("b", "better", 0.02)]
    words = said(*pair, direction="maximize", metric="accuracy", budgets=None)
    lead = "b reaches 0.020 higher accuracy than attention (budgets not checked)"
    assert words == f"{lead}; both differences are decided (both better)."
    worse = said(Standing("a", "worse", -0.01), direction="maximize", metric="accuracy")
    assert worse == "a reaches 0.010 lower accuracy than attention at equal FLOPs; the difference is decided (worse)."


def test_a_baseline_that_nobody_beats_is_the_answer():
    worse = [Standing("a", "worse", 0.3), Standing("near", "worse", 0.1)]
    lead = "attention reaches the lowest validation loss at equal FLOPs: the nearest arm, near, is 0.10 nats higher"
    assert said(*worse) == f"{lead}; both differences are decided (both worse)."
    some = said(*worse, Standing("c", "undecided", -0.1))
    assert some.startswith("No arm is found to reach lower validation loss than attention at equal FLOPs; two of three")
    assert some.endswith("c is undecided.")


def test_where_nothing_is_decided_the_sentence_says_only_that():
    undecided = [Standing(arm, "undecided", -0.1) for arm in "ab"]
    none = "None of the two differences from attention in validation loss is decided at equal FLOPs."
    assert said(*undecided) == none
    one = said(Standing("a", "undecided", None))
    assert one == "It is undecided whether a reaches lower validation loss than attention at equal FLOPs."


def test_equivalent_arms_are_named_with_the_margin():
    words = said(Standing("a", "equivalent", 0.001))
    assert words == "a is equivalent to attention in validation loss at equal FLOPs, within ±0.020 nats."


@pytest.mark.parametrize("decided", [0, 1, 57, 99])
def test_a_hundred_arms_are_one_short_sentence(decided):
    arms = [Standing(f"arm-{k}", "better" if k < decided else "undecided", -0.001 * k) for k in range(99)]
    words = said(*arms)
    assert len(words) < 220
    assert words.count("arm-") <= 1


def test_arms_without_a_run_count_among_the_differences():
    words = said(Standing("a", "better", -0.1), family=3)
    assert words.endswith("; one of three differences is decided.")


def test_many_undecided_arms_are_counted_and_a_few_named():
    arms = [Standing(f"arm-{k}", "better" if k < 57 else "undecided", -0.001 * k) for k in range(99)]
    assert said(*arms).endswith("; 57 of 99 differences are decided (all better); 42 arms are undecided.")
    few = "; two of four differences are decided (both better); arm-58 and arm-57 are undecided."
    assert said(*arms[55:59]).endswith(few)


def test_a_target_is_named_and_nothing_is_said_of_budgets():
    words = said(Standing("a", "better", -0.1), Standing("b", "worse", 0.2), baseline=None, target=3.28, budgets=None)
    assert words == (
        "a reaches 0.10 nats lower validation loss than the target 3.28; both differences are decided (one better, one "
        "worse)."
    )
    missed = said(Standing("b", "worse", 0.2), Standing("c", "worse", 0.3), baseline=None, target=3.28)
    assert missed.startswith(
        "No arm reaches the target 3.28 in validation loss: the nearest arm, b, is 0.20 nats higher"
    )


def test_non_inferior_arms_are_named_with_the_margin():
    asked = {"hypothesis": "non_inferior", "margin": 0.02}
    two = said(Standing("a", "non_inferior", 0.01), Standing("b", "non_inferior", 0.012), **asked)
    lead = "a and b are non-inferior to attention in validation loss at equal FLOPs, by the margin of 0.020 nats"
    assert two == f"{lead}; both differences are decided (both non-inferior)."
    none = said(Standing("a", "undecided", 0.01), Standing("b", "inferior", 0.1), **asked)
    assert none.startswith("No arm is found to be non-inferior to attention in validation loss")
    assert none.endswith("one of two differences is decided; a is undecided.")


def test_many_remarks_of_one_kind_are_the_first_few_and_a_count():
    lines = [(f"arm-{k}: lost", (f"arm-{k}",)) for k in range(20)]
    shown = folded(lines)
    assert [line for line, _ in shown[:3]] == ["arm-0: lost", "arm-1: lost", "arm-2: lost"]
    assert shown[3] == ("and 17 more lines like these (--json has all)", tuple(f"arm-{k}" for k in range(3, 20)))
    assert folded(lines[:8]) == lines[:8]


@pytest.mark.parametrize(
    ("e_value", "shown"), [(1.9e22, "> 10,000"), (7.6e-24, "< 0.01"), (25.4, "25"), (None, "not measured")]
)
def test_an_e_value_has_a_scale(e_value, shown):
    assert format_e(e_value) == shown
