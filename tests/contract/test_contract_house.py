"""The house: no imports in a circle, no shared names, dependencies are what is imported, no dangling names."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import stackwise_ray
from stackwise_ray.config.space.sweep_config import SweepConfig
from stackwise_ray.config.trial.paths import is_trial_path, trial_paths
from stackwise_ray.core import registries
from stackwise_ray.core.registries import COMPONENTS, FLAGS
from stackwise_ray.core.registry import Registry
from tests.sources import nodes, tree

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
    for node in nodes(path):
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
    """A room is what is directly in the package: a folder, or a command's module."""
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
    for flag in FLAGS.names():  # a flag is called as the component that it selects, and a registry wants its file so
        if flag in COMPONENTS:
            places[flag].remove(f"stackwise_ray.flags.{flag}")
    assert {stem: names for stem, names in places.items() if len(names) > 1} == {}


def test_no_two_public_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, path in FILES.items():
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert {owner: names for owner, names in places.items() if len(names) > 1} == {}


def distribution(name: str) -> str:
    """A distribution's name as all spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: Iterable[str]) -> set[str]:
    return {distribution(re.split(r"[^\w.-]", requirement)[0]) for requirement in requirements}


def others_imported(*folders: str) -> dict[str, set[str]]:
    """Distributions that the files of some folders import, by the top-level name that they import."""
    roots = set()
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    for path in files:
        for node in nodes(path):
            if isinstance(node, ast.Import):
                roots |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                roots.add(node.module.partition(".")[0])
    provided = packages_distributions()
    beside = {path.stem for path in files} - set(provided)  # scripts and tests import what lies beside them
    roots -= {"stackwise_ray", "analysis", "tests", *sys.stdlib_module_names, *beside}
    return {root: {distribution(name) for name in provided.get(root, [root])} for root in roots}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUNTIME = declared(PROJECT["dependencies"])
EXTRAS = {extra: declared(needs) for extra, needs in PROJECT["optional-dependencies"].items()}
DEVELOPERS = EXTRAS.pop("dev")
OPTIONAL = {"triton"}.union(*EXTRAS.values())
"""What a user may install; triton comes with the builds of torch for CUDA."""


def test_every_runtime_dependency_is_imported() -> None:
    unused = RUNTIME.difference(*others_imported("stackwise_ray", "analysis").values())
    assert not unused, sorted(unused)


@pytest.mark.parametrize(
    ("folder", "may"),
    [
        ("stackwise_ray", RUNTIME | OPTIONAL),
        ("analysis", RUNTIME),
        ("examples", RUNTIME),
        ("benchmarks", RUNTIME),
        ("tests", RUNTIME | OPTIONAL | DEVELOPERS),
    ],
)
def test_everything_that_is_imported_is_declared(folder: str, may: set[str]) -> None:
    found = others_imported(folder)
    assert found
    undeclared = {root: names for root, names in found.items() if not names & may}
    assert not undeclared


# ------------------------------------------------------------------------------------------------ names in docstrings

NAMED = re.compile(r"(?<!`)`([A-Za-z_]\w*(?:\.\s*\w+)*)(?:\(\))?`(?!`)")
"""A name in single backticks, also over the end of a line: a module, a function, a field, a path of a trial."""
FILE_ENDINGS = {"html", "json", "md", "py", "sqlite", "yaml"}
Members = dict[str, Any]


def members(body: Iterable[ast.stmt]) -> Members:
    """Names that a module or a class binds, each with those inside it."""
    found: Members = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = {}
        elif isinstance(node, ast.ClassDef):
            own = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
            found[node.name] = {key: {} for key in own} | members(node.body)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
            found |= {key: {} for key in names}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0]: {} for alias in node.names}
        elif isinstance(node, ast.If | ast.Try):
            found |= members([*node.body, *node.orelse])
    return found


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, those below constants included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def identifiers(tree: ast.Module) -> set[str]:
    """Every name that the code of a module uses, the names in its texts included."""
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            found.update(re.findall(r"\w+", node.value))
        for field in ("id", "attr", "arg", "name", "asname"):
            found.add(str(getattr(node, field, None)))
    return found


def test_no_name_in_a_docstring_is_dangling() -> None:
    trees = {name: tree(path) for name, path in FILES.items()}
    bound = {name: members(tree.body) for name, tree in trees.items()}
    used = set().union(*(identifiers(tree) for tree in trees.values()), *(name.split(".") for name in FILES))
    registered = {name for name, value in vars(registries).items() if isinstance(value, Registry)}
    libraries = set(packages_distributions()) - {name.partition(".")[0] for name in FILES}
    fields = {path.rpartition(".")[2] for path in trial_paths()} | {"max_steps", *SweepConfig.__dataclass_fields__}

    def leads_somewhere(name: str, module: str) -> bool:
        first, *rest = name.split(".")
        if not rest:
            return "_" not in name.strip("_") or name in used
        if rest[-1] in FILE_ENDINGS or is_trial_path(name) or first in fields or first in libraries:
            return True  # a file, a key of a trial or of a search space, somebody else's
        if (ROOT / name.replace(".", "/")).is_dir():
            return True
        arguments = {node.arg for node in ast.walk(trees[module]) if isinstance(node, ast.arg)}
        if first in arguments:
            return True
        if first == "sw":  # what everybody imports the package as
            return rest[0] in dir(stackwise_ray)
        if first in registered:
            return hasattr(Registry, rest[0])
        heads = [other for other in FILES if other == first or other.endswith(f".{first}")]
        owners = [inside[first] for inside in bound.values() if first in inside]
        return any(reaches(head, rest) for head in heads) or any(holds(owner, rest) for owner in owners)

    def reaches(module: str, rest: list[str]) -> bool:
        while rest and f"{module}.{rest[0]}" in FILES:
            module, rest = f"{module}.{rest[0]}", rest[1:]
        return holds(bound[module], rest)

    def holds(inside: Members, rest: list[str]) -> bool:
        for name in rest:
            if name not in inside:
                return False
            inside = inside[name]
        return True

    dangling = [
        f"{FILES[module].relative_to(ROOT)}:{line}: {name}"
        for module, tree in trees.items()
        for line, text in docstrings(tree)
        for name in (re.sub(r"\s", "", found) for found in NAMED.findall(text))
        if not leads_somewhere(name, module)
    ]
    assert not dangling, "\n".join(dangling)
