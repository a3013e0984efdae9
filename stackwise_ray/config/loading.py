"""From what a user wrote to validated values: command-line words to a trial, a search-space file to a sweep.

The commands and the Python face call these; nothing here imports torch or ray.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stackwise_ray.config.overriding import COMMAND_LINE, apply_overrides
from stackwise_ray.config.reading.extending import extended
from stackwise_ray.config.reading.presets import PresetCatalogue
from stackwise_ray.config.reading.shipped import find_search_space, shipped_search_spaces
from stackwise_ray.config.reading.yaml import parse_value
from stackwise_ray.config.space.naming import level_labels
from stackwise_ray.config.space.sweep_config import (
    NOT_KEYS,
    SWEEP_SCHEMA_VERSION,
    AdaptiveSeeds,
    SweepConfig,
    with_default_objective,
)
from stackwise_ray.config.space.sweep_rules import check_sweep
from stackwise_ray.config.trial import TrialConfig, paths
from stackwise_ray.config.trial.editing import Draft, value_at
from stackwise_ray.config.trial.rules import check_trial
from stackwise_ray.config.trial.validation import Origin, show, validate
from stackwise_ray.core.errors import ConfigError

__all__ = [
    "find_search_space",
    "load_sweep",
    "load_trial",
    "shipped_search_spaces",
    "sweep_from_plain",
    "sweep_from_words",
]


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
        elif path in paths.GROUPS and not text.startswith("{"):
            groups[path] = text
        else:
            edits[path] = parse_word(path, text)
    draft = compose_draft(PresetCatalogue(directories), groups).edited(edits, source=COMMAND_LINE)
    trial = draft.build()
    check_trial(trial, locate=draft.locate)
    return trial


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """A validated sweep; every arm has been built and checked.

    Args:
        path: A file, the bare name of a shipped one, or `search_spaces/<name>.yaml` (`find_search_space`).
        overrides: `path=value` words of the command line (`config.overriding`).

    Raises:
        ConfigError: The first mistake, with file, path, value and fix.
    """
    file = find_search_space(path)
    words = [(word, parse_word(word, text)) for word, text in split_words(overrides)]
    original, inherited = extended(file)
    document, written = apply_overrides(original, words)
    try:
        return sweep_from_plain(document, source=str(file), folder=file.resolve().parent)
    except ConfigError as error:
        if error.source != str(file) or error.path is None:
            raise
        if _from_words(error.path, written, original):
            raise ConfigError(error.problem, path=error.path, source=COMMAND_LINE) from None
        there = inherited.get(error.path.partition(".")[0], file)
        raise ConfigError(error.problem, path=error.path, source=str(there)) from None


def sweep_from_plain(
    document: Mapping[str, Any], *, source: str | None = None, folder: Path | None = None
) -> SweepConfig:
    """A validated sweep from plain data, such as a stored `sweep.yaml`.

    Args:
        folder: Where relative folders of presets begin.

    Raises:
        ConfigError: See `load_sweep`.
    """
    document = _prepare(dict(document), source)
    _refuse_version(document, source)
    _check_seeds(document, source)
    for key in NOT_KEYS:
        if key in document:
            raise ConfigError("unknown key; leave it out", path=key, source=source)
    sweep = validate(SweepConfig, document, source=source)
    directories = tuple(str((folder or Path()) / directory) for directory in sweep.presets)
    sweep = dataclasses.replace(sweep, source=source, presets=directories)
    try:
        if "objective" not in document:
            sweep = with_default_objective(sweep)
        check_sweep(sweep)
    except ConfigError as error:
        raise error.at(source=source) from None
    return sweep


def sweep_from_words(words: Sequence[str]) -> SweepConfig:
    """The sweep of `train … --multirun`: words with several values, `path=a,b`, are the factors of a grid.

    Args:
        words: As for `load_trial`; `seed=0,1` gives the replicates, `name=NAME` the sweep's name.

    Raises:
        ConfigError: No word has several values, or the grid is no valid sweep.
    """
    base: dict[str, Any] = {"overrides": {}}
    document: dict[str, Any] = {"name": "multirun", "base": base, "replicates": {"seeds": [0]}, "schema_version": 1}
    factors: dict[str, Any] = {}
    for path, text in split_words(words):
        parts = split_values(text)
        values = [part if path in paths.GROUPS else parse_word(path, part) for part in parts]
        if path == "name":
            document["name"] = text
        elif path == "presets":
            document["presets"] = parts
        elif path == "seed":
            document["replicates"] = {"seeds": values}
        elif len(values) > 1:
            factors[path] = values
        elif path in paths.GROUPS and isinstance(values[0], str):
            base[path] = values[0]
        else:
            base["overrides"][path] = values[0]
    several_seeds = len(document["replicates"]["seeds"]) > 1
    if not factors and not several_seeds:
        problem = "--multirun needs a word with several values, such as training.lr=1e-3,3e-3"
        raise ConfigError(problem, source=COMMAND_LINE)
    document["design"] = {"kind": "grid", "factors": factors} if factors else {"kind": "arms", "arms": {"base": {}}}
    return sweep_from_plain(document, source=COMMAND_LINE)


def split_values(text: str) -> list[str]:
    """The values of `a,b,c`, split at commas outside of brackets, braces and quotes.

    >>> split_values("[1,2],{a: 1},'x,y'")
    ['[1,2]', '{a: 1}', "'x,y'"]
    """
    parts, depth, quote, start = [], 0, "", 0
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{(":
            depth += 1
        elif character in "]})":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    return [*parts, text[start:].strip()]


def _from_words(path: str, written: Sequence[str], original: Mapping[str, Any]) -> bool:
    """Whether what stands at `path` was written by a word, or made to hold what one wrote."""
    if any(path == other or path.startswith(f"{other}.") for other in written):
        return True
    return any(other.startswith(f"{path}.") for other in written) and value_at(original, path) is None


def _prepare(document: dict[str, Any], source: str | None) -> dict[str, Any]:
    """The shorter ways of writing a file, written out: an arm left empty, sizes by preset, `search` in the design."""
    design = document.get("design")
    if not isinstance(design, Mapping):
        return document
    design = dict(design)
    if "search" in design:
        if document.get("search") is not None:
            raise ConfigError(
                "is given both inside design and beside it; keep one of them", path="search", source=source
            )
        document["search"] = design.pop("search")
    sizes = design.get("sizes")
    if isinstance(sizes, list) and all(isinstance(preset, str) for preset in sizes):
        design["sizes"] = {name: {"model": preset} for name, preset in zip(level_labels(sizes), sizes, strict=True)}
    if sizes == "auto":
        problem = (
            "= auto is not available: the program cannot know which sizes suit a budget on these data; list the sizes"
        )
        raise ConfigError(problem, path="design.sizes", source=source)
    for key in ("arms", "sizes"):
        if isinstance(design.get(key), Mapping):
            design[key] = {name: {} if changes is None else changes for name, changes in design[key].items()}
            for name in design[key]:
                _check_arm_name(name, f"design.{key}", source)
    for key in ("arms", "factors", "sizes", "flops", "tokens_per_parameter"):
        if key in design and not design[key]:
            raise ConfigError("is empty; give at least one", path=f"design.{key}", source=source)
    document["design"] = design
    return document


def _check_arm_name(name: str, path: str, source: str | None) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+=,~-]{0,99}", name):
        problem = (
            f"'{name[:40]}' cannot name an arm, because an arm's name is also a file name; use letters, digits "
            "and _ . + = , ~ -"
        )
        raise ConfigError(problem, path=path, source=source)


def _refuse_version(document: Mapping[str, Any], source: str | None) -> None:
    version = document.get("schema_version", SWEEP_SCHEMA_VERSION)
    if isinstance(version, int) and not isinstance(version, bool) and version != SWEEP_SCHEMA_VERSION:
        newer = version > SWEEP_SCHEMA_VERSION
        problem = (
            f"= {version} is {'newer than' if newer else 'not'} the version {SWEEP_SCHEMA_VERSION} that this program "
            f"reads; {'update stackwise_ray to read it' if newer else 'there is no such version'}"
        )
        raise ConfigError(problem, path="schema_version", source=source)


def _check_seeds(document: Mapping[str, Any], source: str | None) -> None:
    """The forms that `replicates.seeds` and `resources.max_concurrent` may take, said in words of their own."""
    replicates = document.get("replicates")
    seeds = replicates.get("seeds", 1) if isinstance(replicates, Mapping) else 1
    path = "replicates.seeds"
    if isinstance(seeds, Mapping):
        validate(AdaptiveSeeds, seeds, locate=lambda below: Origin(source, f"{path}.{below}"))
    elif isinstance(seeds, list):
        wrong = next((seed for seed in seeds if not isinstance(seed, int) or isinstance(seed, bool)), None)
        if wrong is not None:
            problem = f"= {show(seeds)} contains {show(wrong)}; seeds are whole numbers"
            raise ConfigError(problem, path=path, source=source)
    elif isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        problem = f"= {show(seeds)} is not a number of seeds; give their number (1 or more), or list them"
        raise ConfigError(problem, path=path, source=source)
    resources = document.get("resources")
    slots = resources.get("max_concurrent", 1) if isinstance(resources, Mapping) else 1
    if slots != "auto" and (isinstance(slots, bool) or not isinstance(slots, int) or slots < 1):
        problem = f"= {show(slots)} is neither auto nor a number of trials"
        raise ConfigError(problem, path="resources.max_concurrent", source=source)


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
            problem = f"'{word}' begins with '{path[0]}'; write path=value without it, because the key exists already"
            raise ConfigError(problem, source=COMMAND_LINE)
        if not text.strip():
            raise ConfigError(
                "has no value; write path=VALUE, or path=null for no value", path=path, source=COMMAND_LINE
            )
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
