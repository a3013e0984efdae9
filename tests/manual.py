"""README.md and the pages of docs/ as tests look at them: tables, code blocks, headings, links, commands."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
STARTERS = ("stackwise ", "stackwise-analysis ", "python ", "make ", "pip ", "$ stackwise ")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str


@dataclass(frozen=True)
class Row:
    """One row of a table: the texts of its cells, and its header's first cell."""

    page: Path
    header: str
    cells: tuple[str, ...]

    @property
    def subjects(self) -> tuple[str, ...]:
        """What the first cell is about: each of its pieces of code."""
        return tuple(re.findall(r"`([^`]+)`", self.cells[0]))


def without_blocks(page: Path) -> str:
    """The page's prose, tables and headings."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def blocks() -> Iterator[Block]:
    """Every fenced block of every page."""
    for page in PAGES:
        for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.S | re.M):
            yield Block(page, language, text)


def rows() -> Iterator[Row]:
    """Every row of every table, headers and rules left out."""
    for page in PAGES:
        lines = without_blocks(page).splitlines()
        header = ""
        for number, line in enumerate(lines):
            if number + 1 < len(lines) and lines[number + 1].startswith("|---"):
                header = line.strip("| ").partition(" |")[0]
            elif line.startswith("|") and not line.startswith("|---"):
                yield Row(page, header, tuple(cell.strip() for cell in line.strip().strip("|").split("|")))


def anchors(page: Path) -> set[str]:
    """The anchors that a code host makes of the page's headings."""
    titles = re.findall(r"^#+ (.+)$", without_blocks(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: Path) -> list[str]:
    """What the page links to."""
    return re.findall(r"\]\(([^)\s]+)\)", without_blocks(page))


def command_lines() -> list[str]:
    """Every command in a block without a language, once, without its comment."""
    found = [
        line.partition(" #")[0].strip().removeprefix("$ ")
        for block in blocks()
        if block.language in {"", "sh"}
        for line in block.text.splitlines()
        if line.startswith(STARTERS)
    ]
    return list(dict.fromkeys(found))


def is_ours(line: str) -> bool:
    """Whether a command line starts one of our commands."""
    return line.startswith(("stackwise ", "stackwise-analysis ", "python -m stackwise_ray", "python -m analysis"))


def parsed(line: str) -> tuple[str, dict[str, Any]]:
    """The command that a line starts and the values of its parameters, with nothing run.

    Raises:
        UsageError: There is no such command or option.
    """
    words = shlex.split(line)
    if words[0] == "python":
        words = [words[2].replace("stackwise_ray.", "stackwise "), *words[3:]]
        words = [*words[0].split(), *words[1:]]
    if words[0] in {"stackwise-analysis", "analysis"}:
        from analysis.__main__ import app
    else:
        from stackwise_ray.__main__ import app
    group = _built(app)
    if words[1].startswith("--"):
        assert words[1] in {"--help", *option_names(group)}, line
        return words[1], {}
    context = group.make_context(words[0], [], resilient_parsing=True)
    name, command, rest = group.resolve_command(context, words[1:])
    return name, command.make_context(name, rest).params


@functools.cache
def _built(app: typer.Typer) -> Any:
    """The command line of an app; building one takes a while."""
    return typer.main.get_command(app)


def option_names(command: Any) -> set[str]:
    """The long options of a command, each by its first name; hidden ones left out."""
    return {
        next(name for name in parameter.opts if name.startswith("--"))
        for parameter in command.params
        if parameter.opts[0].startswith("-") and not getattr(parameter, "hidden", False)
    }
