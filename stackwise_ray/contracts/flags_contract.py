"""What every flag promises: who it is, a pure edit that has an effect, and company with every other flag."""

from __future__ import annotations

from dataclasses import replace

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.contracts import require
from stackwise_ray.contracts.small_trial import small_trial
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.metric_catalogue import find_metric
from stackwise_ray.flags import FLAGS, apply_flags


def it_says_who_it_is(name: str) -> None:
    """It has its own name, a summary that is a sentence, and a claim."""
    flag = FLAGS.get(name)
    require(getattr(flag, "name", None) == name, f"its name is {getattr(flag, 'name', None)!r}, and it is '{name}'")
    require(flag.summary.endswith("."), f"its summary is no sentence that ends in a full stop: {flag.summary!r}")
    require(flag.claim, "it claims nothing; write the effect that is said to follow")


def its_claim_can_be_measured(name: str) -> None:
    """Its claim names at least one measurement, of metrics that are registered."""
    measures = FLAGS.get(name).measured_by
    require(measures, "its claim names no metric that would show it; write `measured_by`")
    for path in [path for one in measures for path in (one.metric, one.against) if path is not None]:
        require(find_metric(path) is not None, f"its claim is measured by '{path}', which is no registered metric")


def its_edit_is_pure(name: str) -> None:
    """Its edit is the same every time and changes the trial, or it says what it lacks."""
    flag, plain = FLAGS.get(name), small_trial()
    trial = replace(plain, flags=(name,))
    if flag.needs(trial) is not None:
        require(f"'{name}'" in refusal(trial), "a trial that lacks what it needs is refused without its name")
        return
    require(flag.edits(trial) == flag.edits(trial), "two calls of `edits` on one trial give different edits")
    edited = apply_flags(trial)
    require(replace(edited, flags=()) != plain, "it changes nothing of a trial that meets its needs")
    require(apply_flags(edited) == edited, "applied to a trial that it has edited, it changes it again")


def it_goes_with_others(name: str) -> None:
    """With every other flag it composes in either order, or the pair is refused with both names."""
    plain = small_trial()
    for other in FLAGS.names():
        if other == name:
            continue
        trial = replace(plain, flags=(name, other))
        refused = refusal(trial)
        if refused:
            both = f"'{name}'" in refused and f"'{other}'" in refused
            lack = any(FLAGS.get(one).needs(trial) is not None for one in (name, other))
            require(both or lack, f"with '{other}' it is refused without both names: {refused}")
            continue
        either = [replace(apply_flags(replace(plain, flags=pair)), flags=()) for pair in ((name, other), (other, name))]
        require(either[0] == either[1], f"with '{other}' the order of the two changes the trial")


def refusal(trial: TrialConfig) -> str:
    """Why the trial's flags are refused; empty where they are not."""
    try:
        apply_flags(trial)
    except ConfigError as error:
        return str(error)
    return ""


CHECKS = (it_says_who_it_is, its_claim_can_be_measured, its_edit_is_pure, it_goes_with_others)
