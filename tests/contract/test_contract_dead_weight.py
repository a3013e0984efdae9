"""What the packages carry: nothing that nobody uses, and a warning where a file or a function grows long."""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.sources import nodes

ROOT = Path(__file__).parents[2]
PACKAGES = [path for package in ("stackwise_ray", "analysis") for path in sorted((ROOT / package).rglob("*.py"))]
CALLERS = [path for folder in ("benchmarks", "examples") for path in sorted((ROOT / folder).rglob("*.py"))]
CALLED_BY_LIBRARIES = {
    "_repr_html_": "notebooks",
    "_supports_default_dynamic_cache": "transformers' generate",
    "cleanup": "Ray's Trainable",
    "construct_mapping": "yaml's Loader",
    "fill_qmap": "bitsandbytes' optimizers",
    "format_commands": "typer's groups",
    "ignore_aliases": "yaml's Dumper",
    "load_checkpoint": "Ray's Trainable",
    "on_broken_pipe": "rich's Console",
    "on_step_end": "Ray's Callback",
    "on_trial_complete": "Ray's SearchAlgorithm",
    "reset_config": "Ray's Trainable",
    "resolve_command": "typer's groups",
    "setup": "Ray's Trainable",
}
"""Methods of ours that only a library calls, and which one."""
FOR_PLUGINS = {
    "item_means": "a task that scores items",
    "register_metrics": "whatever reports a metric of its own",
}
"""Functions of ours that only a plugin calls, and what for; the manual names them."""
LOOKED_AT_BY_TESTS = {"live_bytes"}
"""What shows a state that nothing else shows."""
PLAIN_DECORATORS = {
    "cache",
    "cached_property",
    "classmethod",
    "contextmanager",
    "dataclass",
    "property",
    "staticmethod",
}
"""A definition with these alone is called by its name; any other decorator may hand it to somebody else."""
LONG_FILE, LONG_FUNCTION = 400, 80
"""Lines at which a reader should look whether there are two thoughts."""
LONGEST_FILE, LONGEST_FUNCTION = 450, 100
"""Lines at which there are two, unless `ONE_THOUGHT` gives the reason."""
ONE_THOUGHT: dict[str, str] = {}


def uses(path: Path) -> Iterator[str]:
    """Every name that a file uses; names in its texts count where the text is a name and nothing else."""
    for node in nodes(path):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield name
            case ast.keyword(arg=str(name)):
                yield name
            case ast.MatchClass(kwd_attrs=names):
                yield from names
            case ast.alias(name=name) if path.name != "__init__.py":  # a table of contents is no use
                yield name.rpartition(".")[2]
            case ast.Constant(value=str(text)) if re.fullmatch(r"[\w.:]+", text):
                yield from re.split(r"[.:]", text)


def definitions(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of every function and class that is found by its name alone."""
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = (ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list)
            decorators = {name.rpartition(".")[2] for name in names}
            if decorators <= PLAIN_DECORATORS and not node.name.startswith("__"):
                yield node.lineno, node.name


def test_no_code_is_there_that_nothing_uses() -> None:
    used = Counter(name for path in [*PACKAGES, *CALLERS] for name in uses(path))
    entry_points = set(re.findall(r'= "[\w.]+:(\w+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    excepted = entry_points | CALLED_BY_LIBRARIES.keys() | FOR_PLUGINS.keys() | LOOKED_AT_BY_TESTS
    unused = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in PACKAGES
        for line, name in definitions(path)
        if not used[name] and name not in excepted
    ]
    assert unused == [], "remove it, or let the code that needs it call it; tests alone are no reason to keep it"


def test_what_others_call_is_there_and_what_plugins_call_is_in_the_manual() -> None:
    defined = {name for path in PACKAGES for _, name in definitions(path)}
    assert CALLED_BY_LIBRARIES.keys() | FOR_PLUGINS.keys() | LOOKED_AT_BY_TESTS <= defined
    manual = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    assert [name for name in FOR_PLUGINS if f"{name}(" not in manual] == []


def lengths(path: Path) -> Iterator[tuple[str, int, int, int]]:
    """What is measured, its lines, the lines at which to look, and the most."""
    text = path.read_text(encoding="utf-8")
    name = str(path.relative_to(ROOT))
    yield name, text.count("\n"), LONG_FILE, LONGEST_FILE
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield f"{name} {node.name}", lines, LONG_FUNCTION, LONGEST_FUNCTION


def test_a_file_or_a_function_holds_one_thought() -> None:
    found = [length for path in PACKAGES for length in lengths(path)]
    signals = [f"{name}: {lines} lines" for name, lines, look, _ in found if lines > look]
    if signals:
        warnings.warn("long, so look whether there are two thoughts: " + "; ".join(signals), stacklevel=1)
    too_long = [f"{name}: {lines} lines" for name, lines, _, most in found if lines > most and name not in ONE_THOUGHT]
    assert too_long == []
