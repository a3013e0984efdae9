"""A search-space file that `extends` another: its own keys are taken whole, all others from there.

Called by `config.loading`. No key is merged with the other file's, so that what a file says about a key is all that
there is to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from stackwise_ray.config.reading.shipped import find_search_space
from stackwise_ray.config.reading.yaml import load_yaml
from stackwise_ray.config.trial.validation import show
from stackwise_ray.core.errors import ConfigError


class Extended(NamedTuple):
    """A document as if one file held it.

    Attributes:
        document: Own and inherited keys; inherited folders of presets as the other file means them.
        inherited: Top-level key to the file that it stands in, for the keys that the file itself leaves out.
    """

    document: dict[str, Any]
    inherited: dict[str, Path]


def extended(file: Path) -> Extended:
    """The document in `file`, with what it leaves out taken from the file that it `extends`, if it does.

    Raises:
        ConfigError: There is no such file, it extends another itself, or the results would have its name.
    """
    document = load_yaml(file)
    if "extends" not in document:
        return Extended(document, {})
    own = {key: value for key, value in document.items() if key != "extends"}
    name, place = document["extends"], {"path": "extends", "source": str(file)}
    if not isinstance(name, str):
        raise ConfigError(f"= {show(name)} is not the name of a search space, such as training_regimes", **place)
    try:
        found = _find(name, file.resolve())
        other = load_yaml(found)
    except ConfigError as error:
        raise ConfigError(f"= {name}: {error.problem}", **place) from None
    if "name" not in own or own["name"] == other.get("name"):
        raise ConfigError(
            f"= {name}, but this file has no other name, so the results of both would be mixed; write a "
            "name of its own",
            **place,
        )
    if "extends" in other:
        raise ConfigError(
            f"= {name} extends {show(other['extends'])} itself; write extends: {other['extends']}", **place
        )
    if isinstance(other.get("presets"), list):
        folder = found.resolve().parent
        other["presets"] = [str(folder / entry) if isinstance(entry, str) else entry for entry in other["presets"]]
    return Extended({**other, **own}, {key: found for key in other if key not in own})


def _find(name: str, file: Path) -> Path:
    """Another file beside this one, with or without its suffix; else as the command line finds it."""
    for beside in (file.parent / name, file.parent / f"{name}.yaml"):
        if beside.is_file() and beside.resolve() != file:
            return beside
    return find_search_space(name)
