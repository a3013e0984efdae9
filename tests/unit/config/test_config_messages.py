"""What is said of a mistake, of many kinds: the whole sentences, for reviews of their language too."""

from __future__ import annotations

from collections.abc import Callable

from stackwise_ray.config.loading import load_sweep, load_trial
from stackwise_ray.core.errors import ConfigError
from tests.golden import Golden

OF_A_TRIAL = (
    "optimizer.betas=[0.9, 0.95, 0.9]",
    "optimizer.betas=[0.9]",
    "optimizer.betas=0.9",
    "training.lr=-1",
    "training.lr='3e-4'",
    "training.warmup=2.0",
    "training.batch_tokens=0",
    "training.batch_tokens=1.5",
    "training.batch_tokens=true",
    "training.cache=true",
    "training=appendd",
    "training.regime=appendd",
    "data.corpus=3",
    "data.path=texts",
    "training.evaluations=abc",
    "training.budget={}",
    "training.budget=7",
    "training.budget={steps: 3, tokens: 9}",
    "training.precision=fp8",
    "training.gradient_clip=0",
    "model.n_layers=null",
    "model.n_head=4",
    "model.d_model=65",
    "model={family: gpt2}",
    "seed=1.5",
    "flags=7",
    "flags=[3]",
    "flags=[early_exits]",
)
OF_A_SWEEP = (
    "name=a b",
    "name=7",
    "replicates.seeds=0",
    "replicates.seeds=[]",
    "replicates.seeds=[1, 1]",
    "replicates.seeds={min: 1}",
    "replicates.seeds={min: 5, max: 3, until: decided}",
    "resources.workers=0",
    "resources.gpus_per_trial=-1",
    "limits.trials=-3",
    "objective=[]",
    "objective=[{metric: validation/los}]",
    "analysis=[7]",
    "analysis=[{compare: {metric: validation/loss, baseline: nobody}}]",
    "analysis=[{fit: {}}]",
    "search.trials=0",
    "design.arms={}",
    "design.arms=[1]",
    "design.kind=grids",
    "design.baseline=nobody",
    "design.arms={a: {training.lr: fast}}",
    "base.model=decoder/gpt2_family/tinny",
    "tracking=7",
    "scheduler={kind: asha}",
)


def said(load: Callable[[str], object], words: tuple[str, ...]) -> str:
    found = []
    for word in words:
        try:
            load(word)
        except ConfigError as error:
            found.append(f"{word}\n    {error}\n")
        else:
            raise AssertionError(f"{word} is no mistake")
    return "".join(found)


def test_what_is_said_of_a_mistake_in_a_trial_is_as_on_file(golden: Golden) -> None:
    words = said(lambda word: load_trial(["model=decoder/gpt2_family/tiny", word]), OF_A_TRIAL)
    golden.check("messages/trial.txt", words)


def test_what_is_said_of_a_mistake_in_a_sweep_is_as_on_file(golden: Golden) -> None:
    golden.check("messages/sweep.txt", said(lambda word: load_sweep("smoke", [word]), OF_A_SWEEP))
