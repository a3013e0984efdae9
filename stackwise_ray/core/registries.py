"""Everything that is asked for by name, in one place that every layer may ask.

A registry lists its names without importing anything: the entries are the modules of a package, and one is imported
when it is first asked for. Entries that a config is validated with load without torch, ray and optuna. `core.plugins`
adds entries of other packages.
"""

from __future__ import annotations

from typing import Any

from stackwise_ray.core.beside import analysis_package
from stackwise_ray.core.plugins import installed
from stackwise_ray.core.registry import Registry

FAMILIES: Registry[Any] = Registry(
    "model family",
    package="stackwise_ray.models.families",
    protocol=("name", "roles", "check", "stack_view", "blocks_end_in_norm"),
)
CORPORA: Registry[Any] = Registry(
    "corpus",
    package="stackwise_ray.data.corpora",
    protocol=("options", "check", "documents", "recipe", "signature", "offers"),
)
REGIMES: Registry[Any] = Registry(
    "training regime", package="stackwise_ray.training.regimes", protocol=("plan", "options", "rules", "masks")
)
OBJECTIVES: Registry[Any] = Registry(
    "training objective", package="stackwise_ray.training.objectives", protocol=("__call__",)
)
OPTIMIZERS: Registry[Any] = Registry(
    "optimizer", package="stackwise_ray.optim", besides=("groups", "schedules"), protocol=("build", "rules")
)
FLAGS: Registry[Any] = Registry(
    "flag", package="stackwise_ray.flags", protocol=("name", "summary", "claim", "needs", "edits", "measured_by")
)
COMPONENTS: Registry[Any] = Registry(
    "component",
    package="stackwise_ray.models.components",
    protocol=(
        *("name", "options", "order", "conflicts", "one_stage", "metrics", "observable", "refuse", "attach", "report"),
        *("misfit", "held_out_tokens", "evaluation_bound"),
    ),
)
TASKS: Registry[Any] = Registry(
    "task", package="stackwise_ray.tasks", ending="_task", protocol=("facts", "where", "check", "prepare", "score")
)
SAMPLERS: Registry[Any] = Registry(
    "sampler", package="stackwise_ray.trials.samplers", protocol=("make", "several_objectives")
)
SCHEDULERS: Registry[Any] = Registry(
    "scheduler", package="stackwise_ray.distributed.schedulers", protocol=("make", "options")
)
ANALYSES: Registry[Any] = Registry(
    "analysis",
    package=lambda: f"{analysis_package()}.steps",
    protocol=("options", "title", "compute", "check", "reads", "comparison", "refuses_search"),
)
LAWS: Registry[Any] = Registry(
    "scaling law",
    package=lambda: f"{analysis_package()}.scaling.formulas",
    ending="_law",
    protocol=("formula", "parameters", "columns", "terms", "starts", "bounds", "scales", "coefficients", "at"),
)

BY_KIND: dict[str, Registry[Any]] = {
    "families": FAMILIES,
    "corpora": CORPORA,
    "regimes": REGIMES,
    "objectives": OBJECTIVES,
    "optimizers": OPTIMIZERS,
    "flags": FLAGS,
    "components": COMPONENTS,
    "tasks": TASKS,
    "samplers": SAMPLERS,
    "schedulers": SCHEDULERS,
    "analyses": ANALYSES,
    "laws": LAWS,
}
"""Kind, as in the name of an entry-point group (``stackwise_ray.<kind>``), to its registry."""

for _kind, _registry in BY_KIND.items():
    _registry.accept(_kind, installed(_kind))
