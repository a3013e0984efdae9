"""The layers of the architecture, held against the imports of every module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from stackwise_ray.plugin_checkup import HEAVY
from tests.sources import nodes, tree

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "stackwise_ray"
LAYERS = {
    "core": 0,
    "config": 1,
    "kernels": 2,
    "models": 2,
    "data": 2,
    "optim": 2,
    "metrics": 2,
    "flags": 2,
    "tracking": 2,
    "tasks": 3,
    "training": 3,
    "planning": 4,
    "running": 5,
    "trials": 5,
    "distributed": 5,
    "terminal": 6,
    "sweep": 6,
    "train": 6,
    "evaluate": 6,
    "checkup": 6,
    "doctor": 6,
    "contracts": 6,
    "plugin_checkup": 6,
    "drafting": 6,
    "new": 6,
    "completion": 6,
    "launch": 6,
    "__main__": 6,
}
FLOORS = {
    "table": 1,
    "paired": 2,
    "anytime": 3,
    "tasks": 3,
    "scaling": 3,
    "plots": 4,
    "report": 5,
    "steps": 6,
    "commands": 7,
    "__main__": 8,
}
"""Rooms of `analysis` from the ground up; a module in none of them is on the ground, and may import no room."""
WITHIN_A_LAYER = {("models", "kernels"), ("metrics", "kernels"), ("tasks", "training")}
"""(room, another of its layer that it may import from)."""


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names that a module imports from outside."""
    found: set[str] = set()
    for node in tree(path).body if top_level_only else nodes(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:  # stays inside its own package
                assert path.is_relative_to(ROOT / "analysis"), f"{path}: stackwise_ray imports by absolute names"
                continue
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def room(module: str) -> str | None:
    """Which part of stackwise_ray a dotted name belongs to; None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else None


def layer(module: str) -> int:
    """The layer of a module, by its dotted name without the package's."""
    return LAYERS[module.split(".")[0]]


def modules(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py"))


def test_a_module_imports_only_from_lower_layers() -> None:
    wrong = []
    for path in modules(PACKAGE):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        own = name.split(".")[0]
        if own == "__init__":
            continue  # the package's face loads everything lazily; the light import is tested on its own
        for module in imports(path):
            other = room(module) if module.startswith("stackwise_ray.") else None
            if other is None:
                continue
            target = module.removeprefix("stackwise_ray.")
            lower = layer(target) < layer(name)
            same = other == own and layer(target) <= layer(name)
            if not (lower or same or (own, other) in WITHIN_A_LAYER or layer(name) == layer(target) >= 5):
                wrong.append(f"{path.relative_to(ROOT)} (layer {layer(name)}) imports {module} (layer {layer(target)})")
    assert wrong == []


def test_ray_is_imported_in_distributed_alone_and_analysis_in_the_commands_alone() -> None:
    wrong = []
    for path in modules(PACKAGE):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        roots = {name.split(".")[0] for name in imports(path)}
        if "ray" in roots and own != "distributed":
            wrong.append(f"{path.relative_to(ROOT)} imports ray")
        if "analysis" in roots and LAYERS.get(own, 6) != 6:
            wrong.append(f"{path.relative_to(ROOT)} imports analysis")
    assert wrong == []


def test_analysis_knows_only_the_core() -> None:
    wrong = []
    for path in modules(ROOT / "analysis"):
        for module in imports(path):
            root = module.split(".")[0]
            core = module == "stackwise_ray" or module.startswith("stackwise_ray.core")
            if root in {"torch", "ray"} or (root == "stackwise_ray" and not core):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []


def imports_within_analysis(path: Path) -> set[str]:
    """Dotted names below `analysis`, without the package's, that a module of it imports."""
    package = path.relative_to(ROOT / "analysis").parts[:-1]
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*package[: len(package) - node.level + 1], *(node.module or "").split("."))
            found.update(".".join(filter(None, (*base, alias.name))) for alias in node.names)
    return found


def test_a_room_of_analysis_imports_only_from_the_floors_below_it() -> None:
    wrong = []
    for path in modules(ROOT / "analysis"):
        own = path.relative_to(ROOT / "analysis").parts[0].removesuffix(".py")
        if own == "__init__":
            continue  # the package's face names what the rooms hold, and loads none of it
        for module in imports_within_analysis(path):
            other = module.split(".")[0]
            if not (other == own or FLOORS.get(other, 0) < FLOORS.get(own, 0) or other not in FLOORS):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}, which is no floor below its own")
    assert wrong == []


@pytest.mark.parametrize("part", ["core", "config", "flags"])
def test_what_a_config_error_needs_loads_nothing_heavy(part: str) -> None:
    for path in modules(PACKAGE / part):
        heavy = {name.split(".")[0] for name in imports(path)} & set(HEAVY)
        assert not heavy, f"{path.relative_to(ROOT)} imports {heavy}"


@pytest.mark.parametrize("command", ["terminal", "sweep", "train", "evaluate", "doctor", "checkup"])
def test_a_command_loads_nothing_heavy_before_it_has_read_its_arguments(command: str) -> None:
    top = imports(PACKAGE / f"{command}.py", top_level_only=True)
    assert not {name.split(".")[0] for name in top} & set(HEAVY)
    light = {None, "core", "config", "flags", "terminal", "sweep", "train", "checkup", "plugin_checkup"}
    for module in top:
        assert room(module) in light, module
