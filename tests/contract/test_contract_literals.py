"""No list of names is kept beside the registry that holds them: what a plugin adds must be known everywhere at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from stackwise_ray.core.registries import BY_KIND
from tests.sources import tree

ROOT = Path(__file__).resolve().parents[2]
FILES = [path for package in ("stackwise_ray", "analysis") for path in sorted((ROOT / package).rglob("*.py"))]


@cache
def lists_in(path: Path) -> list[tuple[int, set[str]]]:
    return list(lists_of_text(tree(path)))


def lists_of_text(tree: ast.AST) -> Iterator[tuple[int, set[str]]]:
    """(line, strings) of every ``Literal[...]``, tuple, list, set and mapping that holds text alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal":
            entries = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        elif isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            entries = node.elts
        elif isinstance(node, ast.Dict):
            entries = [key for key in node.keys if key is not None]
        else:
            continue
        found = {entry.value for entry in entries if isinstance(entry, ast.Constant) and isinstance(entry.value, str)}
        if len(found) == len(entries):
            yield node.lineno, found


@pytest.mark.parametrize("kind", sorted(set(BY_KIND) - {"components"}))
def test_no_list_of_names_repeats_a_registry(kind: str) -> None:
    names = set(BY_KIND[kind].names())
    repeated = [
        f"{path.relative_to(ROOT)}:{line}: {sorted(found & names)}"
        for path in FILES
        for line, found in lists_in(path)
        if len(found & names) > 1
    ]
    assert repeated == []
