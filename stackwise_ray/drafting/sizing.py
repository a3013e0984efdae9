"""The largest budget with which a draft's plan fits its time, seeds and tuning included.

Times are those of the plan, from measurements of this machine. Without a measurement of an arm there is no time and no
budget; `NotMeasuredError` names the arm.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from stackwise_ray.config.loading import load_sweep
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.quantities import format_seconds
from stackwise_ray.drafting.writing import BATCH_TOKENS, SearchSpaceDraft
from stackwise_ray.planning.sweep_plan import PlanRow, SweepPlan
from stackwise_ray.sweep import plan

SHARE = 0.85
"""Share of the time that is for the trials: Ray's start and the report come on top, and trials do not end together."""
FEWEST_STEPS = 30
"""Fewest steps of a trial: with fewer, the learning rate has hardly passed its warm-up."""


class NotMeasuredError(Exception):
    """The plan has no time for some arms, since this machine was not measured on their kind.

    Attributes:
        arms: Their names.
    """

    def __init__(self, arms: tuple[str, ...]) -> None:
        super().__init__(", ".join(arms))
        self.arms = arms


def planned(draft: SearchSpaceDraft) -> SweepPlan:
    """The plan of a draft.

    Raises:
        ConfigError: The file that it stands for is refused, by its rules or by the plan.
        NotMeasuredError: An arm has no time.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "draft.yaml"
        file.write_text(draft.text(), encoding="utf-8")
        try:
            made = plan(load_sweep(file))
        except ConfigError as error:
            raise ConfigError(error.problem, path=error.path) from None  # the file is not the user's
    if made.refused:
        raise ConfigError(str(made.refused[0].refused))
    unknown = tuple(dict.fromkeys(row.arm for row in made.rows if row.seconds is None))
    if unknown:
        raise NotMeasuredError(unknown)
    return made


def fitted(draft: SearchSpaceDraft) -> tuple[SearchSpaceDraft, SweepPlan]:
    """The draft with the largest budget of two digits whose plan fits its time, and that plan.

    Raises:
        ConfigError: Even `FEWEST_STEPS` steps do not fit.
        NotMeasuredError: There are no times to plan with.
    """
    most = SHARE * draft.seconds
    short = planned(draft.with_budget(steps=FEWEST_STEPS))
    least = float(max(row.flops or 0 for row in short.rows))
    flops = _solved(short, planned(draft.with_budget(flops=8 * least)), 8 * least, most)
    while flops >= least:
        flops = _two_digits(flops)
        made = planned(draft.with_budget(flops=flops))
        if _seconds(made) <= most:
            return draft.with_budget(_seconds(made), flops=flops), made
        flops *= 0.95
    needed = _seconds(short) / SHARE
    raise ConfigError(
        f"= {format_seconds(draft.seconds)} is too short for {short.trials} trials of {FEWEST_STEPS} steps, which take "
        f"about {format_seconds(needed)} here; give more time, or a smaller model",
        path="--time",
    )


def _solved(short: SweepPlan, long: SweepPlan, flops: float, seconds: float) -> float:
    """The budget with which a sweep takes so many seconds, from two plans of it.

    Of each row, time grows in proportion to FLOPs beyond what it needs in any case (start-up, evaluation).

    Args:
        flops: The budget of the plan `long`.
    """
    fixed = per_flop = 0.0
    for one, other in zip(short.rows, long.rows, strict=True):
        (few, soon), (many, late) = _point(one), _point(other)
        slope = (late - soon) / (many - few)
        fixed += one.trials * (soon - slope * few)
        per_flop += one.trials * slope * many / flops
    return (seconds * short.slots - fixed) / per_flop


def _point(row: PlanRow) -> tuple[float, float]:
    """FLOPs and seconds of one trial."""
    assert row.flops is not None  # a budget of steps or FLOPs has them
    assert row.seconds is not None  # `planned` gives no other plan
    return float(row.flops), row.seconds


def _seconds(made: SweepPlan) -> float:
    assert made.seconds is not None  # `planned` gives no other plan
    return made.seconds


def _two_digits(value: float) -> float:
    """Rounded down.

    >>> _two_digits(128_000.0)
    120000.0
    """
    scale = 10.0 ** (len(str(int(value))) - 2)
    return float(int(value / scale) * scale)


def measure(draft: SearchSpaceDraft, arms: Sequence[str], tell: Callable[[str], None], *, even_if_busy: bool) -> None:
    """Measure how fast this machine trains some arms, for plans: a second and a half of training each.

    Args:
        even_if_busy: Whether other processes may run meanwhile, which makes it slower.

    Raises:
        ConfigError: The machine is busy, or an arm cannot be trained.
    """
    from stackwise_ray.checkup import check_load
    from stackwise_ray.planning.calibration_runs import calibrate, places_here

    load = check_load()
    if load.status != "ok" and not even_if_busy:
        raise ConfigError(
            f"{load.detail}: what is measured beside them is too slow; wait until the machine is idle, or add "
            "--even-if-busy"
        )
    waiting = iter(arms)
    tell(f"measuring {next(waiting, None)}")
    for measurement in calibrate(measured_trials(draft, arms), at=places_here("cpu", 1), threads=1, seconds=1.5):
        tell(f"measuring {next(waiting, 'done')}")
        if measurement.problem is not None:
            raise ConfigError(f"{measurement.words}: {measurement.problem}")


def measured_trials(draft: SearchSpaceDraft, arms: Sequence[str]) -> list[str]:
    """Some arms as the words of a command line; a user's own text is left out, since speed does not depend on it."""
    data = "python_stdlib" if draft.path is not None else draft.data
    fixed = {"model": draft.model, "data": data, "training.batch_tokens": str(BATCH_TOKENS)}
    changes = [dict(word.split("=", 1) for word in draft.contest.words(arm)) for arm in arms]
    return [" ".join(f"{path}={value}" for path, value in {**fixed, **changed}.items()) for changed in changes]
