"""The rules that span several fields of a trial, in one place.

`check_trial` is called wherever a configuration enters: by `load_trial`, by the design generators for every arm, and
by a searcher for every point. What needs a tokenizer's vocabulary or counted FLOPs is checked by the planner.
"""

from __future__ import annotations

from collections.abc import Callable

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.validation import Locate, Origin
from stackwise_ray.core.errors import ConfigError


def check_trial(trial: TrialConfig, *, locate: Locate | None = None) -> None:
    """Refuse a trial whose fields contradict each other.

    Args:
        locate: From a dotted path of the trial to where its value was written.

    Raises:
        ConfigError: With both values and what to choose instead.
    """
    find = locate or (lambda path: Origin(None, path))
    for rule in RULES:
        found = rule(trial)
        if found is not None:
            path, problem = found
            origin = find(path)
            raise ConfigError(problem, path=origin.path, source=origin.source)


RULES: tuple[Callable[[TrialConfig], tuple[str, str] | None], ...] = ()
