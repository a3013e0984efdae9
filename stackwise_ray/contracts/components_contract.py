"""What every component that a flag selects promises: what it declares, and what it does in a short run.

The runs (`component_runs`) cost what the plan says, end the same when they are interrupted, and are saved whole.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

from stackwise_ray.config.trial.paths import is_trial_path
from stackwise_ray.contracts import require, require_frozen
from stackwise_ray.contracts.component_runs import continued, finished, plain_trial, plan_of, run, trial_with
from stackwise_ray.core.metric_catalogue import find_metric
from stackwise_ray.core.registries import COMPONENTS


def it_says_who_it_is(name: str) -> None:
    """It is registered under its own name."""
    found = getattr(COMPONENTS.get(name), "name", None)
    require(found == name, f"its name is {found!r}, and it is '{name}'")


def its_options_have_defaults(name: str) -> None:
    """Its options are a frozen dataclass that can be made without any argument."""
    options = COMPONENTS.get(name).options
    require_frozen(options)
    require(options() == options(), "two sets of its default options differ")


def its_metrics_are_registered(name: str) -> None:
    """Its metrics are in the catalogue, begin with its name, and one of them shows that it did something."""
    component = COMPONENTS.get(name)
    for metric in component.metrics:
        require(metric.path.startswith(f"{name}/"), f"its metric '{metric.path}' does not begin with '{name}/'")
        require(find_metric(metric.path) == metric, f"its metric '{metric.path}' is not registered")
    paths = [metric.path for metric in component.metrics]
    require(component.observable in paths, f"its observable '{component.observable}' is none of its metrics")


def its_conflicts_name_fields(name: str) -> None:
    """What it does not go with are fields of a trial."""
    for conflict in COMPONENTS.get(name).conflicts:
        require(is_trial_path(conflict.path), f"it does not go with '{conflict.path}', which no trial has")


def it_changes_its_observable(name: str) -> None:
    """A run with it reports all its metrics and another training than a run without it, which reports none."""
    component, done = COMPONENTS.get(name), finished(name)
    missing = [metric.path for metric in component.metrics if metric.path not in done.metrics]
    require(not missing, f"a run does not report {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as folder:
        plain = run(plain_trial(), Path(folder))
    require(component.observable not in plain.metrics, f"a run without it reports '{component.observable}'")
    unmoved = plain.exact() == {path: done.exact().get(path) for path in plain.exact()}
    require(not unmoved, "every other metric of a run with it is that of a run without it")


def its_cost_is_the_plans(name: str) -> None:
    """Counted FLOPs of a run are within 1 % of the modelled ones and inside the plan's bounds; so are parameters."""
    done = finished(name)
    plan, metrics = plan_of(trial_with(name)), done.metrics
    total, evaluation = metrics["flops/total"], metrics["flops/evaluation"]
    for stage in done.stages():
        counted, modelled = stage["flops_counted"], stage["flops_modelled"]
        near = math.isclose(counted, modelled, rel_tol=0.01)
        require(near, f"stage {stage['name']} took {counted:,} FLOPs, and by `modelled_flops` it takes {modelled:,}")
    assert plan.flops_least is not None  # its budget is in steps
    assert plan.flops_total is not None
    inside = plan.flops_least <= total <= plan.flops_total
    require(inside, f"a run took {total:,.0f} FLOPs, planned are {plan.flops_least:,} to {plan.flops_total:,}")
    require(
        plan.flops_evaluation is None or evaluation <= plan.flops_evaluation,
        f"evaluation took {evaluation:,.0f} FLOPs, planned are at most {plan.flops_evaluation:,}",
    )
    params = metrics["model/params"]
    require(plan.params == params, f"a run has {params:,.0f} parameters, planned are {plan.params:,}")


def it_continues_bit_for_bit(name: str) -> None:
    """A run that was stopped and continued from its checkpoint ends as the one that was not, bit for bit."""
    import torch

    done = finished(name)
    with continued(name) as again:
        log = (again.folder / "logs" / "train.log").read_text()
        require("continues after step" in log, "a run that was stopped begins anew")
        mine, theirs = again.exact(), done.exact()
        differing = sorted(path for path in mine.keys() | theirs.keys() if mine.get(path) != theirs.get(path))
        require(not differing, f"continued, a run reports others of {', '.join(differing[:5])}")
        own, other = again.weights(), done.weights()
        require(own.keys() == other.keys(), "continued, a run saves other tensors")
        changed = [key for key in own if not torch.equal(own[key], other[key])]
        require(not changed, f"continued, a run ends with other weights in {', '.join(changed[:5])}")


def it_is_saved_with_its_state(name: str) -> None:
    """A saved model has it again in our loader, in its state, and gives the same logits in plain transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    from stackwise_ray.models.component import SAVED, attached
    from stackwise_ray.models.saved import load_saved

    done = finished(name)
    place = done.folder / "model"
    model = load_saved(place, "decoder", path="--model").train(False)
    require(name in attached(model), "a saved model is loaded without it")
    kept = json.loads((place / "config.json").read_text())[SAVED][name]["state"]
    state = json.loads(json.dumps(attached(model)[name].state()))
    require(state == kept, f"its state is saved as {kept} and comes back as {state}")
    stored = done.weights()
    lost = [key for key, value in model.named_parameters() if key not in stored or not torch.equal(value, stored[key])]
    require(not lost, f"a saved model comes back with other weights in {', '.join(lost[:5])}")
    plain = AutoModelForCausalLM.from_pretrained(place).train(False)
    tokens = torch.arange(16)[None] % 40
    with torch.no_grad():
        same = torch.equal(plain(input_ids=tokens).logits, model(input_ids=tokens).logits)
    require(same, "in transformers a saved model gives other logits at full depth than in our loader")


CHECKS = (
    it_says_who_it_is,
    its_options_have_defaults,
    its_metrics_are_registered,
    its_conflicts_name_fields,
    it_changes_its_observable,
    its_cost_is_the_plans,
    it_continues_bit_for_bit,
    it_is_saved_with_its_state,
)
