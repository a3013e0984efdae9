"""The package `analysis`, found by its place: the folder beside `stackwise_ray`, never what the working folder holds.

`python -m` puts the working folder first on the path, and `analysis.py` is a common name there: `import analysis`
would execute that file. The commands and the registry of analyses ask this module instead. Where the name `analysis`
leads to our folder, our package has that name; elsewhere it is loaded under a private one (all imports inside it are
relative). The user's file is not executed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

NAME = "analysis"
PRIVATE = "_stackwise_analysis"
PLACE = Path(__file__).resolve().parents[2] / NAME


def analysis_package() -> str:
    """The name under which our package `analysis` can be imported in this process.

    Raises:
        ModuleNotFoundError: The folder is not beside `stackwise_ray`: the installation is damaged.
    """
    if PRIVATE in sys.modules:
        return PRIVATE
    loaded = sys.modules.get(NAME)
    spec = loaded.__spec__ if loaded is not None else _find()
    if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == PLACE / "__init__.py":
        return NAME
    _load_privately()
    return PRIVATE


def analysis_module(name: str = "") -> ModuleType:
    """Our package `analysis`, or a module of it.

    Args:
        name: Dotted name inside the package, e.g. ``report.compose``.
    """
    package = analysis_package()
    return importlib.import_module(f"{package}.{name}" if name else package)


def _find() -> ModuleSpec | None:
    """Where `import analysis` would lead; a top-level name is looked up without executing anything."""
    try:
        return importlib.util.find_spec(NAME)
    except (ImportError, ValueError):
        return None


def _load_privately() -> None:
    spec = importlib.util.spec_from_file_location(
        PRIVATE, PLACE / "__init__.py", submodule_search_locations=[str(PLACE)]
    )
    if spec is None or spec.loader is None or not (PLACE / "__init__.py").is_file():
        raise ModuleNotFoundError(f"{PLACE} is missing: install stackwise_ray again", name=NAME)
    module = importlib.util.module_from_spec(spec)
    sys.modules[PRIVATE] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[PRIVATE]
        raise
