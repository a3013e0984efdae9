"""Names of generated arms."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from stackwise_ray.config.space.naming import level_labels, point_name, short_keys


def test_a_path_is_shortened_to_the_ending_that_no_other_shares() -> None:
    assert short_keys(["training.lr", "optimizer.kind", "training.schedule.kind"]) == {
        "training.lr": "lr",
        "optimizer.kind": "optimizer.kind",
        "training.schedule.kind": "schedule.kind",
    }


def test_labels_are_read_off_the_values() -> None:
    assert level_labels([1e-3, True, None, "a b/c", {"kind": "none"}, [], ["x", 1]]) == [
        "0.001",
        "true",
        "null",
        "c",
        "none",
        "none~2",
        "x+1",
    ]
    assert level_labels(["decoder/gpt2_family/tiny", "decoder/llama_family/tiny"]) == [
        "gpt2_family-tiny",
        "llama_family-tiny",
    ]


def test_a_point_is_named_by_its_keys_and_labels_and_the_empty_one_is_the_base() -> None:
    assert point_name(
        {"training.lr": "0.001", "data.seq_len": "8"}, {"training.lr": "lr", "data.seq_len": "seq_len"}
    ) == ("lr=0.001,seq_len=8")
    assert point_name({}, {}) == "base"


levels = st.lists(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.lists(st.text(max_size=3), max_size=2),
    max_size=8,
)


@given(levels)
@example(["a~2", "a", "a"])
def test_labels_differ_and_are_fit_to_be_file_names(values: list[Any]) -> None:
    labels = level_labels(values)
    assert len(set(labels)) == len(labels) == len(values)
    assert all(re.fullmatch(r"[A-Za-z0-9_.+=,~-]+", label) for label in labels)
