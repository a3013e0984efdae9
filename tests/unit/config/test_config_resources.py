"""What a sweep asks of the machines: which numbers of GPUs and workers fit together, and which device trials name."""

from __future__ import annotations

from typing import Any

import pytest

from stackwise_ray.config.loading import sweep_from_plain
from stackwise_ray.core.errors import ConfigError

ARMS = {"kind": "arms", "arms": {"a": {}, "b": {"training.lr": 1e-3}}, "baseline": "a"}


def sweep(resources: dict[str, Any], **keys: Any) -> dict[str, Any]:
    base = {"model": "decoder/gpt2_family/tiny", "data": "markov"}
    return {"name": "x", "base": base, "design": ARMS, "resources": resources, **keys}


@pytest.mark.parametrize(
    ("resources", "instead"),
    [
        ({"gpus_per_trial": 2}, "a worker trains on one GPU; write gpus_per_trial: 1, workers: 2"),
        ({"gpus_per_trial": 1.5}, "a worker trains on one GPU; write 1, or a fraction below 1 to share a GPU"),
        ({"gpus_per_trial": 2, "workers": 2}, "write gpus_per_trial: 1; each of the 2 workers then has its own"),
        ({"gpus_per_trial": 0.5, "workers": 2}, "cannot share a GPU .*; write gpus_per_trial: 1, or workers: 1"),
    ],
)
def test_a_worker_has_one_gpu_or_alone_a_share_of_one(resources: dict[str, Any], instead: str) -> None:
    with pytest.raises(ConfigError, match=instead) as caught:
        sweep_from_plain(sweep(resources))
    assert caught.value.path == "resources.gpus_per_trial"


@pytest.mark.parametrize(
    "resources", [{}, {"gpus_per_trial": 1}, {"gpus_per_trial": 0.5}, {"gpus_per_trial": 1, "workers": 2}]
)
def test_what_a_worker_can_use_is_taken(resources: dict[str, Any]) -> None:
    assert sweep_from_plain(sweep(resources)).resources.gpus_per_trial == resources.get("gpus_per_trial", 0)


CUDA, TF32 = {"training.device": "cuda"}, {"training.tf32": True}
BASE = {"model": "decoder/gpt2_family/tiny", "data": "markov"}


@pytest.mark.parametrize(
    ("keys", "whose"),
    [
        ({"base": {**BASE, "overrides": CUDA}}, "of a, but their"),
        ({"design": {**ARMS, "arms": {"a": {}, "b": CUDA}}}, "of b, but their"),
        ({"design": {**ARMS, "arms": {"a": {}, "b": TF32}}}, "of b, but their training.tf32 is true"),
        ({"tune": {"space": {"training.device": ["cpu", "cuda"]}}}, "of a in tune.space, but their"),
        (
            {
                "design": {"kind": "search"},
                "search": {"space": {"training.device": ["cpu", "auto", "cuda"]}, "trials": 3},
            },
            "of search.space, but their",
        ),
    ],
)
def test_a_trial_that_asks_for_a_gpu_is_refused_where_it_is_given_no_gpu(keys: dict[str, Any], whose: str) -> None:
    with pytest.raises(ConfigError, match=rf"gpus_per_trial = 0 gives no GPU to the trials {whose}"):
        sweep_from_plain(sweep({"gpus_per_trial": 0}, **keys))
    sweep_from_plain(sweep({"gpus_per_trial": 1}, **keys))
