"""What a person sees of a real sweep on a terminal of 80 columns: our lines, and nobody else's."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.integration.sweep_processes import BASE
from tests.terminals import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEARCH = f"""
name: search
{BASE.strip()}
    training.budget: {{steps: 12}}
design: {{kind: search}}
search: {{sampler: tpe, trials: 3, winners: 1, space: {{training.lr: {{log_uniform: [1e-4, 1e-2]}}}}}}
scheduler: {{kind: asha, grace: 0.34}}
replicates: {{seeds: 1}}
"""
WAITING = r"(loading|starting|planning|preparing|tokenising|reading|writing|delivering) [^\[\]]*"
OURS = re.compile(
    rf"{WAITING}|[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] {WAITING}|\d+/\d+ trials done.*|  (?:about|at most|best|\d)\b.*"
    r"|starting · .*|train/ +validation/|trial +step +tokens/s +loss +loss|point-.*|(?:report|MLflow): .*"
    r"|interrupted; .*"
)


def command(file: Path, output: Path) -> Sequence[str]:
    return sys.executable, "-m", "stackwise_ray.sweep", str(file), "--json", "--output", str(output)


def foreign(text: str) -> list[str]:
    """Lines that no part of this program prints."""
    lines = (line.strip("\n ") for line in re.split(r"[\r\n]+", text))
    return [line for line in lines if line and not OURS.fullmatch(line) and not OURS.fullmatch(f"  {line}")]


def test_a_line_of_a_library_is_foreign() -> None:
    said = (
        "/x/site-packages/ray/tune.py:1: FutureWarning: gone\n(raylet) node died\n0/3 trials done · 1 starting · 2 s\n"
    )
    assert len(foreign(said)) == 2


def test_a_search_at_a_terminal_of_80_columns_says_what_it_waits_for_and_wraps_no_line(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(SEARCH)
    terminal = Terminal(
        command(file, tmp_path), cwd=tmp_path, env={**os.environ, "TERM": "xterm"}, columns=80, patience=600
    )
    try:
        assert terminal.wait() == 0, terminal.shown[-3000:]
    finally:
        terminal.close()
    watched, _, answer = terminal.shown.rpartition('{\r\n  "directory"')
    assert foreign(watched) == []
    assert max(len(line) for line in re.split(r"[\r\n]+", watched)) <= 80
    assert re.search(r"0/4 trials done · \d starting", watched)
    assert re.search(r"point-\d +\d+/12 ", watched)
    assert not re.search(r"point-\d +0/12", watched), "a trial that starts has no step"
    assert '"failed": {}' in answer
