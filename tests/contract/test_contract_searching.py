"""What every sampler and every rule of early stopping keeps, over their registries."""

from __future__ import annotations

import subprocess
import sys

import optuna
import pytest
from ray.tune.schedulers import TrialScheduler

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.registries import SAMPLERS, SCHEDULERS

DRAWING = [name for name, sampler in SAMPLERS.items() if sampler.make is not None]


def made(name: str, seed: int) -> optuna.samplers.BaseSampler:
    make = SAMPLERS.get(name).make
    assert make is not None
    try:
        return make(seed)
    except ConfigError as error:
        pytest.skip(str(error))


def drawn(name: str, seed: int, objectives: int, trials: int = 20) -> list[dict[str, float]]:
    """The points of a short search; more than any sampler's first random ones."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize"] * objectives, sampler=made(name, seed))
    study.optimize(lambda trial: [trial.suggest_float("x", 0, 1) ** (i + 1) for i in range(objectives)], trials)
    return [trial.params for trial in study.trials]


def test_a_search_space_is_checked_against_every_entry_without_loading_optuna_ray_or_torch() -> None:
    code = (
        "import sys\n"
        "from stackwise_ray.core.registries import SAMPLERS, SCHEDULERS\n"
        "assert dict(SAMPLERS.items()) and dict(SCHEDULERS.items())\n"
        "print(*({'optuna', 'ray', 'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", DRAWING)
def test_a_sampler_draws_the_same_points_from_the_same_seed(name: str) -> None:
    assert drawn(name, 3, objectives=1) == drawn(name, 3, objectives=1)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", [name for name in DRAWING if SAMPLERS.get(name).several_objectives])
def test_a_sampler_that_says_so_takes_several_objectives(name: str) -> None:
    assert len(drawn(name, 3, objectives=2)) == 20


@pytest.mark.parametrize("name", SCHEDULERS.names())
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_rule_of_early_stopping_is_made_with_and_without_its_options(name: str, mode: str) -> None:
    rule = SCHEDULERS.get(name)
    assert isinstance(rule.make(grace=0.2, mode=mode), TrialScheduler)
    assert isinstance(rule.make(grace=0.2, mode=mode, **dict.fromkeys(rule.options, 2.0)), TrialScheduler)
