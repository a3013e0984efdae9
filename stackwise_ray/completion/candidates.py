"""What can follow on a command line, from the table (`table_collecting`) and the words that are there.

A candidate is the whole word as it would be, with a text that describes it. One that ends in one of `OPEN` goes on: a
shell puts no space after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from stackwise_ray.completion.file_names import file_candidates

OPEN = ("=", ".", "/", ",", "[")
SEVERAL = "[, "
"""What is between the values of a list."""


class Candidate(NamedTuple):
    """One word that can be at the cursor; `file`: whether it is a path."""

    word: str
    text: str = ""
    file: bool = False

    @property
    def open(self) -> bool:
        """Whether something follows it without a space."""
        return self.word.endswith(OPEN)


def candidates(table: Mapping[str, Any], program: str, words: Sequence[str]) -> list[Candidate]:
    """What the last word can become.

    Args:
        program: `stackwise` or `stackwise-analysis`.
        words: Those after the program; the last one is begun, or empty.
    """
    node = table["programs"][program]
    *before, begun = words or [""]
    if before and before[0] in node["commands"]:
        return list(_of_command(table, node["commands"][before[0]], before[1:], begun))
    if before:
        return []
    return list(_named(node["options"] if begun.startswith("-") else node["commands"], begun))


def _of_command(
    table: Mapping[str, Any], command: Mapping[str, Any], before: Sequence[str], begun: str
) -> Iterator[Candidate]:
    options, places = command["options"], command["words"]
    asked = options.get(before[-1]) if before else None
    if asked is not None and asked["takes"] is not None:
        yield from _values(table, asked["takes"], begun)
    elif begun.startswith("-"):
        name, equals, value = begun.partition("=")
        if not equals:
            yield from _named(options, begun)
        elif name in options and options[name]["takes"] is not None:
            for found in _values(table, options[name]["takes"], value):
                yield found._replace(word=f"{name}={found.word}")
    elif places:
        taking = [word for word in before if options.get(word, {"takes": None})["takes"] is not None]
        given = sum(not word.startswith("-") for word in before) - len(taking)
        yield from _values(table, places[min(given, len(places) - 1)], begun)


def _named(things: Mapping[str, Mapping[str, Any]], begun: str) -> Iterator[Candidate]:
    return (Candidate(name, thing["help"]) for name, thing in things.items() if name.startswith(begun))


def _values(table: Mapping[str, Any], takes: Mapping[str, Any], begun: str) -> Iterator[Candidate]:
    """What a value can become.

    Args:
        takes: ``values``: words with their texts; ``list``: whether several can stand there, between commas;
            ``files``: endings of files that can; ``paths``: which dotted paths can, each with its value.
    """
    if "paths" in takes:
        yield from _words(table, table["paths"][takes["paths"]], begun)
    done = ""
    if takes.get("list"):
        end = max(begun.rfind(character) for character in SEVERAL) + 1
        done, begun = begun[:end], begun[end:]
    for value, text in takes.get("values", {}).items():
        if value.startswith(begun):
            closed = "]" if done.startswith("[") else ""
            yield Candidate(f"{done}{value}{closed}", text)
    if "files" in takes:
        yield from (Candidate(path, file=True) for path in file_candidates(begun, takes["files"]))


def _words(table: Mapping[str, Any], paths: Mapping[str, Any], begun: str) -> Iterator[Candidate]:
    """Words `path=value`: a level of the path at a time, then the values."""
    path, equals, value = begun.partition("=")
    if equals:
        takes = paths.get(path, {})
        value = value or ("[" if takes.get("list") else "")
        for found in _values(table, takes, value):
            yield found._replace(word=f"{path}={found.word}")
        return
    seen: set[str] = set()
    for known in paths:
        if not known.startswith(begun):
            continue
        head, dot, _ = known[len(begun) :].partition(".")
        word = f"{begun}{head}{dot or '='}"
        if word not in seen:
            seen.add(word)
            yield Candidate(word)
