"""From changes over a sweep's base to trials: presets composed, edits merged, the whole checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackwise_ray.config.reading.presets import PresetCatalogue
from stackwise_ray.config.space.domains import Resolve
from stackwise_ray.config.space.sweep_config import SweepConfig
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.editing import Draft, with_defaults
from stackwise_ray.config.trial.paths import GROUPS
from stackwise_ray.config.trial.rules import check_trial
from stackwise_ray.config.trial.validation import Origin
from stackwise_ray.core.errors import ConfigError


class Resolver:
    """Turns changes to a sweep's base into trials; presets are composed once.

    Args:
        sweep: Its `base` and `presets` are read.
    """

    def __init__(self, sweep: SweepConfig) -> None:
        self._base = sweep.base
        self._source = sweep.source
        self._catalogue = PresetCatalogue(sweep.presets)

    def draft(self, changes: Mapping[str, Any], *, place: str) -> Draft:
        """The base with `changes` (preset groups, dotted paths, component mappings) over it.

        Args:
            place: Dotted path of `changes` in the file, for messages.

        Raises:
            ConfigError: Unknown preset or path.
        """
        chosen = {group: choice for group in GROUPS if (choice := getattr(self._base, group)) is not None}
        written = {group: Origin(self._source, f"base.{group}") for group in GROUPS}
        for group in GROUPS:
            if isinstance(changes.get(group), str):
                chosen[group] = changes[group]
                written[group] = Origin(self._source, f"{place}.{group}")
        if "model" not in chosen:
            problem = "is absent, and so is base.model; name a model preset in one of them"
            raise ConfigError(problem, path=f"{place}.model", source=self._source)
        edits = {path: value for path, value in changes.items() if path not in chosen or not isinstance(value, str)}
        draft = self._catalogue.draft(chosen, written)
        draft = draft.edited(self._base.overrides, source=self._source, place="base.overrides")
        return draft.edited(edits, source=self._source, place=place)

    def trial(self, changes: Mapping[str, Any], *, place: str) -> TrialConfig:
        """The validated and checked trial of `draft`, seed 0.

        Raises:
            ConfigError: Wrong type, or a rule across fields broken.
        """
        draft = self.draft(changes, place=place)
        trial = draft.build()
        check_trial(trial, locate=draft.locate)
        return trial

    def resolve(self, place: str) -> Resolve:
        """A function from a point to the whole trial as plain data, for conditions and constraints."""
        return lambda point: with_defaults(self.draft(point, place=place).plain)
