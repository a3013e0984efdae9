"""Where search-space files are: the user's paths, and the ones that are shipped with the package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from stackwise_ray.core.errors import ConfigError, did_you_mean

SHIPPED_PACKAGE = "stackwise_ray.search_spaces"
"""The top-level folder `search_spaces/` of the repository, installed under this name."""


def shipped_search_spaces() -> dict[str, Path]:
    """The shipped files by name."""
    return {file.stem: file for folder in _folders() for file in sorted(folder.glob("*.yaml"))}


def find_search_space(name_or_path: str | Path) -> Path:
    """The file that is meant: a path; else, for a bare name or `search_spaces/<name>.yaml`, the shipped file.

    Raises:
        ConfigError: There is neither; the message has the nearest shipped name.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.is_dir():
        inside = next(iter(sorted(path.glob("*.yaml"))), path / "FILE.yaml")
        raise ConfigError(f"is a folder; give a search-space file, for example {inside}", source=str(path))
    shipped = shipped_search_spaces()
    bare = path.parent == Path() and path.suffix in ("", ".yaml")
    in_folder = path.parent == Path("search_spaces") and path.suffix == ".yaml"
    if (bare or in_folder) and path.stem in shipped:
        return shipped[path.stem]
    raise ConfigError(
        f"no such file, and no shipped search space has this name; {did_you_mean(path.stem, shipped)}", source=str(path)
    )


def _folders() -> list[Path]:
    spec = find_spec(SHIPPED_PACKAGE)
    if spec is not None and spec.submodule_search_locations:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(__file__).resolve().parents[3] / "search_spaces"]  # a checkout that is on the path, not installed
