"""What a flag is, the registry of flags, and how several of them edit one config."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.flag_answers import edits_of, lack_of
from stackwise_ray.config.trial.paths import overlap
from stackwise_ray.core import registries
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.plugins import origin
from stackwise_ray.core.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A measurement that a claim is about.

    Attributes:
        metric: Path of the metric, measured with the flag.
        against: Path of the metric that it is compared with in the same trials; None: the same metric without the flag.
        form: Whether the ratio of the two is shown or their difference.
    """

    metric: str
    against: str | None = None
    form: Literal["ratio", "difference"] = "ratio"


@dataclass(frozen=True, kw_only=True)
class Flag:
    """An optimization that can be switched on for any trial that meets its needs.

    Attributes:
        name: The name in `TrialConfig.flags`, and of the flag's module.
        summary: What it does, in one sentence.
        claim: The effect that is said to follow, which the claims table measures.
        measured_by: What the claim is about, as measurements; the claims table shows them beside it.
        needs: Given the trial, what it lacks for this flag and what to write instead; None where nothing is lacking.
        edits: Given the trial, the values that the flag sets, by dotted path. Pure: same trial, same edits.
    """

    name: str
    summary: str
    claim: str
    measured_by: tuple[Measure, ...]
    needs: Callable[[TrialConfig], str | None]
    edits: Callable[[TrialConfig], Mapping[str, Any]]


FLAGS: Registry[Flag] = registries.FLAGS


def apply_flags(trial: TrialConfig) -> TrialConfig:
    """The trial with the edits of all its flags; `trial.flags` itself stays, and a second call changes nothing.

    Every flag sees the trial as it was before any flag, so the order of `trial.flags` is of no effect.

    Raises:
        ConfigError: A flag is unknown, listed twice or lacks something, two flags write different values to one
            field (both are named), or what they write breaks a rule of `config.trial.rules`.
    """
    if not trial.flags:
        return trial
    written: dict[str, tuple[Any, str]] = {}
    for position, name in enumerate(trial.flags):
        if name in trial.flags[:position]:
            raise ConfigError(f"contains '{name}' twice; write it once", path="flags")
        try:
            lack = lack_of(name, trial)
            edits = {} if lack is not None else edits_of(name, trial)
        except ConfigError as error:
            raise error.at(path="flags") from None
        if lack is not None:
            raise ConfigError(f"'{name}' {lack}", path="flags")
        for path, value in edits.items():
            _refuse_conflict(name, path, value, written)
            written[path] = (value, name)
    # On first use: they validate, which loads pydantic.
    from stackwise_ray.config.trial.editing import edit
    from stackwise_ray.config.trial.rules import first_broken

    def edited_by(names: Collection[str]) -> TrialConfig:
        """The trial with the edits of these flags, which break no rule."""
        edited = edit(trial, {path: value for path, (value, name) in written.items() if name in names})
        found = first_broken(edited)
        if found is not None:
            raise ConfigError(found[1], path=found[0])
        return edited

    def problem_with(names: Collection[str]) -> ConfigError | None:
        """What these flags together would break."""
        try:
            edited_by(names)
        except ConfigError as error:
            return error
        return None

    try:
        return edited_by(trial.flags)
    except ConfigError as problem:
        raise _of_the_flags(problem, trial.flags, problem_with) from None


def _of_the_flags(
    problem: ConfigError, flags: Sequence[str], problem_with: Callable[[Collection[str]], ConfigError | None]
) -> ConfigError:
    """A problem, said of the flags without which there would be none: the user wrote no such field."""
    own = problem_with(())
    if own is not None:
        return own
    for name in flags:
        alone = problem_with([name])
        if alone is not None:
            return ConfigError(f"{origin(FLAGS, name)} cannot be applied: {alone}", path="flags")
    needed = [name for name in flags if problem_with([one for one in flags if one != name]) is None]
    named = " and ".join(origin(FLAGS, name) for name in sorted(needed or flags))
    return ConfigError(f"{named} cannot be applied together: {problem}", path="flags")


def _refuse_conflict(name: str, path: str, value: Any, written: Mapping[str, tuple[Any, str]]) -> None:
    for other_path, (other_value, other) in written.items():
        if path == other_path and value == other_value:
            continue
        if overlap(path, other_path):
            raise ConfigError(
                f"'{other}' sets {other_path} = {other_value!r} and '{name}' sets {path} = {value!r}; "
                "these two flags do not go together; leave one of them out",
                path="flags",
            )
