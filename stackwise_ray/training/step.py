"""One optimizer step over the global batch: micro-batches, workers, clipping, the update.

The loss is the sum over all loss positions of the global batch divided by their number, whatever the number of
micro-batches and workers. The loop calls `TrainingStep.take`; instruments are put around it from outside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stackwise_ray.core.errors import TrialError
from stackwise_ray.metrics.losses import IGNORED, summed_cross_entropy
from stackwise_ray.models.component import varying
from stackwise_ray.models.growth.prefix import forward_from
from stackwise_ray.models.growth.time_input import takes_time
from stackwise_ray.training.assembly import Assembly, StageTools, seed_step
from stackwise_ray.training.budget import shares
from stackwise_ray.training.compiled import Network, as_compiled, compiling, kernels_come_late
from stackwise_ray.training.component_hooks import whole_loss
from stackwise_ray.training.consistency import stack_output, summed_distance
from stackwise_ray.training.objectives import Batch
from stackwise_ray.training.parallel.collectives import Collectives
from stackwise_ray.training.stabilisers import cap_spectral_norms

Cached = Callable[[range], Tensor]
"""From global counters of sequences to the hidden states kept of them, (n_sequences, seq_len, d_model)."""


@dataclass(frozen=True, kw_only=True)
class StepValues:
    """What a step measured, left on the device so that a GPU need not be waited for.

    Attributes:
        loss: Mean over the global batch's loss positions, nats; shape ().
        gradient_norm: Global norm before clipping; shape ().
        loss_positions: Of the global batch.
        scales: fp16 only: the loss scale before and after the step, shapes (). It falls where the scaled gradient
            overflowed; then the update was left out.
    """

    loss: Tensor
    gradient_norm: Tensor
    loss_positions: int
    scales: tuple[Tensor, Tensor] | None = None


class TrainingStep:
    """Steps of one stage on one worker.

    Args:
        cached: Gives what goes into the lowest trained block for training sequences, where the stage is `cached`.
    """

    def __init__(
        self, assembly: Assembly, tools: StageTools, collectives: Collectives, cached: Cached | None = None
    ) -> None:
        self._assembly, self._tools, self._collectives, self._cached = assembly, tools, collectives, cached
        self._training = assembly.trial.training
        self._network: Network = assembly.model
        self.compiled = False
        self.warm = not (self._training.compile or kernels_come_late(assembly.device))

    def warm_up(self, n_sequences: int) -> None:
        """Makes what passes of steps of `n_sequences` need at their first call, by passes whose gradients go nowhere.

        With `training.compile` that is their graph. On a GPU it is what Triton compiles and CUDA's libraries load, also
        for the steps with instruments, which stay uncompiled: an instrument does not see the operations of a graph.
        The random streams are left as they were.

        Raises:
            TrialError: They cannot be compiled.
        """
        device = self._assembly.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            if kernels_come_late(device):
                self._pass_once(self._assembly.model, n_sequences)
            if self._training.compile:
                with compiling(self._assembly.model, self._tools.stage.name) as self._network:
                    self._pass_once(self._network, n_sequences)
                self.compiled = True
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # else these passes are time of the first step
        self.warm = True

    def _pass_once(self, network: Network, n_sequences: int) -> None:
        """A pass over each size of micro-batch; where passes are collectives, every worker makes one alone."""
        mine = shares(0, n_sequences, self._assembly.world_size)[self._assembly.rank]
        sizes = sorted({len(piece) for piece in shares(0, len(mine), self._training.accumulation) if piece})
        if self._assembly.parallelism.pads_passes:
            sizes = sizes[-1:] or [1]
        for size in sizes:
            batch = self._tools.objective.training_batch(range(size))
            self._backward(network, range(size), batch, count=1, revealed=0, share=1.0)
        self._tools.optimizer.zero_grad(set_to_none=True)

    def take(
        self,
        *,
        step: int,
        first_sequence: int,
        n_sequences: int,
        lr: float,
        passes: contextlib.AbstractContextManager[object] | None = None,
    ) -> StepValues:
        """Trains on sequences `first_sequence` … `first_sequence + n_sequences − 1` of all workers together.

        Args:
            step: Number of the step in the whole run, from 0.
            passes: Instruments around the forward and backward passes.

        Raises:
            TrialError: The batch has no loss position.
        """
        assembly, tools = self._assembly, self._tools
        seed_step(assembly.trial.seed, step, assembly.rank)
        mine = shares(first_sequence, n_sequences, assembly.world_size)[assembly.rank]
        pieces = [piece for piece in shares(mine.start, len(mine), self._training.accumulation) if piece]
        batches = [tools.objective.training_batch(piece) for piece in pieces]
        count, revealed = self._collectives.sum_numbers(
            [sum(batch.loss_positions for batch in batches), sum(batch.revealed_positions for batch in batches)]
        )
        if count == 0:
            raise TrialError(f"step {step}: none of the batch's {n_sequences} sequences has a position with a loss")
        loss = torch.zeros((), dtype=torch.float64, device=assembly.device)
        network = self._network if passes is None else assembly.model
        with passes or (as_compiled(step) if self.compiled else contextlib.nullcontext()):
            for piece, batch in zip(pieces, batches, strict=True):
                if piece is pieces[-1] and passes is None:  # instruments see the model's operations alone
                    assembly.parallelism.begin_sums(tools.parameters, self._collectives)
                loss += self._backward(network, piece, batch, count, revealed, share=len(piece) / n_sequences)
        if assembly.parallelism.pads_passes:
            self._pad_collectives(len(batches), first_sequence, n_sequences, count)
        assembly.parallelism.sum_gradients(loss, tools.parameters, self._collectives)
        if varying(assembly.model):
            for parameter in tools.parameters:
                if parameter.grad is None:  # left out of this step alone: its momentum and its decay go on
                    parameter.grad = torch.zeros_like(parameter)
        norm, scales = self._update(lr)
        return StepValues(loss=loss, gradient_norm=norm, loss_positions=count, scales=scales)

    def _backward(
        self, network: Network, piece: range, batch: Batch, count: int, revealed: int, share: float
    ) -> Tensor:
        """Adds a micro-batch's part of the gradient; returns its part of the loss.

        Args:
            network: The model, or its compiled form.
            count: Loss positions of the global batch.
            revealed: Positions of the global batch over which the consistency is averaged.
            share: The micro-batch's sequences over those of the global batch.
        """
        device, model = self._assembly.device, self._assembly.model
        inputs, targets = model_inputs(model, batch, device), to_device(batch.targets, device)
        with self._assembly.autocast(), stack_output(model, self._tools.stage) as hidden:
            output = self._forward(network, piece, inputs)
            total, _ = summed_cross_entropy(output.logits, targets)
            part = total / count
            whole = whole_loss(
                part, model, output, share, lambda logits: summed_cross_entropy(logits, targets)[0] / count
            )
        if revealed and batch.clearer is not None:
            with self._assembly.autocast():
                distance = summed_distance(model, hidden.pop(), inputs["input_ids"], to_device(batch.clearer, device))
            whole = whole + self._training.consistency / revealed * distance
        del output  # else the logits live through the backward pass
        scaler = self._tools.scaler
        (whole if scaler is None else scaler.scale(whole)).backward()  # type: ignore[no-untyped-call]
        return part.detach()

    def _pad_collectives(self, done: int, first_sequence: int, n_sequences: int, count: int) -> None:
        """Passes without a loss until this worker has made as many as the others: each gathers and shares out weights,
        which all workers do together. They are no part of training, and no instrument sees them.
        """
        largest = len(shares(first_sequence, n_sequences, self._assembly.world_size)[0])
        for _ in range(done, min(largest, self._training.accumulation)):
            piece = range(first_sequence, first_sequence + 1)
            batch = self._tools.objective.training_batch(piece)
            empty = replace(batch, targets=np.full_like(batch.targets, IGNORED), loss_positions=0)
            self._backward(self._network, piece, empty, count, 0, share=0.0)

    def _forward(self, network: Network, piece: range, inputs: Mapping[str, Tensor]) -> Any:
        if self._cached is None:
            return network(**inputs)
        return forward_from(self._assembly.model, self._tools.stage.lowest_trained, self._cached(piece))

    def _update(self, lr: float) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Clips and updates; (gradient norm before clipping, loss scale before and after).

        Nothing here waits for a GPU, but for an optimizer without a fused form in fp16: there torch reads whether the
        gradient overflowed before it updates.
        """
        optimizer, scaler, clip = self._tools.optimizer, self._tools.scaler, self._training.gradient_clip
        for group in optimizer.param_groups:
            group["lr"] = lr
        if scaler is not None:
            scaler.unscale_(optimizer)
        gradients = [p.grad for p in self._tools.parameters if p.grad is not None]
        norm = self._assembly.parallelism.gathered(torch.nn.utils.get_total_norm(gradients, foreach=True))
        if clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self._tools.parameters, clip, norm, foreach=True)
        scales = None
        if scaler is None:
            optimizer.step()
        else:
            one = torch.ones((), device=self._assembly.device)
            before = scaler.scale(one)  # the scale itself, left on the device; `get_scale` would wait for it
            scaler.step(optimizer)
            scaler.update()
            scales = before, scaler.scale(one)
        cap_spectral_norms(self._tools.capped)
        optimizer.zero_grad(set_to_none=True)
        return norm, scales


def model_inputs(model: torch.nn.Module, batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """What the model is called with: the batch's tokens, and its times where the model takes them."""
    inputs = {"input_ids": to_device(batch.inputs, device)}
    if takes_time(model):
        if batch.times is None:
            raise ValueError("the model takes time as an input, but the objective gives no Batch.times")
        inputs["times"] = to_device(batch.times, device)
    return inputs


def to_device(array: NDArray[np.int64] | NDArray[np.float32] | NDArray[np.bool_], device: torch.device) -> Tensor:
    """The array as a tensor; to a GPU through pinned memory, without waiting."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
