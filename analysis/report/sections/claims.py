"""What the flags of a sweep's trials claim, beside what was measured between arms that differ by that flag alone.

Called by `report`. A claim is a sentence of the flag's own module, which the sweep wrote down; whether it holds is left
to the reader, who sees the ratios with their intervals. An arm that differs in anything else is no evidence and is not
used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stackwise_ray.core.quantities import ABSENT

from ...paired.intervals import t_interval
from ...render import Grid
from ...table.sweep_directory import Sweep
from ..page import Section, arm_anchor, plain, sourced
from ..summary import Summary

_MEASURED = {
    "speed": "throughput/tokens_per_s",
    "peak memory": "memory/peak_bytes",
    "saved activations": "memory/saved_activation_bytes",
    "FLOPs per step": "flops/step",
}


def claims_section(sweep: Sweep, summary: Summary) -> Section | None:
    """A row a flag and pair of arms; None where no trial has a flag."""
    configs, claims = _configs(sweep), sweep.meta.get("claims") or {}
    rows, sources = [], []
    for arm, config in configs.items():
        for flag in config.get("flags") or ():
            without = _without(sweep, configs, arm, flag)
            pair = f"{arm} against {without}" if without is not None else f"{arm}: no arm differs by this flag alone"
            cells = [ABSENT] * (len(_MEASURED) + 1)
            if without is not None:
                cells = [_ratio(sweep, arm, without, metric) for metric in _MEASURED.values()]
                cells.append(_difference(summary, arm, without))
            rows.append((flag, claims.get(flag, "the sweep has not recorded it"), pair, *cells))
            sources.append(arm_anchor(sweep, arm))
    if not rows:
        return None
    columns = ("flag", "claim", "measured on", *_MEASURED, f"{summary.metric}, difference")
    text = (
        "Ratios are with the flag over without it: geometric means over the seeds that both arms have, with their 95 % "
        "interval where there are two and more."
    )
    grid = Grid(columns, tuple(rows), numeric=tuple(range(3, len(columns))))
    return Section("Claims of the flags", (plain(text), sourced(grid, sources, words=(1, 2))))


def _configs(sweep: Sweep) -> dict[str, Mapping[str, Any]]:
    """By arm, the configuration of its first replicate without what the trials of an arm may differ in."""
    found: dict[str, Mapping[str, Any]] = {}
    for trial in sweep.trials:
        if trial.role == "replicate" and trial.arm not in found and trial.config:
            found[trial.arm] = {key: value for key, value in trial.config.items() if key != "seed"}
    return found


def _without(sweep: Sweep, configs: Mapping[str, Mapping[str, Any]], arm: str, flag: str) -> str | None:
    """The arm that lacks `flag` and is otherwise the same, values that tuning chose for each apart."""
    tuned = {path for settled in sweep.tuning.values() for path in settled.values}

    def core(config: Mapping[str, Any], flags: set[str]) -> dict[str, Any]:
        plain_values = {path: value for path, value in _paths(config) if path not in tuned and path != "flags"}
        return plain_values | {"flags": sorted(flags)}

    own = core(configs[arm], set(configs[arm]["flags"]) - {flag})
    for other, config in configs.items():
        if other != arm and core(config, set(config.get("flags") or ())) == own:
            return other
    return None


def _paths(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Every leaf under its dotted path."""
    found: list[tuple[str, Any]] = []
    for key, item in value.items():
        found += _paths(item, f"{prefix}{key}.") if isinstance(item, Mapping) else [(f"{prefix}{key}", item)]
    return found


def _ratio(sweep: Sweep, arm: str, without: str, metric: str) -> str:
    runs = sweep.runs
    if metric not in runs.columns:
        return ABSENT
    by_seed = [runs[runs["arm"] == name].set_index("seed")[metric].dropna() for name in (arm, without)]
    both = by_seed[0].index.intersection(by_seed[1].index)
    pairs = [(float(by_seed[0][seed]), float(by_seed[1][seed])) for seed in both]
    logs = [math.log(ours / theirs) for ours, theirs in pairs if ours > 0 and theirs > 0]
    if not logs:
        return ABSENT
    mean = math.exp(sum(logs) / len(logs))
    interval = t_interval(logs)
    if interval is None:
        return f"{mean:.2f} × [one seed]"
    return f"{mean:.2f} × [{math.exp(interval.low):.2f}, {math.exp(interval.high):.2f}]"


def _difference(summary: Summary, arm: str, without: str) -> str:
    """The paired difference where the sweep compares these two arms; no test is made that was not declared."""
    for found in summary.comparisons:
        if found.baseline == without and arm in found.verdicts and found.metric == summary.metric:
            return f"{found[arm].difference_text}: {found[arm].verdict}"
    for anytime in summary.sequential:
        if anytime.baseline == without and arm in anytime.verdicts and anytime.metric == summary.metric:
            return f"{anytime[arm].difference_text}: {anytime[arm].decision}"
    return "not compared"
