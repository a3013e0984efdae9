"""Answers to what a shell asks at a TAB: the protocol of the scripts in `shell_scripts`.

`VARIABLE` names the shell. zsh and fish give the words up to the cursor as arguments, and are answered with one
candidate per line and its text after a tab. bash gives the line as a text, because it cuts words at `=` and `:`; it is
answered with the candidates' ends after the last such cut, below a line that says how to put them in.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stackwise_ray.completion.candidates import Candidate, candidates
from stackwise_ray.completion.table_cache import Collect, completion_table

VARIABLE, LINE, BREAKS = "_STACKWISE_COMPLETE", "_STACKWISE_LINE", "_STACKWISE_BREAKS"


def answer(program: str, collect: Collect) -> None:
    """Print what the shell's question in the environment asks for.

    Args:
        collect: As for `completion_table`.
    """
    table = completion_table(collect)
    if os.environ[VARIABLE] == "bash":
        lines = list(_for_bash(table, program, os.environ.get(LINE, ""), os.environ.get(BREAKS, "=:")))
    else:
        found = candidates(table, program, sys.argv[1:])
        lines = [f"{one.word}\t{' '.join(one.text.split())}" for one in found]
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _for_bash(table: Mapping[str, Any], program: str, line: str, breaks: str) -> Iterator[str]:
    words, cut = split_line(line, breaks)
    found = candidates(table, program, words[1:] or [""])
    yield " ".join(_directions(found))
    for one in found:
        word = one.word[cut:]
        yield word[:-1] if one.file and word.endswith("/") else word  # bash puts it there


def _directions(found: Sequence[Candidate]) -> Iterator[str]:
    if found and all(one.open and not one.file for one in found):
        yield "nospace"
    if any(one.file for one in found):
        yield "filenames"


def split_line(line: str, breaks: str) -> tuple[list[str], int]:
    """The words of a line of a shell, the last one begun, and how many of its characters bash keeps.

    >>> split_line('stackwise train "model=a" training.l', "=:")
    (['stackwise', 'train', 'model=a', 'training.l'], 0)
    >>> split_line("stackwise train model=dec", "=:")
    (['stackwise', 'train', 'model=dec'], 6)
    """
    words: list[str] = []
    word, begun, quote, escaped, cut = "", False, "", False, 0
    for character in line:
        if escaped:
            word, escaped = word + character, False
        elif character == "\\" and quote != "'":
            escaped = begun = True
        elif quote:
            if character == quote:
                quote = ""
            else:
                word += character
        elif character in "'\"":
            quote, begun, cut = character, True, len(word)
        elif character.isspace():
            if begun:
                words.append(word)
            word, begun, cut = "", False, 0
        else:
            word, begun = word + character, True
            if character in breaks:
                cut = len(word)
    return [*words, word], cut
