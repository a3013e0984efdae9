"""Presets: named YAML files in the groups model, data, training and optimizer, composed by Hydra.

The shipped ones lie in `stackwise_ray/presets`; a user's folder of the same layout adds to them (the key `presets`
of a search-space file, the word `presets=DIR` of a command, or an entry point in the group `stackwise_ray.presets`
that names a package). A name that two folders share is refused: which file was meant would be a guess. An installed
package stops nobody who asks for nothing of it: what is wrong with it is a warning, and a shipped preset stays what it
is where a package has one of its name.

Hydra composes (defaults lists, interpolation, `@package`); it validates nothing here. `config.trial.editing` turns what
comes out, with the overrides, into a `TrialConfig`.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stackwise_ray.config.trial.editing import Draft
from stackwise_ray.config.trial.paths import GROUPS
from stackwise_ray.config.trial.validation import Origin, show
from stackwise_ray.core.errors import ConfigError, did_you_mean
from stackwise_ray.core.plugins import note_problem

SHIPPED = Path(__file__).resolve().parents[2] / "presets"

DEFAULTS = {"data": "python_stdlib", "training": "classical", "optimizer": "adamw"}
"""What a trial gets where nothing is said (`presets/config.yaml`); a model must be named."""

_CHOICE = re.compile(r"[A-Za-z0-9_][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)*")


_composed: dict[Any, dict[str, Any]] = {}
"""Composed presets by choice and state of the files: Hydra takes 50 ms for each, and a sweep asks several times."""


class PresetCatalogue:
    """The shipped presets and those of user folders.

    Args:
        directories: User folders, each with sub-folders named like the groups.

    Raises:
        ConfigError: A folder is missing, or two folders hold a preset of one name.
    """

    def __init__(self, directories: Iterable[str | Path] = ()) -> None:
        self._user = [_existing(Path(directory)) for directory in directories]
        self._plugins, self._not_found = _plugin_directories()
        self._clashes: dict[tuple[str, str], ConfigError] = {}
        self._files: dict[str, dict[str, Path]] = {group: self._scan(group) for group in GROUPS}
        self._state = tuple(sorted(_state(file) for files in self._files.values() for file in files.values()))

    def names(self, group: str) -> tuple[str, ...]:
        """All presets of a group, e.g. ``decoder/gpt2_family/tiny``."""
        return tuple(sorted(self._files[group]))

    def file(self, group: str, choice: Any, *, written: Origin | None = None) -> Path:
        """The file of one preset.

        Args:
            written: Where the choice was made, for the message.

        Raises:
            ConfigError: There is no such preset; the message has the nearest name.
        """
        place = written or Origin(None, group)
        if not isinstance(choice, str) or not _CHOICE.fullmatch(choice):
            problem = f"= {show(choice)} is not the name of a preset, such as {_example(self.names(group))}"
            raise ConfigError(problem, path=place.path, source=place.source)
        found = self._files[group].get(choice)
        if found is None:
            problem = f"= {choice} is not a preset of the group {group}; {did_you_mean(choice, self.names(group))}"
            problem += "".join(f" ({broken})" for broken in self._not_found)
            raise ConfigError(problem, path=place.path, source=place.source)
        if (group, choice) in self._clashes:
            raise self._clashes[group, choice]
        return found

    def compose(self, groups: Mapping[str, str]) -> dict[str, Any]:
        """The composed presets as plain data, defaults filled in; see `compose`."""
        chosen = {**DEFAULTS, **groups}
        for group in chosen:
            if group not in GROUPS:
                raise ConfigError(f"unknown preset group; {did_you_mean(group, GROUPS)}", path=group)
        if "model" not in chosen:
            raise ConfigError(f"is required; name a preset, such as {_example(self.names('model'))}", path="model")
        for group, choice in chosen.items():
            self.file(group, choice)
        key = (tuple(sorted(chosen.items())), self._state)
        if key not in _composed:
            _composed[key] = self._compose(chosen)
        return copy.deepcopy(_composed[key])

    def draft(self, groups: Mapping[str, str], written: Mapping[str, Origin] | None = None) -> Draft:
        """A draft of the composed presets that knows the file of each group.

        Args:
            written: Group to where its choice was made, for messages about an unknown preset.
        """
        files = {
            group: self.file(group, choice, written=(written or {}).get(group))
            for group, choice in {**DEFAULTS, **groups}.items()
            if group in GROUPS
        }
        # What a user can correct is named: the file of an own preset, and for a shipped one the place that chose it.
        origins = {
            group: Origin((written or {}).get(group, Origin(None, group)).source, group)
            if file.is_relative_to(SHIPPED)
            else Origin(str(file), "")
            for group, file in files.items()
        }
        return Draft(plain=self.compose(groups), origins=origins)

    def _compose(self, chosen: Mapping[str, str]) -> dict[str, Any]:
        from hydra import compose as hydra_compose
        from hydra import initialize_config_dir
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        words = [f"{group}={choice}" for group, choice in chosen.items()]
        extra = [f"file://{directory}" for directory in (*self._user, *self._plugins)]
        if extra:
            quoted = ",".join("'" + path.replace("\\", "\\\\").replace("'", "\\'") + "'" for path in extra)
            words.append(f"hydra.searchpath=[{quoted}]")
        try:
            with _own_hydra(), initialize_config_dir(str(SHIPPED), version_base="1.3"):
                composed = hydra_compose("config", overrides=words)
                plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
            files = [self._files[group][choice] for group, choice in chosen.items()]
            unreadable = [file for file in files if not _is_yaml(file)]
            shown = ", ".join(map(_short, unreadable or files))
            raise ConfigError(f"the presets do not compose: {' '.join(str(error).split())}", source=shown) from None
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}

    def _scan(self, group: str) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for directory in (SHIPPED, *self._plugins, *self._user):
            for file in sorted((directory / group).rglob("*.yaml")):
                name = file.relative_to(directory / group).with_suffix("").as_posix()
                if name in found:
                    problem = f"the {group} preset '{name}' is also {_short(found[name])}"
                    if found[name].is_relative_to(SHIPPED) and directory not in self._user:
                        note_problem(f"{file}: {problem}, which is taken; the installed plugin's is left out")
                        continue
                    clash = ConfigError(f"{problem}; rename one of the two", source=str(file))
                    if directory in self._user:
                        raise clash
                    self._clashes.setdefault((group, name), clash)
                    note_problem(str(clash))
                    continue
                found[name] = file
        return found


def compose(groups: Mapping[str, str], directories: Iterable[str | Path] = ()) -> dict[str, Any]:
    """Presets composed into the plain data of a trial.

    Args:
        groups: Group to preset, e.g. ``{"model": "decoder/gpt2_family/tiny", "data": "markov"}``; what is left out
            comes from `DEFAULTS`.
        directories: User folders of presets.

    Raises:
        ConfigError: Unknown group or preset (with the nearest name), no model, or a preset that does not compose.
    """
    return PresetCatalogue(directories).compose(groups)


def list_presets(group: str, directories: Iterable[str | Path] = ()) -> tuple[str, ...]:
    """The names of all presets in a group, sorted.

    Raises:
        ConfigError: There is no such group.
    """
    if group not in GROUPS:
        raise ConfigError(f"unknown preset group '{group}'; {did_you_mean(group, GROUPS)}")
    return PresetCatalogue(directories).names(group)


def _existing(directory: Path) -> Path:
    if not directory.is_dir():
        raise ConfigError(
            "= " + str(directory) + " is not a folder; give the folder that contains model/, data/ …", path="presets"
        )
    return directory.resolve()


def _plugin_directories() -> tuple[list[Path], list[str]]:
    """Folders of the packages that installed distributions name in the entry-point group, and what cannot be found.

    A package is not imported; the parent of a dotted name is, and may fail in any way.
    """
    found: list[Path] = []
    problems: list[str] = []
    for entry in entry_points(group="stackwise_ray.presets"):
        named = f"the installed plugin of presets '{entry.name}' names {entry.value}"
        try:
            spec = find_spec(entry.value)
        except Exception as error:
            problems.append(f"{named}, which cannot be found: {type(error).__name__}: {' '.join(str(error).split())}")
            continue
        if spec is None or not spec.submodule_search_locations:
            problems.append(f"{named}, which is not an installed package")
            continue
        found.extend(Path(place) for place in spec.submodule_search_locations)
    for problem in problems:
        note_problem(problem)
    return found, problems


def _is_yaml(file: Path) -> bool:
    from yaml import YAMLError, safe_load

    try:
        safe_load(file.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError, OSError):
        return False
    return True


@contextlib.contextmanager
def _own_hydra() -> Iterator[None]:
    """Hydra's process-wide state set aside: the caller may be inside a Hydra program of its own."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton

    kept = Singleton.get_state()
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        Singleton.set_state(kept)


def _state(file: Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError:  # a link to nothing: whoever asks for it is told
        return str(file), 0, 0
    return str(file), status.st_mtime_ns, status.st_size


def _short(file: Path) -> str:
    """A shipped file from its package on, any other as it is."""
    return (
        f"stackwise_ray/presets/{file.relative_to(SHIPPED).as_posix()}" if file.is_relative_to(SHIPPED) else str(file)
    )


def _example(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "") if names else "(there is none)"
