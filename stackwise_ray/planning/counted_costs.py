"""What a step of a trial costs, found by running it without any data: FLOPs on the meta device, bytes on fake tensors.

The planner and the loop both call this module, so that a budget gives the same number of steps in the plan and in the
run. FLOPs and bytes are exactly those of the real step; tests check this for every family. There is one exception: in
16-bit autocast a real norm keeps statistics of each position, and a fake one does not. The difference is a few bytes
per thousand.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers import PreTrainedModel

from stackwise_ray.config.trial import Budget, TrialConfig
from stackwise_ray.metrics.flops import FlopCounter, optimizer_flops
from stackwise_ray.metrics.losses import summed_cross_entropy
from stackwise_ray.metrics.memory import LiveTensorPeak, SavedActivations, tensors_of
from stackwise_ray.metrics.meta_results import Remembered
from stackwise_ray.models.component import attached
from stackwise_ray.models.counting import count_parameters
from stackwise_ray.models.grouped_heads import repeated
from stackwise_ray.models.growth.adapters import merge_adapters
from stackwise_ray.models.growth.prefix import forward_from, prefix_output
from stackwise_ray.models.growth.time_input import takes_time
from stackwise_ray.optim import build_optimizer
from stackwise_ray.planning.modelled_flops import block_flops, modelled_flops, modelled_prefix_flops
from stackwise_ray.training.assembly import autocast, build_training_model, enter_stage
from stackwise_ray.training.budget import StageFlops, batch_sequences, shares
from stackwise_ray.training.component_hooks import whole_loss
from stackwise_ray.training.consistency import stack_output, summed_distance
from stackwise_ray.training.growth_options import Noise, WithNoise
from stackwise_ray.training.stabilisers import cap_spectral_norms, capping_flops, trained_projections
from stackwise_ray.training.stage import Stage


@dataclass(frozen=True, kw_only=True)
class StageBytes:
    """Memory of one stage and sizes of its model.

    Attributes:
        live_peak: Most bytes in live tensors during a step, optimizer state included.
        saved_activations: Bytes saved for the backward pass of one micro-batch.
        weights, optimizer_state: Bytes of each in a checkpoint.
        model: Bytes of the weights as they are kept in the end, adapters merged.
        params, params_non_embedding: Number of parameters of that model, with and without embeddings.
    """

    live_peak: int
    saved_activations: int
    weights: int
    optimizer_state: int
    model: int
    params: int
    params_non_embedding: int


def stage_flops(
    trial: TrialConfig, stage: Stage, *, vocab_size: int, special_ids: Mapping[str, int] | None = None
) -> StageFlops:
    """Counts a stage's FLOPs (about 0.1 s); cached for later trials of this process that cost the same.

    Args:
        trial: A trial to which the edits of its flags have been applied.
    """
    return _stage_flops(*_same_cost(trial, stage), vocab_size, _frozen(special_ids))


def stage_bytes(
    trial: TrialConfig, stage: Stage, *, vocab_size: int, special_ids: Mapping[str, int] | None = None
) -> StageBytes:
    """Finds a stage's memory in bytes (about 0.5 s); cached in the same way."""
    return _stage_bytes(*_same_cost(trial, stage), vocab_size, _frozen(special_ids))


def _same_cost(trial: TrialConfig, stage: Stage) -> tuple[TrialConfig, Stage]:
    """Both without what no cost of a step depends on, as a key to remember costs by: arms that differ in their masks
    alone, and the tuning of an arm, are counted once."""
    training = replace(trial.training, budget=Budget(steps=1), lr=1.0, evaluations=1)
    if isinstance(training, WithNoise):
        training = replace(training, noise=Noise())
    return replace(trial, seed=0, flags=(), training=training), replace(stage, share=1.0, noise=None)


def _frozen(special_ids: Mapping[str, int] | None) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((special_ids or {}).items()))


@functools.lru_cache(maxsize=256)
def _stage_flops(
    trial: TrialConfig, stage: Stage, vocab_size: int, special_ids: tuple[tuple[str, int], ...]
) -> StageFlops:
    model = _shapes_alone(trial, stage, vocab_size, special_ids)
    least = None
    for component in attached(model).values():
        component.take_cost("least")
    if attached(model):
        with FlopCounter() as least:
            _forward_backward(trial, stage, model, 1)
    for component in attached(model).values():
        component.take_cost("most")
    with FlopCounter() as training:
        _forward_backward(trial, stage, model, 1)
    with FlopCounter() as prefix, autocast(trial, "cpu"):
        if stage.cached:
            prefix_output(model, stage.lowest_trained, **_inputs(trial, model, 1))
    model.eval()  # type: ignore[no-untyped-call]
    with FlopCounter() as evaluation, torch.no_grad(), autocast(trial, "cpu"):
        model(**_inputs(trial, model, 1))
    with FlopCounter() as own, torch.no_grad(), autocast(trial, "cpu"):
        for component in attached(model).values():
            component.costliest_pass(_inputs(trial, model, 1))
    block = block_flops(trial, model.config.vocab_size)
    return StageFlops(
        forward_per_sequence=training.count.forward,
        backward_per_sequence=training.count.backward,
        evaluation_per_sequence=evaluation.count.forward,
        optimizer_per_step=optimizer_flops(model) + capping_flops(_capped(trial, model)),
        prefix_per_sequence=prefix.count.forward,
        modelled_per_sequence=modelled_flops(trial, stage, model.config.vocab_size),
        modelled_block_per_sequence=trial.data.seq_len * (3 * block.weights + block.mixing + block.mixing_backward),
        modelled_head_per_sequence=trial.data.seq_len * 3 * block.head,
        cheapest_per_sequence=None if least is None else least.count.forward + least.count.backward,
        component_pass_per_sequence=own.count.forward,
        modelled_prefix_per_sequence=(
            modelled_prefix_flops(trial, stage, model.config.vocab_size) if stage.cached else 0.0
        ),
    )


