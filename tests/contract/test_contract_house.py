"""The house: no imports in a circle, no shared names, no dependency that nothing imports, no dangling names."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("stackwise_ray", "analysis")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imported(name: str) -> set[str]:
    """The modules of both packages that one imports, wherever in it, for types alone included."""
    path = FILES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found.update(other if (other := f"{base}.{alias.name}") in FILES else base for alias in node.names)
    return (found & set(FILES)) - {name}


def test_no_imports_go_round_in_a_circle() -> None:
    try:
        TopologicalSorter({name: imported(name) for name in FILES}).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


def test_no_two_rooms_import_each_other_in_a_circle() -> None:
    """A room is what stands directly in the package: a folder, or a command's module."""
    rooms: dict[str, set[str]] = defaultdict(set)
    for name in FILES:
        parts = name.split(".")
        if parts[0] == "stackwise_ray" and len(parts) > 1:
            others = {other.split(".")[1] for other in imported(name) if other.startswith("stackwise_ray.")}
            rooms[parts[1]] |= others - {parts[1]}
    try:
        TopologicalSorter(rooms).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


def test_no_two_modules_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, path in FILES.items():
        if path.name != "__init__.py" and not path.name.startswith("__"):
            places[path.stem].append(name)
    assert {stem: names for stem, names in places.items() if len(names) > 1} == {}


def test_no_two_public_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, path in FILES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert {owner: names for owner, names in places.items() if len(names) > 1} == {}


def test_every_runtime_dependency_is_imported() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    distributions = {re.split(r"[^\w-]", requirement)[0].lower() for requirement in declared}
    roots = set()
    for path in FILES.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                roots |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                roots.add(node.module.partition(".")[0])
    provided = packages_distributions()
    imported_distributions = {name.lower() for root in roots for name in provided.get(root, ())}
    assert distributions <= imported_distributions, sorted(distributions - imported_distributions)
