"""stackwise_ray turns a claim about a model, a training regime or a trick into a measured, paired answer.

The Python interface: each name loads what it needs (torch, ray) on first use. Importing the package loads neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.version import VERSION

if TYPE_CHECKING:
    from stackwise_ray.config.loading import load_sweep, load_trial
    from stackwise_ray.core.plugins import load_plugin
    from stackwise_ray.metrics.flops import count_flops
    from stackwise_ray.running.single import build_model, train
    from stackwise_ray.sweep import plan, run

__version__ = VERSION

__all__ = ["build_model", "count_flops", "load_plugin", "load_sweep", "load_trial", "plan", "run", "train"]

_FACE = {
    "load_plugin": "stackwise_ray.core.plugins",
    "load_sweep": "stackwise_ray.config.loading",
    "load_trial": "stackwise_ray.config.loading",
    "plan": "stackwise_ray.sweep",
    "run": "stackwise_ray.sweep",
    "build_model": "stackwise_ray.running.single",
    "count_flops": "stackwise_ray.metrics.flops",
    # The module of the command bears the function's name and takes this attribute when it is imported: it is callable.
    "train": "stackwise_ray.train",
}


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module = importlib.import_module(_FACE[name])
    value = module if name == "train" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
