"""When two dotted paths are about the same value."""

from __future__ import annotations

import pytest

from stackwise_ray.config.trial.paths import overlap


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("model.mixer", "model.mixer", True),
        ("model.mixer", "model.mixer.kind", True),
        ("model.mixer", "model.mixer_norm", False),
        ("model.mixer.kind", "model.mixer.eta", False),
    ],
)
def test_paths_overlap_where_one_is_or_holds_the_other(one: str, other: str, same: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is same
