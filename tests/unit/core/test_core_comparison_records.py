"""What a sweep asks, read back from the meta of its journal."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from stackwise_ray.core.comparison_records import Goal, Questions, read_questions
from stackwise_ray.core.errors import AnalysisError
from tests.comparisons import COMPARISON

QUESTIONS = Questions(
    arms=("a", "b"),
    baseline="a",
    goals=(Goal.of("validation/loss"),),
    stopping=Goal.of("train/loss"),
    comparisons=(COMPARISON,),
)


def without(*path: str | int) -> dict[str, Any]:
    """The questions as plain data, less one entry."""
    plain: Any = copy.deepcopy(QUESTIONS.to_plain())
    parent = plain
    for name in path[:-1]:
        parent = parent[name]
    del parent[path[-1]]
    return dict(plain)


def test_questions_are_read_back_as_they_were_written() -> None:
    assert read_questions({"questions": QUESTIONS.to_plain()}) == QUESTIONS


@pytest.mark.parametrize(
    "meta",
    [
        {"sweep": {}},
        {"questions": without("stopping")},
        {"questions": without("comparisons", 0, "tolerance")},
        {"questions": without("goals", 0, "direction")},
        {"questions": {**QUESTIONS.to_plain(), "stopping": {**QUESTIONS.to_plain()["stopping"], "weight": 1.0}}},
    ],
    ids=["none", "no stopping", "a comparison without its tolerance", "a goal without its direction", "a new entry"],
)
def test_questions_of_another_version_are_refused_with_what_to_do(meta: dict[str, Any]) -> None:
    with pytest.raises(AnalysisError, match="another version of stackwise_ray wrote it") as refused:
        read_questions(meta)
    assert "run the same sweep command again with this version" in str(refused.value)
    assert "or run the sweep anew in another folder (--output)" in str(refused.value)
