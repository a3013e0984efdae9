"""What the flags of a sweep's trials claim, beside what was measured between arms that differ by that flag alone.

Called by `compose`. A claim is a sentence of the flag's own module, which the sweep wrote down; whether it holds is
left to the reader, who sees the ratios with their intervals. An arm that differs in anything else is no evidence and is
not used.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from stackwise_ray.core.metric_catalogue import metric_name
from stackwise_ray.core.quantities import ABSENT, format_number

from ...paired.answer_words import decision_name
from ...paired.intervals import t_interval
from ...render import Grid
from ...table.sweep_directory import Sweep
from ..page import Section, arm_anchor, plain, sourced
from ..summary import Summary

_MEASURED = {
    "speed": "throughput/tokens_per_s",
    "peak memory": "memory/peak_bytes",
    "saved activations": "memory/saved_activation_bytes",
    "training FLOPs per step": "flops/step",
}


def claims_section(sweep: Sweep, summary: Summary) -> Section | None:
    """One row per flag and pair of arms; None where no trial has a flag."""
    configs, claims = _configs(sweep), sweep.meta.get("claims") or {}
    measured_by = sweep.meta.get("claims_measured_by") or {}
    rows, sources = [], []
    for arm, config in configs.items():
        for flag in _flags(config, claims):
            without = _without(sweep, configs, arm, flag)
            pair = f"{arm} against {without}" if without is not None else f"{arm}: no arm differs by this flag alone"
            cells = [ABSENT] * (len(_MEASURED) + 1)
            if without is not None:
                cells = [_compared(sweep, (arm, metric), (without, metric)) for metric in _MEASURED.values()]
                cells.append(_difference(summary, arm, without))
            own = _own_measures(sweep, arm, without, measured_by.get(flag) or ())
            rows.append((flag, claims.get(flag, "the sweep has not recorded it"), pair, own, *cells))
            sources.append(arm_anchor(sweep, arm))
    if not rows:
        return None
    columns = ("flag", "claim", "measured on", "what the claim is about", *_MEASURED, f"{summary.metric}, difference")
    text = (
        "Ratios are with the flag over without it, or over the other metric where one is named: geometric means over "
        "the seeds that both have, with their 95 % interval where there are two and more; differences are means. The "
        "columns after what the claim is about are the same for every flag: they say what else it changes."
    )
    grid = Grid(columns, tuple(rows), numeric=tuple(range(4, len(columns))))
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
    options = f"{_COMPONENTS}.{flag}."

    def core(config: Mapping[str, Any]) -> dict[str, Any]:
        """All settings but the flag's own."""
        kept = {path: value for path, value in _paths(config) if path not in tuned and not path.startswith(options)}
        return kept | {"flags": sorted(set(config.get("flags") or ()) - {flag})}

    own = core(configs[arm])
    for other, config in configs.items():
        if other != arm and flag not in _flags(config, {flag}) and core(config) == own:
            return other
    return None


_COMPONENTS = "model.components"


def _flags(config: Mapping[str, Any], claimed: Collection[str]) -> list[str]:
    """The flags of a trial: those that it lists, and those `claimed` whose component it selects with options."""
    selected = (config.get("model") or {}).get("components") or {}
    return list(dict.fromkeys([*(config.get("flags") or ()), *(name for name in selected if name in claimed)]))


def _paths(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Every leaf under its dotted path."""
    found: list[tuple[str, Any]] = []
    for key, item in value.items():
        found += _paths(item, f"{prefix}{key}.") if isinstance(item, Mapping) else [(f"{prefix}{key}", item)]
    return found


def _own_measures(sweep: Sweep, arm: str, without: str | None, measures: Sequence[Mapping[str, Any]]) -> str:
    """What the flag's own claim is about; a comparison within the arm needs no arm without the flag."""
    shown = []
    for measure in measures:
        metric, against = measure["metric"], measure["against"]
        other = without if against is None else arm
        if other is None:
            continue
        found = _compared(sweep, (arm, metric), (other, against or metric), measure["form"])
        word = "over" if measure["form"] == "ratio" else "less"
        names = metric_name(metric) if against is None else f"{metric_name(metric)} {word} {metric_name(against)}"
        shown.append(f"{names}: {found}")
    return "; ".join(shown) or ABSENT


def _compared(sweep: Sweep, ours: tuple[str, str], theirs: tuple[str, str], form: str = "ratio") -> str:
    """One (arm, metric) with another over the seeds that both have: the mean ratio or difference, and its interval."""
    runs = sweep.runs
    if not {ours[1], theirs[1]} <= set(runs.columns):
        return ABSENT
    by_seed = [runs[runs["arm"] == arm].set_index("seed")[metric].dropna() for arm, metric in (ours, theirs)]
    both = by_seed[0].index.intersection(by_seed[1].index)
    pairs = [(float(by_seed[0][seed]), float(by_seed[1][seed])) for seed in both]
    if form == "ratio":
        values = [math.log(mine / other) for mine, other in pairs if mine > 0 and other > 0]
    else:
        values = [mine - other for mine, other in pairs]
    if not values:
        return ABSENT
    mean, interval = sum(values) / len(values), t_interval(values)
    ends = None if interval is None else (interval.low, interval.high)
    if form == "ratio":
        spread = "one seed" if ends is None else ", ".join(format_number(math.exp(end), 2) for end in ends)
        return f"{format_number(math.exp(mean), 2)} × [{spread}]"
    spread = "one seed" if ends is None else ", ".join(format_number(end, 4, signed=True) for end in ends)
    return f"{format_number(mean, 4, signed=True)} [{spread}]"


def _difference(summary: Summary, arm: str, without: str) -> str:
    """The paired difference where the sweep compares these two arms; no test is made that was not declared."""
    for found in summary.comparisons:
        if found.baseline == without and arm in found.verdicts and found.metric == summary.metric:
            return f"{found[arm].difference_text}: {decision_name(found[arm].verdict)}"
    for anytime in summary.sequential:
        if anytime.baseline == without and arm in anytime.verdicts and anytime.metric == summary.metric:
            return f"{anytime[arm].difference_text}: {decision_name(anytime[arm].decision)}"
    return "not compared"
