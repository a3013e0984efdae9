"""What every sampler of a search promises: the same points from the same seed, and as many objectives as it says."""

from __future__ import annotations

from stackwise_ray.contracts import NotAtHand, require
from stackwise_ray.core.errors import MissingPackageError
from stackwise_ray.trials.samplers import SAMPLERS

N_TRIALS = 20
"""More than the first random points of any sampler."""


def the_seed_decides_its_points(name: str) -> None:
    """It draws the same points from the same seed."""
    if SAMPLERS.get(name).make is not None:
        require(points(name, 1) == points(name, 1), "one seed gives two series of points")


def it_takes_the_objectives_that_it_says(name: str) -> None:
    """Where it says so, it takes several objectives."""
    sampler = SAMPLERS.get(name)
    if sampler.make is not None and sampler.several_objectives:
        require(len(points(name, 2)) == N_TRIALS, "a search of two objectives ends early")


def points(name: str, objectives: int) -> list[dict[str, float]]:
    """The points of a short search.

    Raises:
        NotAtHand: The sampler needs a package that is not installed.
    """
    import optuna

    make = SAMPLERS.get(name).make
    assert make is not None
    try:
        sampler = make(3)
    except MissingPackageError as error:
        raise NotAtHand(str(error)) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)
    study.optimize(lambda trial: [trial.suggest_float("x", 0, 1) ** (i + 1) for i in range(objectives)], N_TRIALS)
    return [trial.params for trial in study.trials]


CHECKS = (the_seed_decides_its_points, it_takes_the_objectives_that_it_says)
