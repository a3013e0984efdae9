"""What goes with growing left to right is refused where it has no effect, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from stackwise_ray.config.checks import check_trial
from stackwise_ray.config.editing import edit
from stackwise_ray.config.loading import load_trial
from stackwise_ray.core.errors import ConfigError

APPEND = load_trial(["model=encoder/bert_family/tiny", "training=append"])
TIME = {"training.time": "input"}


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (TIME | {"training.regime": "depth_time"}, "training.time = input has no effect in the regime depth_time; it"),
        (TIME | {"training.regime": "classical"}, "it goes with classical_random_ratio or append"),
        (TIME | {"training.noise.kind": "band"}, "training.noise.kind = band has no effect with training.time: input"),
        (TIME | {"training.noise.schedule": "cosine"}, "training.noise.schedule = cosine has no effect with training"),
        (
            TIME | {"training.regime": "classical_random_ratio", "training.blocks_per_stack": 2},
            "training.blocks_per_stack = 2 has no effect in classical_random_ratio with training.time: input",
        ),
    ],
)
def test_what_has_no_effect_is_refused_with_the_reason(edits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_trial(edit(APPEND, edits))
    assert message in str(error.value)


def test_what_goes_together_is_taken() -> None:
    check_trial(edit(APPEND, TIME))
