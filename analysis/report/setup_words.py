"""What was compared, in words: the set-up that the arms share, and what each arm changes.

Called by `summary`. It reads what the trials' configurations and their finished runs recorded; what none recorded is
left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackwise_ray.core.comparison_records import ResolvedComparison
from stackwise_ray.core.quantities import format_count, format_share
from stackwise_ray.core.untuned_rates import RATE, ArmRate, untuned_rate

from ..paired.answer_words import budget_name, counted, listed
from ..paired.comparison import CORRECTION_NAMES, test_name
from ..render import Grid
from ..table.sweep_directory import Sweep
from .arm_summary import point_text, short_value

MANY_ARMS = 12
"""More arms than this are listed by their difference, and what differs between them below the first page."""
_BY_ARM = "differs by arm"


@dataclass(frozen=True)
class Fact:
    """A line of the first page; `measured`: whether its numbers were measured by runs."""

    name: str
    text: str
    measured: bool = False


def setup_facts(sweep: Sweep) -> tuple[Fact, ...]:
    """The set-up in words, one line per subject."""
    arms = _configs(sweep)
    if not arms:
        return ()
    facts = [
        Fact("base", _base(sweep)),
        Fact("model", _model(arms)),
        Fact("parameters", _parameters(sweep), measured=True),
        Fact("data", _data(arms)),
        Fact("budget", _budget(arms)),
        Fact("spent per run", _spent(sweep), measured=True),
        Fact("learning rate", _rate(sweep, arms)),
        Fact("batch and optimizer", _batch(arms)),
        Fact("search", _search(sweep)),
        Fact("seeds", _seeds(sweep)),
        Fact("decided by", _decided(sweep.questions.comparisons)),
    ]
    return tuple(fact for fact in facts if fact.text)


def differences(sweep: Sweep) -> Grid | None:
    """What every arm changes in the base, values that all arms share left out; None where no arm records a change."""
    changes = {arm: _changes(sweep, arm) for arm in sweep.arms}
    if sweep.search_trials or not any(changes.values()):
        return None
    configs = list(_by_arm(sweep).values())
    shared = {path for arm in changes.values() for path in arm if _is_shared(configs, path)}
    rows = []
    for arm, changed in changes.items():
        own = {path: value for path, value in changed.items() if path not in shared} or changed
        rows.append((arm, point_text(own) if own else "nothing: it is the base"))
    return Grid(("arm", "what differs from the base"), tuple(rows))


def _is_shared(configs: Sequence[Mapping[str, Any]], path: str) -> bool:
    """Whether all of several arms have the same value there, so that no difference can come from it."""
    everywhere = all(_at(config, path) is not None for config in configs)
    return len(configs) > 1 and everywhere and len(_values(configs, path)) == 1


def untuned(sweep: Sweep) -> str | None:
    """What a reader must know about an untuned learning rate."""
    arms = [ArmRate(rate=_at(config, RATE), parameters=_changes(sweep, arm)) for arm, config in _by_arm(sweep).items()]
    return untuned_rate(arms, _chosen(sweep))


def _chosen(sweep: Sweep) -> set[str]:
    """Paths that tuning or a search chooses."""
    spaces = [(sweep.file.get(key) or {}).get("space") or {} for key in ("tune", "search")]
    return {path for space in spaces for path in space} | {
        path for tuned in sweep.tuning.values() for path in tuned.values
    }


def _changes(sweep: Sweep, arm: str) -> Mapping[str, Any]:
    """What an arm sets by itself, values that tuning chose for it left out."""
    found = next((trial.parameters for trial in sweep.trials if trial.arm == arm and trial.role != "tuning"), {})
    tuned = sweep.tuning[arm].values if arm in sweep.tuning else {}
    return {path: value for path, value in found.items() if path not in tuned}


def _by_arm(sweep: Sweep) -> dict[str, Mapping[str, Any]]:
    """By arm, the configuration of its first trial that is no tuning trial."""
    found: dict[str, Mapping[str, Any]] = {}
    for trial in sweep.trials:
        if trial.role == ("search" if sweep.is_search else "replicate") and trial.config:
            found.setdefault(trial.arm, trial.config)
    return found


def _configs(sweep: Sweep) -> list[Mapping[str, Any]]:
    """One configuration per arm, first the one that is the base itself, where there is one."""
    found = _by_arm(sweep)
    return [found[arm] for arm in sorted(found, key=lambda arm: bool(_changes(sweep, arm)))]


def _at(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _values(configs: Sequence[Mapping[str, Any]], path: str) -> list[Any]:
    """The different values at a path, absent ones left out."""
    found = (_at(config, path) for config in configs)
    return list({json.dumps(value, sort_keys=True): value for value in found if value is not None}.values())


def _said(
    configs: Sequence[Mapping[str, Any]], path: str, form: Callable[[Any], str] = short_value, words: str = "{}"
) -> str:
    """The value that all share, the few that there are, or their range; empty where none is recorded."""
    values = _values(configs, path)
    if not values:
        return ""
    if len(values) > 3 and all(isinstance(value, (int, float)) for value in values):
        return words.format(f"{form(min(values))} to {form(max(values))}")
    if len(values) > 3:
        return f"{path.rpartition('.')[2]} {_BY_ARM}"
    if all(isinstance(value, (int, float)) for value in values):
        values = sorted(values)
    shown = [form(value) for value in values]
    return words.format(listed(shown, "or"))


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _base(sweep: Sweep) -> str:
    """What the file starts from: its presets, as it names them."""
    base = sweep.file.get("base") or {}
    return _joined(
        *(f"{kind} {base[kind]}" for kind in ("model", "data", "training") if isinstance(base.get(kind), str))
    )


def _model(configs: Sequence[Mapping[str, Any]]) -> str:
    families = [str(value) for value in _values(configs, "model.family")]
    roles = listed([str(role) for role in _values(configs, "model.role")])
    kinds = f"{roles or 'model'} of the {listed(families)} family" if families else ""
    if len(families) > 1:
        kinds = f"{roles or 'model'}s of the families {listed(families)}"
    size = _said(configs, "model.n_layers", words="{} layers")
    width = _said(configs, "model.d_model", words="width {}")
    if size and width:
        size, width = f"{size} × {width}", ""
    heads = _said(configs, "model.n_heads", words="{} heads")
    return _joined(kinds, size, width, heads, _said(configs, "model.pretrained", words="starts from {}"))


def measured_range(sweep: Sweep, column: str) -> str:
    """The least and greatest measured value of a column; empty where no run recorded it."""
    if column not in sweep.runs.columns:
        return ""
    values = sweep.runs[column].dropna()
    if values.empty:
        return ""
    low, high = format_count(float(values.min())), format_count(float(values.max()))
    return low if low == high else f"{low} to {high}"


def _parameters(sweep: Sweep) -> str:
    total, own = measured_range(sweep, "params_total"), measured_range(sweep, "params")
    return _joined(total, f"{own} without embeddings" if own and total else own)


def _data(configs: Sequence[Mapping[str, Any]]) -> str:
    return _joined(
        _said(configs, "data.corpus"),
        _said(configs, "data.tokenizer", words="tokenizer {}"),
        _said(configs, "data.seq_len", words="sequences of {} tokens"),
        _said(configs, "data.validation_tokens", format_count, "validated on {} tokens"),
    )


def _budget(configs: Sequence[Mapping[str, Any]]) -> str:
    units = {
        "flops": "{} training FLOPs per run",
        "tokens": "{} tokens per run",
        "steps": "{} steps per run",
        "wall_seconds": "{} s per run",
    }
    budgets = [_said(configs, f"training.budget.{unit}", format_count, words) for unit, words in units.items()]
    regime = _said(configs, "training.regime")
    precision = _said(configs, "training.precision")
    return _joined(*budgets, f"regime {regime}" if regime else "", f"in {precision}" if precision else "")


def _spent(sweep: Sweep) -> str:
    tokens, steps = measured_range(sweep, "tokens"), measured_range(sweep, "steps/total")
    return _joined(f"{tokens} tokens" if tokens else "", f"{steps} steps" if steps else "")


def _rate(sweep: Sweep, configs: Sequence[Mapping[str, Any]]) -> str:
    value = _said(configs, RATE)
    if not value:
        return ""
    tune, search = (sweep.file.get(key) or {} for key in ("tune", "search"))
    how = untuned(sweep)
    if RATE in (tune.get("space") or {}):
        shares = format_share(float(tune.get("budget_share") or 0))
        how = f"tuned for each arm by {tune.get('trials_per_arm')} trials of {shares} of the budget"
    elif RATE in (search.get("space") or {}):
        how = "searched"
    elif how is None and len(_values(configs, RATE)) > 1:
        how = "set by the arms"
    warmup = _said(configs, "training.schedule.warmup", format_share, "{} warm-up")
    schedule = _said(configs, "training.schedule.kind", words="{} schedule")
    return _joined(f"{value}{f' ({how})' if how else ''}", schedule, warmup)


def _batch(configs: Sequence[Mapping[str, Any]]) -> str:
    return _joined(
        _said(configs, "training.batch_tokens", lambda value: f"{value:,}", "{} tokens per step"),
        _said(configs, "optimizer.kind"),
        _said(configs, "optimizer.weight_decay", words="weight decay {}"),
        _said(configs, "training.gradient_clip", words="gradients clipped at {}"),
    )


def _search(sweep: Sweep) -> str:
    search = sweep.file.get("search") or {}
    if not sweep.search_trials or not search.get("space"):
        return ""
    space = ", ".join(f"{path} in {_domain(domain)}" for path, domain in search["space"].items())
    winners = search.get("winners")
    again = f", {counted(winners)} then trained on fresh seeds" if winners else ", none trained again"
    return f"{search.get('trials')} points by {search.get('sampler')}{again}; {space}"


def _domain(domain: Any) -> str:
    """A domain of a search as its file writes it."""
    if isinstance(domain, Mapping):
        return "; ".join(f"{kind} {json.dumps(value)}" for kind, value in domain.items())
    return json.dumps(domain)


def _seeds(sweep: Sweep) -> str:
    counts = sorted(set(_finished(sweep)))
    if not counts:
        return ""
    if sweep.is_search:
        return "one per point"
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    paired = ", the same for every arm (paired)" if len(sweep.arms) > 1 else ""
    until = ", added until decided" if sweep.is_adaptive else ""
    if counts == [1]:
        return f"1 finished per arm{paired}{until}; no run was repeated"
    if sweep.search_trials:
        return f"1 per point of the search; {number} finished per winner, which the search did not use"
    return f"{number} finished per arm{paired}{until}"


def _finished(sweep: Sweep) -> Iterator[int]:
    """Finished runs of every arm."""
    for arm in sweep.arms:
        yield int((sweep.runs["arm"] == arm).sum()) if len(sweep.runs) else 0


def _decided(comparisons: Sequence[ResolvedComparison]) -> str:
    if not comparisons:
        return ""
    first = comparisons[0]
    test = "mixture-t e-process" if first.test == "mixture_t" else test_name(first.test, first.target)
    test += "" if first.side == "both" else f", one-sided ({first.side})"
    name = CORRECTION_NAMES.get(first.correction)
    several = f"corrected by {name} over {len(first.family)} arms" if name and len(first.family) > 1 else ""
    margin = ""
    if first.margin is not None:
        kind = "non-inferior within " if first.hypothesis == "non_inferior" else "equivalent within ±"
        margin = f"{kind}{first.margin:g}"
    equal = f"at equal {budget_name(first.equal)} (within {format_share(first.tolerance)})" if first.equal else ""
    return _joined(f"{test} at level {first.alpha:g}", several, margin, equal)
