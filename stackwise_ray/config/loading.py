"""From what a user wrote to validated values: command-line words to a trial, a search-space file to a sweep.

The commands and the Python face call these; nothing here imports torch or ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stackwise_ray.config import schema
from stackwise_ray.config.checks import check_trial
from stackwise_ray.config.editing import Draft
from stackwise_ray.config.presets import PresetCatalogue
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.validation import Origin
from stackwise_ray.config.yaml import parse_value
from stackwise_ray.core.errors import ConfigError

COMMAND_LINE = "command line"


def load_trial(words: Sequence[str]) -> TrialConfig:
    """One trial from `group=choice` and `path=value` words.

    Args:
        words: E.g. ``["model=decoder/bk_family/tiny", "training.lr=3e-4", "training.budget={tokens: 1e6}"]``.
            ``presets=DIR`` adds a folder of presets.

    Raises:
        ConfigError: Unknown preset, unknown key, wrong type, contradictory budget, a rule across fields broken.
    """
    groups: dict[str, str] = {}
    edits: dict[str, Any] = {}
    directories: list[str] = []
    for path, text in split_words(words):
        if path == "presets":
            directories.extend(text.split(","))
        elif path in schema.GROUPS and not text.startswith("{"):
            groups[path] = text
        else:
            edits[path] = parse_word(path, text)
    draft = compose_draft(PresetCatalogue(directories), groups).edited(edits, source=COMMAND_LINE)
    trial = draft.build()
    check_trial(trial, locate=draft.locate)
    return trial


def compose_draft(catalogue: PresetCatalogue, groups: dict[str, str]) -> Draft:
    """The presets that command-line words chose."""
    written = {group: Origin(COMMAND_LINE, group) for group in groups}
    try:
        return catalogue.draft(groups, written)
    except ConfigError as error:
        raise error.at(source=COMMAND_LINE) from None


def split_words(words: Sequence[str]) -> list[tuple[str, str]]:
    """`path=value` words as pairs.

    Raises:
        ConfigError: A word has no `=`, an empty side, Hydra's `+` or `~`, or a path is given twice.
    """
    pairs: dict[str, str] = {}
    for word in words:
        path, equals, text = word.partition("=")
        path = path.strip()
        if not equals or not path:
            raise ConfigError(f"'{word}' is not of the form path=value", source=COMMAND_LINE)
        if path[0] in "+~":
            problem = f"'{word}' begins with '{path[0]}'; write path=value: a key of the schema is there already"
            raise ConfigError(problem, source=COMMAND_LINE)
        if not text.strip():
            raise ConfigError("has no value; write null for none", path=path, source=COMMAND_LINE)
        if path in pairs and pairs[path] != text.strip():
            raise ConfigError(f"is given twice, as {pairs[path]} and {text.strip()}", path=path, source=COMMAND_LINE)
        pairs[path] = text.strip()
    return list(pairs.items())


def parse_word(path: str, text: str) -> Any:
    """The value of one word, with its place in the error."""
    try:
        return parse_value(text)
    except ConfigError as error:
        raise ConfigError(f"{text!r}: {error.problem}", path=path, source=COMMAND_LINE) from None
