"""The identity of a trial: the hash by which a finished trial is found again.

The canonical form is JSON with sorted keys, defaults written out and floats by `repr`, so that a preset, an override
and a default that say the same are the same trial. The data fingerprint enters the hash, since another Python has
another standard library; so do that of weights that a trial starts from and the source of the plugins that it uses.
Plan hashes say whether a declared analysis is still the one in force.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterator
from typing import Any

from stackwise_ray.config.space.sweep_config import SweepConfig, sweep_to_plain
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.editing import to_plain
from stackwise_ray.config.trial.flag_answers import components_selected, edits_of
from stackwise_ray.core import registries
from stackwise_ray.core.plugins import Plugin, at_fault, owner


def canonical(value: Any) -> str:
    """JSON data in its one form: sorted keys, no spaces, ASCII, floats by repr.

    Raises:
        ValueError: A number is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical_json(trial: TrialConfig) -> str:
    """The canonical form of a trial; equal trials give equal text."""
    return canonical(to_plain(trial))


def trial_id(trial: TrialConfig, data_fingerprint: str, weights_fingerprint: str | None = None) -> str:
    """16 hexadecimal digits that name this trial on this data, stable over machines and sessions.

    Args:
        weights_fingerprint: Of the weights that it starts from; None: they are drawn. `training.initial.identify`
            fills it in.
    """
    parts = [canonical_json(trial), data_fingerprint, *([] if weights_fingerprint is None else [weights_fingerprint])]
    parts += [f"plugin {plugin.sha256}" for plugin in plugins_of(trial)]
    return digest("\n".join(parts))[:16]


def plugins_of(trial: TrialConfig) -> tuple[Plugin, ...]:
    """The plugins that registered an entry of this trial; what is installed and not loaded yet is loaded.

    Raises:
        PluginError: One cannot be loaded, or a flag of one cannot say what it sets.
    """
    found: dict[str, Plugin] = {}
    for kind, name in entries_of(trial):
        if registries.BY_KIND[kind].offered(name):
            registries.BY_KIND[kind].get(name)
        plugin = owner(kind, name)
        if plugin is not None:
            found[plugin.sha256] = plugin
    return tuple(found[sha256] for sha256 in sorted(found))


def entries_of(trial: TrialConfig) -> Iterator[tuple[str, str]]:
    """Everything registered that decides what this trial computes, as (kind, name); what its flags name is in it.

    Raises:
        PluginError: A flag of a plugin cannot say what it sets.
    """
    for path, kind in NAMED_AT.items():
        yield kind, operator.attrgetter(path)(trial)
    for name in dict.fromkeys(components_selected(trial)):
        yield "components", name
    for flag in trial.flags:
        yield "flags", flag
        for path, value in edits_of(flag, trial).items():
            if path in NAMED_AT and value in registries.BY_KIND[NAMED_AT[path]]:
                yield NAMED_AT[path], value
    if owner("regimes", trial.training.regime) is not None:  # ours name objectives of ours alone
        regime = registries.REGIMES.get(trial.training.regime)
        with at_fault(registries.REGIMES, trial.training.regime, "its `plan`"):
            stages = regime.plan(trial).stages
        for stage in stages:
            yield "objectives", stage.objective


NAMED_AT = {
    "model.family": "families",
    "data.corpus": "corpora",
    "training.regime": "regimes",
    "optimizer.kind": "optimizers",
}
"""Field of a trial that names an entry, to the kind of entry; beside the keys of `model.components` and the flags."""


def sweep_hash(sweep: SweepConfig) -> str:
    """16 hexadecimal digits of the whole search space, its file's place left out."""
    return digest(canonical(sweep_to_plain(sweep)))[:16]


def analysis_plan(sweep: SweepConfig) -> dict[str, Any]:
    """What was declared about the analysis: its steps, the objectives, the baseline and the rule for replicates.

    The replicates belong to it: seeds added after a look at the results change what a fixed-n test means.
    """
    plain = sweep_to_plain(sweep)
    return {
        "analysis": plain["analysis"],
        "objective": plain["objective"],
        "baseline": sweep.baseline,
        "replicates": plain["replicates"],
    }


def plan_hash(sweep: SweepConfig) -> str:
    """16 hexadecimal digits of `analysis_plan`: the one in force at the first trial is kept with the sweep."""
    return digest(canonical(analysis_plan(sweep)))[:16]


def digest(text: str) -> str:
    """The SHA-256 of `text` in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
