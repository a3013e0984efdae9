"""Losses on held-out windows: the fixed validation set during training, whole splits at its end.

Every function is a generator that yields between batches, so that the loop can show signs of life and stop; its
return value is the result. Sums are float64 over windows, whatever the batching or the number of workers.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stackwise_ray.core.errors import TrialError
from stackwise_ray.data import PreparedData, gather, leak_check, strided_windows
from stackwise_ray.metrics.losses import IGNORED, cross_entropies
from stackwise_ray.models.component import Forward
from stackwise_ray.models.growth.insertion import set_active
from stackwise_ray.training.assembly import Assembly
from stackwise_ray.training.budget import shares
from stackwise_ray.training.measure import Meter
from stackwise_ray.training.modes import evaluation_mode
from stackwise_ray.training.noise import MASKED_RATIOS, entered_blocks
from stackwise_ray.training.objectives import Batch, Objective
from stackwise_ray.training.objectives.masked_denoising import MaskedDenoising
from stackwise_ray.training.parallel.collectives import Collectives
from stackwise_ray.training.step import model_inputs, to_device

WITHOUT_FINISH = "_without_finish"
"""What the names of losses end in that were measured right before `training.finish`."""

_GPU_BATCHES = 32
"""Batches after which a GPU is waited for, so that signs of life mean finished work."""

MakeBatch = Callable[[NDArray[np.int64]], Batch]
"""From positions in the list of windows to their batch."""


@dataclass(frozen=True, kw_only=True)
class WindowLosses:
    """Summed loss (nats) and number of scored positions of each window, shapes (n_windows,).

    Attributes:
        hits: Scored positions whose most likely token is the target; None: not counted.
        answers: The same of the answers alone; None: they were not asked for.
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]
    hits: NDArray[np.int64] | None = None
    answers: WindowLosses | None = None

    @property
    def mean(self) -> float:
        """Nats per scored position over all windows."""
        return float(self.sums.sum() / self.counts.sum())


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Scores windows with the model as it is now, in evaluation mode.

    Attributes:
        batch_windows: Windows per forward pass: as many as training takes, which are known to fit.
    """

    assembly: Assembly
    collectives: Collectives
    meter: Meter
    batch_windows: int

    def score(
        self,
        n_windows: int,
        make_batch: MakeBatch,
        answers: NDArray[np.bool_] | None = None,
        forward: Forward | None = None,
    ) -> Generator[None, None, WindowLosses]:
        """Losses of windows 0 … n_windows − 1, shared out over the workers.

        Args:
            answers: Positions that are scored by themselves as well, shape (n_windows, seq_len).
            forward: What gives the logits, whose FLOPs depend on the data; None: the model's own forward pass.

        Raises:
            TrialError: A loss is not finite, or there is none.
        """
        device = self.assembly.device
        table = torch.zeros(2 if answers is None else 5, n_windows, dtype=torch.float64, device=device)
        mine = shares(0, n_windows, self.assembly.world_size)[self.assembly.rank]
        with evaluation_mode(self.assembly.model):
            for batches, start in enumerate(range(mine.start, mine.stop, self.batch_windows), 1):
                numbers = np.arange(start, min(start + self.batch_windows, mine.stop))
                asked = None if answers is None else answers[numbers]
                table[:, start : start + len(numbers)] = self._losses(make_batch(numbers), asked, forward)
                if device.type == "cuda" and batches % _GPU_BATCHES == 0:
                    torch.cuda.synchronize(device)
                yield
            if self.assembly.parallelism.pads_passes:
                self._pad_collectives(-(-len(mine) // self.batch_windows), n_windows, make_batch)
        self.collectives.sum_([table])
        sums, counts, *of_answers = table.cpu().numpy()
        result = WindowLosses(
            sums=sums,
            counts=counts.astype(np.int64),
            answers=WindowLosses(
                sums=of_answers[0], counts=of_answers[1].astype(np.int64), hits=of_answers[2].astype(np.int64)
            )
            if of_answers
            else None,
        )
        if not np.isfinite(result.sums).all():
            bad = int((~np.isfinite(result.sums)).argmax())
            raise TrialError(f"non-finite loss in evaluation: {result.sums[bad]} in window {bad} of {n_windows}")
        if not result.counts.any():
            raise TrialError(
                f"none of the {n_windows} windows of the evaluation has a position with a loss: they contain only "
                "special tokens; raise data.validation_tokens, or look at the text"
            )
        return result

    @torch.no_grad()  # not inference mode: a stage can begin with an evaluation, and shards keep their buffers
    def _pad_collectives(self, done: int, n_windows: int, make_batch: MakeBatch) -> None:
        """Passes that score nothing until this worker has made as many as the others: each gathers weights, which all
        workers do together."""
        largest = len(shares(0, n_windows, self.assembly.world_size)[0])
        for _ in range(done, -(-largest // self.batch_windows)):
            batch = make_batch(np.zeros(1, dtype=np.int64))
            with self.assembly.autocast():
                self.assembly.model(**model_inputs(self.assembly.model, batch, self.assembly.device))

    @torch.no_grad()
    def _losses(self, batch: Batch, answers: NDArray[np.bool_] | None, forward: Forward | None) -> torch.Tensor:
        """Sums over each window, left on the device, shape (2 or 5, windows): loss, positions; of the answers loss,
        positions, hits."""
        assembly = self.assembly
        targets = to_device(batch.targets, assembly.device)
        inputs = model_inputs(assembly.model, batch, assembly.device)
        with self.meter.evaluation(len(targets), alike=forward is None), assembly.autocast():
            logits = assembly.model(**inputs).logits if forward is None else forward(inputs)
        losses, scored = cross_entropies(logits, targets), targets != IGNORED
        rows = [losses, scored]
        if answers is not None:
            asked = scored & to_device(answers, assembly.device)
            rows += [losses * asked, asked, asked & (logits.argmax(-1) == targets)]
        return torch.stack([row.double().sum(1) for row in rows])

    def validate(self, objective: Objective) -> Generator[None, None, dict[str, float]]:
        """The fixed validation set: `validation/loss`, and for left-to-right objectives its perplexity.

        On a source with known entropy also `validation/oracle_loss` and `validation/entropy_rate`; on one that asks
        questions `validation/answer_loss` and `validation/answer_accuracy`.

        Raises:
            TrialError: The model beats the oracle: it sees what it is to predict.
        """
        windows, data = self.assembly.validation_windows, self.assembly.data
        answers = data.answers(windows) if objective.left_to_right else None
        result = yield from self.score(
            len(windows), lambda numbers: objective.validation_batch(windows[numbers]), answers
        )
        metrics = {"validation/loss": result.mean}
        if not objective.left_to_right:
            return metrics
        metrics.update(_perplexity("validation/perplexity", result.mean))
        oracle = self._oracle_losses
        if oracle is not None:
            metrics["validation/oracle_loss"] = float(oracle.mean())
            if data.entropy_rate is not None:
                metrics["validation/entropy_rate"] = data.entropy_rate
            if len(windows) > 1:
                leak_check(result.sums / result.counts, oracle)
        if result.answers is not None and result.answers.hits is not None:
            metrics["validation/answer_loss"] = result.answers.mean
            metrics["validation/answer_accuracy"] = float(result.answers.hits.sum() / result.answers.counts.sum())
        return metrics

    @functools.cached_property
    def _oracle_losses(self) -> NDArray[np.float64] | None:
        return self.assembly.data.oracle_loss(self.assembly.validation_windows)

    def masked_ratios(self) -> Generator[None, None, dict[str, float]]:
        """Cross-entropy on masked positions of the fixed validation set, with the same masks in every arm and seed.

        Returns:
            ``validation/masked_loss_15`` to ``_90`` (nats per masked token, by per cent of masked positions; the masks
            are nested) and their mean ``validation/masked_loss``.
        """
        assembly, windows = self.assembly, self.assembly.validation_windows
        denoising = MaskedDenoising(assembly.trial, assembly.plan.stages[-1], assembly.data, assembly.order)
        metrics = {}
        for ratio in MASKED_RATIOS:
            with self._entered(ratio):
                result = yield from self.score(len(windows), functools.partial(_masked_at, denoising, windows, ratio))
            metrics[f"validation/masked_loss_{round(100 * ratio)}"] = result.mean
        return {**metrics, "validation/masked_loss": sum(metrics.values()) / len(metrics)}

    def without_finish(self, objective: Objective) -> Generator[None, None, dict[str, float]]:
        """The losses of a model whose finish is about to begin, reported beside those that it ends with.

        Returns:
            `validation/loss` on the finish's own masks, and `masked_ratios` of all that fills in masks; their names end
            in `WITHOUT_FINISH`.
        """
        metrics = yield from self.validate(objective)
        losses = {"validation/loss": metrics["validation/loss"]}
        if self.assembly.trial.fills_masks:
            losses |= yield from self.masked_ratios()
        return {f"{name}{WITHOUT_FINISH}": loss for name, loss in losses.items()}

    @contextlib.contextmanager
    def _entered(self, share: float) -> Iterator[None]:
        """The forward pass enters the model where inputs with this share of masks belong."""
        trial, model = self.assembly.trial, self.assembly.model
        if trial.training.entry == "full":
            yield
            return
        self.meter.forget_evaluations()
        set_active(model, entered_blocks(trial, share))
        try:
            yield
        finally:
            set_active(model, range(trial.model.n_layers))
            self.meter.forget_evaluations()

    def whole_split(self, split: str) -> Generator[None, None, dict[str, float]]:
        """Exact NLL over a whole split: strided windows, every token but the first scored once.

        Returns:
            ``<split>/perplexity_token|word|byte``, ``<split>/loss_full`` (nats per token; ``test/loss`` for the test
            split) and the counts and least context that they were computed with.
        """
        data, seq_len = self.assembly.data, self.assembly.trial.data.seq_len
        plan = strided_windows(data.splits[split].n_tokens, seq_len)  # type: ignore[index]

        def make_batch(numbers: NDArray[np.int64]) -> Batch:
            inputs, targets = gather(data.splits[split].tokens, plan.offsets[numbers], seq_len)  # type: ignore[index]
            context = np.arange(seq_len) < seq_len - plan.n_scored[numbers][:, None]
            times = np.zeros(len(inputs), dtype=np.float32)
            return Batch(inputs=inputs, targets=np.where(context, IGNORED, targets), loss_positions=0, times=times)

        result = yield from self.score(len(plan.offsets), make_batch)
        return split_metrics(split, data, float(result.sums.sum()), int(result.counts.sum()), plan.min_context)


def _masked_at(
    denoising: MaskedDenoising, windows: NDArray[np.int64], ratio: float, numbers: NDArray[np.int64]
) -> Batch:
    return denoising.masked_at(windows[numbers], ratio)


def split_metrics(split: str, data: PreparedData, nll: float, n_scored: int, min_context: int) -> dict[str, float]:
    """Perplexities of a split from its summed NLL (nats): per token, and per word and byte of the same text.

    Those per word and byte divide the same NLL by other counts, so that tokenizers can be compared.
    """
    counts = data.splits[split]  # type: ignore[index]
    loss_name = "test/loss" if split == "test" else f"{split}/loss_full"
    metrics = {
        loss_name: nll / n_scored,
        f"{split}/tokens": float(n_scored),
        f"{split}/words": float(counts.n_words),
        f"{split}/bytes": float(counts.n_bytes),
        f"{split}/min_context": float(min_context),
    }
    for unit, divisor in (("token", n_scored), ("word", counts.n_words), ("byte", counts.n_bytes)):
        if divisor:
            metrics.update(_perplexity(f"{split}/perplexity_{unit}", nll / divisor))
    return metrics


def _perplexity(name: str, loss: float) -> Mapping[str, float]:
    """exp(loss) under its name, or nothing where that is beyond a float (a missing metric is absent)."""
    return {name: math.exp(loss)} if loss < 700 else {}
