"""What a flag says about a trial: what the trial lacks for it, and what it sets.

Asked by `flags.apply_flags`, by a trial's identity and by the check of metric names. Nothing else calls `needs` and
`edits`: what a plugin's flag does wrong in them becomes one message here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from stackwise_ray.config.trial.paths import overlap
from stackwise_ray.config.trial.trial_config import TrialConfig
from stackwise_ray.core.errors import PluginError
from stackwise_ray.core.plugins import at_fault, origin
from stackwise_ray.core.registries import FLAGS


def lack_of(name: str, trial: TrialConfig) -> str | None:
    """What the trial lacks for this flag; None: nothing.

    Raises:
        ConfigError: There is no such flag.
        PluginError: It raises, or answers with no sentence.
    """
    flag = FLAGS.get(name)
    with at_fault(FLAGS, name, "its `needs`"):
        lack = flag.needs(trial)
    if lack is not None and not isinstance(lack, str):
        problem = f"its `needs` gives {lack!r}; return a sentence, or None where nothing is lacking"
        raise PluginError(f"{origin(FLAGS, name)}: {problem}")
    return lack


def edits_of(name: str, trial: TrialConfig) -> Mapping[str, Any]:
    """The values that this flag sets, by dotted path, one for each field: a mapping that it gives is flattened.

    Raises:
        ConfigError: There is no such flag.
        PluginError: It raises, answers with no mapping, or sets a field twice.
    """
    flag = FLAGS.get(name)
    with at_fault(FLAGS, name, "its `edits`"):
        edits = flag.edits(trial)
    if not isinstance(edits, Mapping) or not _named_by_text(edits):
        problem = f"its `edits` gives {edits!r}; return a mapping from dotted paths to values"
        raise PluginError(f"{origin(FLAGS, name)}: {problem}")
    paths = [path for path, _ in _leaves(edits)]
    twice = next((min(pair, key=len) for pair in itertools.combinations(paths, 2) if overlap(*pair)), None)
    if twice is not None:
        problem = f"its `edits` sets {twice} twice, in a mapping and by its dotted path; keep one of them"
        raise PluginError(f"{origin(FLAGS, name)}: {problem}")
    return flatten(edits)


def _named_by_text(edits: Mapping[Any, Any]) -> bool:
    """Whether every key is text, at every depth."""
    return all(
        isinstance(path, str) and (not isinstance(value, Mapping) or _named_by_text(value))
        for path, value in edits.items()
    )


def flatten(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted path to leaf: ``{"model.mixer": {"kind": "none"}}`` becomes ``{"model.mixer.kind": "none"}``."""
    return dict(_leaves(changes))


def _leaves(changes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value with its dotted path, as often as it is set."""
    for path, value in changes.items():
        if isinstance(value, Mapping) and value:
            yield from ((f"{path}.{key}", below) for key, below in _leaves(value))
        else:
            yield path, value


def components_selected(trial: TrialConfig) -> Iterator[str]:
    """Names of the components that the trial has, by its own words or by a flag's.

    Raises:
        PluginError: See `edits_of`.
    """
    yield from trial.model.components
    for flag in trial.flags:
        for path in edits_of(flag, trial):
            if path.startswith(_COMPONENTS):
                yield path.removeprefix(_COMPONENTS).partition(".")[0]


_COMPONENTS = "model.components."
