"""What goes with growing left to right is refused where it has no effect, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.trial.editing import edit
from stackwise_ray.config.trial.rules import check_trial
from stackwise_ray.core.errors import ConfigError

APPEND = load_trial(["model=encoder/bert_family/tiny", "training=append"])
TIME = {"training.time": "input"}
CACHE = {"training.cache": True}


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (
            TIME | {"training.regime": "depth_time"},
            "training.time = input has no effect in the regime depth_time; choose",
        ),
        (TIME | {"training.regime": "classical"}, "choose the regime append or classical_random_ratio"),
        (TIME | {"training.noise.kind": "band"}, "training.noise.kind = band has no effect with training.time: input"),
        (TIME | {"training.noise.schedule": "cosine"}, "training.noise.schedule = cosine has no effect with training"),
        (
            TIME | {"training.regime": "classical_random_ratio", "training.blocks_per_stack": 2},
            "training.blocks_per_stack = 2 has no effect in classical_random_ratio with training.time: input",
        ),
        (
            CACHE | {"training.regime": "depth_time"},
            "training.cache = true has no effect in the regime depth_time; choose",
        ),
        (
            CACHE | {"training.trunk": "trainable"},
            "training.cache = true needs a frozen prefix, but with trunk: train",
        ),
        (CACHE | {"training.embeddings": "untied_all"}, "training.embeddings: untied_all trains the embeddings"),
        (
            CACHE | {"training.stage_split": "flop_proportional", "training.budget": {"flops": 1e12}},
            "training.cache = true does not go with stage_split: flop_proportional",
        ),
        (
            CACHE | {"training.blocks_per_stack": 4},
            "has no effect: the model is one stack (training.blocks_per_stack = 4)",
        ),
        ({"training.cache_bytes": 1000}, "training.cache_bytes = 1000 has no effect without training.cache: true"),
    ],
)
def test_what_has_no_effect_is_refused_with_the_reason(edits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_trial(edit(APPEND, edits))
    assert message in str(error.value)


def test_experts_and_a_cache_do_not_go_together() -> None:
    trial = load_trial(["model=encoder/bk_family/tiny", "training=append", "training.cache=true"])
    with pytest.raises(
        ConfigError, match=r"training\.cache = true does not go with mixture_of_experts: .* the experts of"
    ):
        check_trial(edit(trial, {"model.channel_mixer": {"kind": "mixture_of_experts"}}))


@pytest.mark.parametrize("edits", [TIME, CACHE | {"training.cache_bytes": 1000}, TIME | CACHE])
def test_what_goes_together_is_taken(edits: dict[str, Any]) -> None:
    check_trial(edit(APPEND, edits))