@functools.lru_cache(maxsize=256)
def _stage_bytes(
    trial: TrialConfig, stage: Stage, vocab_size: int, special_ids: tuple[tuple[str, int], ...]
) -> StageBytes:
    pieces = [len(piece) for piece in shares(0, batch_sequences(trial), trial.training.accumulation)][:2]
    with _attention_of_its_device(trial):
        model = _shapes_alone(trial, stage, vocab_size, special_ids)
        with Remembered():  # type: ignore[no-untyped-call]
            _forward_backward(trial, stage, model, 1)  # it shows which parameters get gradients
        mode = FakeTensorMode()
        _make_fake(model, mode)
        with mode:
            optimizer = build_optimizer(model, trial.optimizer, trial.training.lr)
            optimizer.step()  # the step that counts finds the optimizer's state there
            if len(set(pieces)) < len(pieces):  # the second of two equal micro-batches needs more: it finds gradients
                del pieces[0]
            else:
                optimizer.zero_grad(set_to_none=True)
            with LiveTensorPeak(tensors_of(model, optimizer)) as live, SavedActivations(model) as saved:
                loss = torch.zeros((), dtype=torch.float64)  # of the step, while it lasts
                for piece in pieces:
                    _forward_backward(trial, stage, model, piece)
                optimizer.step()
                cap_spectral_norms(_capped(trial, model))
                optimizer.zero_grad(set_to_none=True)
                del loss
            weights = sum(parameter.nbytes for parameter in model.parameters())
            merge_adapters(model)
            count = count_parameters(model)
            state = {id(v): v for e in optimizer.state.values() for v in e.values() if isinstance(v, torch.Tensor)}
            return StageBytes(
                live_peak=live.peak_bytes,
                saved_activations=saved.bytes,
                weights=weights,
                optimizer_state=sum(tensor.nbytes for tensor in state.values()),
                model=sum(parameter.nbytes for parameter in model.parameters()),
                params=count.total,
                params_non_embedding=count.non_embedding,
            )


def _shapes_alone(
    trial: TrialConfig, stage: Stage, vocab_size: int, special_ids: tuple[tuple[str, int], ...]
) -> PreTrainedModel:
    """The model in the form of the stage, on the meta device: much faster than fake tensors, and FLOPs are the same."""
    model = build_training_model(trial, vocab_size=vocab_size, special_ids=dict(special_ids), device="meta")
    enter_stage(model, stage)
    return model


def _make_fake(model: PreTrainedModel, mode: FakeTensorMode) -> None:
    """Makes fake tensors of the CPU out of a model's meta tensors and their gradients, on the same storages."""
    made: dict[torch.Tensor, torch.Tensor] = {}

    def fake(tensor: torch.Tensor) -> FakeTensor:
        return FakeTensor(mode, tensor.detach(), torch.device("cpu"))

    def parameter(old: torch.Tensor) -> torch.Tensor:
        new = nn.Parameter(fake(old), requires_grad=old.requires_grad)
        new.grad = None if old.grad is None else fake(old.grad)
        return new

    for module in model.modules():
        places: tuple[tuple[dict[str, Any], Callable[..., torch.Tensor]], ...] = (
            (module._parameters, parameter),
            (module._buffers, fake),
        )
        for tensors, make in places:
            for name, tensor in tensors.items():
                if tensor is not None:
                    if tensor not in made:
                        made[tensor] = make(tensor)
                    tensors[name] = made[tensor]


def _attention_of_its_device(trial: TrialConfig) -> contextlib.AbstractContextManager[None]:
    """Float32 on a GPU repeats the keys and values of grouped heads, which takes memory and no FLOPs."""
    device = trial.training.device
    on_a_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return repeated() if on_a_gpu and trial.training.precision == "float32" else contextlib.nullcontext()


def _capped(trial: TrialConfig, model: PreTrainedModel) -> list[torch.Tensor]:
    return trained_projections(model) if trial.training.spectral_norm else []


def _forward_backward(trial: TrialConfig, stage: Stage, model: PreTrainedModel, n_sequences: int) -> None:
    inputs = _inputs(trial, model, n_sequences)
    tokens = inputs["input_ids"]
    targets = torch.zeros_like(tokens)  # memory of their own, as in a step
    with autocast(trial, "cpu"), stack_output(model, stage) as hidden:
        if stage.cached:
            output = forward_from(
                model, stage.lowest_trained, torch.zeros(*tokens.shape, trial.model.d_model, device=tokens.device)
            )
        else:
            output = model(**inputs)
        total, _ = summed_cross_entropy(output.logits, targets)
        part = total / tokens.numel()
        loss = whole_loss(
            part, model, output, 1.0, lambda logits: summed_cross_entropy(logits, targets)[0] / tokens.numel()
        )
    if hidden:
        with autocast(trial, "cpu"):
            distance = summed_distance(model, hidden.pop(), tokens, torch.zeros_like(tokens))
        loss = loss + trial.training.consistency * distance
    del output  # as in a step: the logits do not live through the backward pass
    loss.backward()  # type: ignore[no-untyped-call]


def _inputs(trial: TrialConfig, model: PreTrainedModel, n_sequences: int) -> dict[str, torch.Tensor]:
    device = next(model.parameters()).device
    inputs = {"input_ids": torch.zeros(n_sequences, trial.data.seq_len, dtype=torch.int64, device=device)}
    return inputs | ({"times": torch.zeros(n_sequences, device=device)} if takes_time(model) else {})
