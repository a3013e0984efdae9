"""How a trial travels to a worker: the plugins first, then the trial's arguments, which may hold objects of theirs.

Pickled arguments that hold a class of a plugin can be read only where that plugin is loaded. So they travel as bytes,
beside the plugins (the text of a file, so that another node needs no copy of it), and are read after those are loaded.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from stackwise_ray.core.plugins import load_sent, to_workers
from stackwise_ray.core.records import MetricRecord


@dataclass(frozen=True, kw_only=True)
class PackedArguments:
    """Keyword arguments of a worker function, with the plugins that they need.

    Attributes:
        plugins: What `core.plugins.load_sent` loads.
        pickled: The arguments.
    """

    plugins: tuple[Mapping[str, Any], ...]
    pickled: bytes

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> PackedArguments:
        """The arguments with every plugin that this process has loaded."""
        return cls(plugins=tuple(to_workers()), pickled=pickle.dumps(dict(arguments)))


def run_packed(worker: str, packed: PackedArguments, **more: Any) -> Generator[MetricRecord, None, Any]:
    """Load the plugins, then run the worker function; yields and returns what that does.

    Args:
        worker: ``module:function`` of the trial generator.
        more: Keyword arguments that only this process knows, such as the rank.

    Raises:
        PluginError: A plugin cannot be loaded on this node.
    """
    load_sent(packed.plugins)
    module, _, name = worker.partition(":")
    function: Callable[..., Generator[MetricRecord, None, Any]] = getattr(importlib.import_module(module), name)
    return (yield from function(**pickle.loads(packed.pickled), **more))
