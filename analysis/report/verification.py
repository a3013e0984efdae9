"""Whether a report still says what its sweep says: inputs unchanged, outputs unchanged, every number found again.

Called by `python -m analysis verify`. The report is computed afresh into a temporary folder and compared with the one
that lies there. Figures are compared by what was recorded of them, not drawn again: their numbers stand in the text and
the JSON files, and another version of the drawing library draws other bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.invocation import ANALYSIS, as_started

from .compose import compose
from .digests import DIGESTS, input_digests, of_file
from .html_page import to_html
from .page import to_markdown
from .pictures import pictures
from .results_json import write_results
from .summary import summary_table

_FIGURES = re.compile(r'src="data:[^"]*"')
_MOST_LINES = 5
"""Differing lines of one text file that are shown; the rest are counted."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was looked at and what differs.

    Attributes:
        inputs: Inputs compared.
        outputs: Files compared.
        differences: One line each: what differs, and how; empty where the report stands.
    """

    inputs: int
    outputs: int
    differences: tuple[str, ...]


def verify_report(sweep_directory: str | Path) -> Verification:
    """Compute the report of a sweep again and compare everything with what lies in its folder.

    Raises:
        AnalysisError: There is no sweep in the folder, or no report that could be verified.
    """
    summary = summary_table(sweep_directory)
    for answer in summary.answers:
        if answer.unknown:
            raise AnalysisError(f"cannot compute {answer.kind} again: {answer.refused}")
    directory, folder = summary.sweep.directory, summary.report.parent
    recorded = _recorded(folder / DIGESTS)
    differences = list(_changed("input", recorded["inputs"], input_digests(directory)))
    there = {name: digest for name in recorded["outputs"] if (digest := _digest(folder / name)) is not None}
    differences += _changed("output", recorded["outputs"], there)
    with TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        drawn = pictures(summary, folder / "figures")
        page = compose(summary, drawn)
        html, text = fresh / "report.html", fresh / "report.md"
        html.write_text(to_html(page), encoding="utf-8")
        text.write_text(to_markdown(page, folder), encoding="utf-8")
        written = {path.relative_to(fresh).as_posix() for path in (html, text, *write_results(summary, fresh))}
        figures = {path.relative_to(folder).as_posix() for figure in drawn.figures for path in figure.files}
        differences += _other_files(recorded["outputs"], written | figures)
        differences += _recomputed(folder, fresh, written & set(there))
    return Verification(
        inputs=len(recorded["inputs"]), outputs=len(recorded["outputs"]), differences=tuple(dict.fromkeys(differences))
    )


def _recorded(path: Path) -> Mapping[str, Mapping[str, str]]:
    again = f"write the report again ({as_started(ANALYSIS)} report {path.parent.parent})"
    if not path.is_file():
        raise AnalysisError(f"{path}: no report here that could be verified; {again}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AnalysisError(f"{path}: cannot be read ({error}); {again}") from None
    inputs, outputs = (found.get(key) if isinstance(found, dict) else None for key in ("inputs", "outputs"))
    if not isinstance(inputs, dict) or not isinstance(outputs, dict):
        raise AnalysisError(f"{path}: cannot be read (no digests of inputs and outputs in it); {again}")
    for name in outputs:
        if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            raise AnalysisError(f"{path}: cannot be read (the output {name!r} lies outside the report); {again}")
    return {"inputs": inputs, "outputs": outputs}


def _digest(path: Path) -> str | None:
    """Of a file; None: there is none, or what lies there cannot be read."""
    try:
        return of_file(path)
    except OSError:
        return None


def _changed(kind: str, recorded: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*recorded, *now}):
        if name not in now:
            yield f"{kind} {name}: gone"
        elif name not in recorded:
            yield f"{kind} {name}: new since the report was written"
        elif recorded[name] != now[name]:
            yield f"{kind} {name}: changed since the report was written"


def _other_files(recorded: Iterable[str], now: set[str]) -> Iterator[str]:
    """Files that the report had and would not have now, or the other way round."""
    had = set(recorded)
    yield from (f"{name}: in the report, not recomputed" for name in sorted(had - now))
    yield from (f"{name}: recomputed, not in the report" for name in sorted(now - had))


def _recomputed(folder: Path, fresh: Path, names: Iterable[str]) -> Iterator[str]:
    """Where the bytes of the files here are not those computed now."""
    for name in sorted(names):
        if of_file(folder / name) == of_file(fresh / name):
            continue
        try:
            old, new = ((place / name).read_text(encoding="utf-8") for place in (folder, fresh))
        except UnicodeDecodeError as error:
            yield f"{name}: no text in UTF-8 any more (byte {error.start})"
            continue
        found = _json_differences(name, old, new) if name.endswith(".json") else _text_differences(name, old, new)
        yield from list(found) or [f"{name}: its bytes are not those that are recomputed"]


def _json_differences(name: str, old: str, new: str) -> Iterator[str]:
    try:
        here = json.loads(old)
    except (ValueError, RecursionError) as error:
        yield f"{name}: no JSON any more ({error})"
        return
    for path, was, now in _leaves(here, json.loads(new), ""):
        yield f"{name}: {path.lstrip('.')} is {was}, recomputed {now}"


def _leaves(old: Any, new: Any, path: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if key in old and key in new:
                yield from _leaves(old[key], new[key], f"{path}.{key}")
            else:
                was, now = (_short(part[key]) if key in part else "absent" for part in (old, new))
                yield f"{path}.{key}", was, now
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (was, now) in enumerate(zip(old, new, strict=True)):
            yield from _leaves(was, now, f"{path}[{index}]")
    elif old != new:
        yield path, _short(old), _short(new)


def _text_differences(name: str, old: str, new: str) -> Iterator[str]:
    lines = [_FIGURES.sub("", text).splitlines() for text in (old, new)]
    pairs = [
        (number, was or "", now or "") for number, (was, now) in enumerate(zip_longest(*lines), start=1) if was != now
    ]
    for number, was, now in pairs[:_MOST_LINES]:
        start = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), min(len(was), len(now)))
        shown = (_short(text[max(0, start - 30) :]) for text in (was, now))
        yield f"{name}, line {number}: {' is not what is recomputed: '.join(shown)}"
    if len(pairs) > _MOST_LINES:
        yield f"{name}: {len(pairs) - _MOST_LINES} more lines differ"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"
