"""A search space in a few rows, for a prompt and a notebook; the whole of it is `sweep_to_plain`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackwise_ray.config.space.sweep_config import SweepConfig

_MOST_NAMES = 8


def summary_rows(sweep: SweepConfig) -> list[tuple[str, str]]:
    """What is asked, of what, how often and at what limits."""
    return list(_rows(sweep))


def _rows(sweep: SweepConfig) -> Iterator[tuple[str, str]]:
    if sweep.question:
        yield "question", sweep.question
    base = sweep.base
    yield "base", f"model {base.model or 'of each arm'}, data {base.data}, training {base.training}"
    if base.overrides:
        yield "", _values(base.overrides)
    yield "design", _design(sweep)
    if sweep.search is not None:
        search = sweep.search
        yield (
            "search",
            f"{search.sampler}, {search.trials} trials over {_names(search.space)}; {search.winners} winners",
        )
    if sweep.tune is not None:
        yield "tune", f"{sweep.tune.trials_per_arm} trials per arm over {_names(sweep.tune.space)}"
    seeds = sweep.replicates.seeds
    if isinstance(seeds, int):
        yield "seeds", str(seeds)
    elif isinstance(seeds, tuple):
        yield "seeds", f"{len(seeds)}: {', '.join(map(str, seeds))}"
    else:
        yield "seeds", f"{seeds.min} to {seeds.max}, {seeds.until}"
    yield "objective", ", ".join(entry.metric for entry in sweep.objective)
    if sweep.steps:
        yield "analysis", ", ".join(dict.fromkeys(step.kind for step in sweep.steps))
    resources = sweep.resources
    yield "per trial", f"{resources.workers} × ({resources.cpus_per_trial} CPU, {resources.gpus_per_trial:g} GPU)"
    limits = {name: value for name, value in asdict(sweep.limits).items() if value is not None}
    if limits:
        yield "limits", _values(limits)


def _design(sweep: SweepConfig) -> str:
    design: Any = sweep.design
    named = getattr(design, "arms", None) or getattr(design, "sizes", None) or getattr(design, "factors", None)
    baseline = "" if sweep.baseline is None else f"; baseline {sweep.baseline}"
    return f"{design.kind}{f': {_names(named)}' if named else ''}{baseline}"


def _names(named: dict[str, Any]) -> str:
    shown = list(named)[:_MOST_NAMES]
    more = len(named) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _values(values: dict[str, Any]) -> str:
    return ", ".join(f"{path}={value}" for path, value in values.items())
