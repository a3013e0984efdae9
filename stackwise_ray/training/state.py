"""What a checkpoint holds of model, optimizer, loss scaler and random streams, and how it comes back, bit for bit.

The loop adds its counters; `checkpoints` writes the files.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stackwise_ray.core.errors import CheckpointError
from stackwise_ray.training.assembly import Assembly, StageTools
from stackwise_ray.training.checkpoints import Checkpoint


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything of torch that the next step depends on.

    Attributes:
        tensors: By file of the checkpoint: ``model``, ``optimizer``, ``random``.
        plain: The rest, as JSON data.
    """

    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    plain: Mapping[str, Any]


def capture(assembly: Assembly, tools: StageTools) -> TrainingState:
    """The state between two steps; tensors are the live ones, not copies.

    What the workers hold in shards is gathered, so then every worker has to call this; the first gets the whole.
    """
    device = assembly.device
    parallelism, rank = assembly.parallelism, assembly.rank
    optimizer: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, entries in tools.optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                optimizer[f"{index}/{key}"] = parallelism.gathered_by_first(value, rank)
            else:
                numbers[f"{index}/{key}"] = value
    algorithm, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    streams = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64))}
    if device.type == "cuda":
        streams["cuda"] = torch.cuda.get_rng_state(device)
    plain = {
        "optimizer": numbers,
        "scaler": tools.scaler.state_dict() if tools.scaler is not None else None,
        "numpy": [str(algorithm), int(position), int(has_gauss), float(gauss)],
        "python": json.loads(json.dumps(random.getstate())),
        "machine": _machine(device, assembly.world_size),
    }
    model = {
        name: parallelism.gathered_by_first(tensor, rank) for name, tensor in _model_tensors(assembly.model).items()
    }
    tensors = {"model": model, "optimizer": optimizer, "random": streams}
    return TrainingState(tensors=tensors, plain=plain)


def restore(checkpoint: Checkpoint, assembly: Assembly, tools: StageTools) -> bool:
    """Puts the state of a checkpoint into model, optimizer, scaler and random streams.

    Returns:
        Whether what follows is bit-exact: same threads, workers and kind of device.

    Raises:
        CheckpointError: Its tensors are not those of this model.
    """
    own, stored = _model_tensors(assembly.model), checkpoint.tensors["model"]
    odd = sorted(own.keys() ^ stored.keys()) or [name for name in own if own[name].shape != stored[name].shape]
    if odd:
        raise CheckpointError(f"the checkpoint of step {checkpoint.step} is of another model: {', '.join(odd[:3])}")
    with torch.no_grad():
        for name, tensor in stored.items():
            own[name].copy_(assembly.parallelism.shared_like(tensor, own[name]))
    plain = checkpoint.state["torch"]
    entries: dict[int, dict[str, Any]] = {}
    parameters = [parameter for group in tools.optimizer.param_groups for parameter in group["params"]]
    for name, value in [*checkpoint.tensors["optimizer"].items(), *plain["optimizer"].items()]:
        index, _, key = name.partition("/")
        if isinstance(value, torch.Tensor) and value.shape == parameters[int(index)].shape:
            value = assembly.parallelism.shared_like(value, parameters[int(index)])
        entries.setdefault(int(index), {})[key] = value
    groups = tools.optimizer.state_dict()["param_groups"]
    tools.optimizer.load_state_dict({"state": entries, "param_groups": groups})
    if tools.scaler is not None and plain["scaler"] is not None:
        tools.scaler.load_state_dict(plain["scaler"])
    _restore_streams(checkpoint.tensors["random"], plain, assembly.device)
    return bool(plain["machine"] == _machine(assembly.device, assembly.world_size))


def _restore_streams(streams: Mapping[str, torch.Tensor], plain: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(streams["torch"])
    if device.type == "cuda" and "cuda" in streams:
        torch.cuda.set_rng_state(streams["cuda"], device)
    algorithm, position, has_gauss, gauss = plain["numpy"]
    np.random.set_state((algorithm, streams["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = plain["python"]
    random.setstate((version, tuple(internal), gauss_next))


def _machine(device: torch.device, world_size: int) -> dict[str, Any]:
    """What the order of floating-point sums depends on."""
    return {"threads": torch.get_num_threads(), "device": device.type, "world_size": world_size}


def _model_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers, each once (a tied head is the embedding's)."""
    unique: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, torch.Tensor):
            unique.setdefault(id(tensor), (name, tensor))
    return dict(unique.values())
