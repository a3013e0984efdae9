"""The lines that a sweep shows while it runs: ours, and nobody else's."""

from __future__ import annotations

import re

WAITING = r"(loading|starting|planning|preparing|tokenising|reading|writing|delivering) [^\[\]]*"
OURS = re.compile(
    rf"{WAITING}|[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] {WAITING}|\d+/\d+ trials done.*|  (?:about|at most|best|\d)\b.*"
    r"|  [\d.]+[kMG]? tokens/s.*|starting · .*|train/ +validation/"
    r"|trial +step +tokens/s +loss +loss|point-.*|interrupted; .*"
)


def lines_of(shown: str) -> list[str]:
    """What a terminal or a file shows, by line, also where a line was written over another one."""
    return re.split(r"[\r\n]+", shown)


def foreign(shown: str) -> list[str]:
    """Lines that no part of this program prints."""
    lines = (line.strip() for line in lines_of(shown))
    return [line for line in lines if line and not OURS.fullmatch(line) and not OURS.fullmatch(f"  {line}")]
