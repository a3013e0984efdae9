"""The house: no two imports that go round in a circle, and no two modules that share a name."""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
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
