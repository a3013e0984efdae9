"""The one training loop: it carries out a plan of stages and yields what it measures.

`running.run` makes it and writes the trial's folder around it. Between two steps everything that the future depends
on is in `TrainingProgress`, the model, the optimizer and the scaler: that is what a checkpoint holds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from stackwise_ray.core.errors import DiskFullError, TrialError
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.models.component import attached, begin_step
from stackwise_ray.training.assembly import Assembly
from stackwise_ray.training.budget import StageFlops, StageSteps, batch_sequences, shares, stage_costs
from stackwise_ray.training.checkpoint_writer import CheckpointWriter
from stackwise_ray.training.checkpoints import Checkpoint
from stackwise_ray.training.clock import BudgetClock
from stackwise_ray.training.component_hooks import modelled_per_sequence
from stackwise_ray.training.component_scorer import ComponentScorer
from stackwise_ray.training.evaluation import WITHOUT_FINISH, Evaluator
from stackwise_ray.training.final import final_metrics
from stackwise_ray.training.measure import Meter
from stackwise_ray.training.parallel.collectives import Collectives
from stackwise_ray.training.pending import PendingSteps
from stackwise_ray.training.prefix_cache import PrefixCache
from stackwise_ray.training.progress import Flops, LossMean, TrainingProgress
from stackwise_ray.training.state import capture, restore
from stackwise_ray.training.step import TrainingStep
from stackwise_ray.training.trial_folder import TrialLog

Records = Generator[MetricRecord, None, None]
Result = TypeVar("Result")


class TrainingLoop:
    """One attempt at one trial on one worker.

    Args:
        steps: Steps of each stage; None where the budget is wall-clock time, or FLOPs of steps that differ in cost.
        planned: FLOPs of each stage as the planner counts them.
        save: Writes a checkpoint (the first worker does, in a thread).
        cache: Keeps what the frozen prefix gives, where a stage of the plan is cached.

    Attributes:
        at_rest: Whether no step is under way, so that a checkpoint can be written.
        bit_exact: Whether every attempt so far had the same threads, workers and kind of device.
    """

    def __init__(
        self,
        assembly: Assembly,
        *,
        steps: tuple[StageSteps, ...] | None,
        planned: Sequence[StageFlops],
        trial_id: str,
        attempt: int,
        collectives: Collectives,
        log: TrialLog,
        save: Callable[[Checkpoint], object],
        started: float,
        cache: PrefixCache | None = None,
    ) -> None:
        self.assembly, self.collectives, self.log = assembly, collectives, log
        self.training = assembly.trial.training
        self._planned, self._cache = planned, cache
        self._trial_id, self._attempt = trial_id, attempt
        costs = stage_costs(assembly.plan, planned)
        self._budget = BudgetClock(assembly.trial, assembly.plan, steps, collectives, assembly.rank, costs)
        self.meter = Meter(assembly.model, assembly.device, collectives)
        self.progress = TrainingProgress()
        batch = batch_sequences(assembly.trial)
        micro = len(shares(0, len(shares(0, batch, assembly.world_size)[0]), self.training.accumulation)[0])
        self._evaluator = Evaluator(
            assembly=assembly, collectives=collectives, meter=self.meter, batch_windows=max(1, micro)
        )
        self._pending = PendingSteps(assembly.device)
        self.at_rest, self.bit_exact = True, True
        self._clock = time.perf_counter
        self._attempt_start, self._total_before = started, 0.0
        self._last_report = self._clock()
        self._writer = CheckpointWriter(
            save,
            least_seconds=self.training.checkpoint_seconds,
            clock=self._clock,
            thread_costs=assembly.device.type == "cpu",
        )
        self._report_tokens, self._report_seconds = 0, 0.0
        self._enter_stage()

    # ------------------------------------------------------------------------------------------------- the loop

    def train(self) -> Records:
        """Trains to the end of the budget, validating and saving on the way.

        Raises:
            TrialError: A loss or gradient is not finite; or the model beats a source of known entropy.
        """
        while True:
            self._budget.read(self.progress)
            if self._budget.evaluation_due(self.progress):
                yield from self._evaluate()
            if self.progress.step and self._checkpoint_due():
                self.save()
            if self._budget.finished(self.progress):
                self.meter.end_steps()
                return
            if self._budget.stage_is_over(self.progress):
                self.progress.stage, self.progress.stage_step = self.progress.stage + 1, 0
                self._enter_stage()
            if self._without_finish_due():
                self._synchronise()
                yield from self.timed_evaluation(self._evaluator.without_finish(self._tools.objective))
            yield from self._fill_cache()
            yield from self._warm_up()
            self.at_rest = False
            self._step()
            self.at_rest = True
            if self._clock() - self._last_report >= self.training.report_seconds:
                yield self._report()

    def _step(self) -> None:
        progress = self.progress
        n_sequences = self._budget.sequences(progress)
        share = self._budget.stage_share(progress)
        form = begin_step(self.assembly.model, step=progress.step, share=share)
        plain = self.meter.knows(progress.stage, n_sequences, progress.stage_step, form)
        if not plain:
            self._synchronise()  # what is waited for here belongs to the steps before
        began = self._clock()
        lr = self._budget.learning_rate(progress)
        self._tools.objective.stage_used = share
        take = partial(
            self._training_step.take,
            step=progress.step,
            first_sequence=progress.sequences,
            n_sequences=n_sequences,
            lr=lr,
        )
        if plain:
            self.meter.begin_steps()
            values = take()
        else:
            tools = self._tools
            with self.meter.step(
                progress.stage, n_sequences, progress.stage_step, tools.optimizer, tools.capped, form
            ) as passes:
                values = take(passes=passes)
            self._compare_with_plan(n_sequences, form)
        tokens = n_sequences * self.assembly.trial.data.seq_len
        flops = self.meter.flops_of(progress.stage, n_sequences, form)
        self._pending.add(step=progress.step, lr=lr, values=values)
        progress.step += 1
        progress.stage_step += 1
        progress.sequences += n_sequences
        progress.tokens += tokens
        progress.flops.add(flops)
        row = progress.stages[-1]
        row["tokens"] += tokens
        row["flops_counted"] += flops.forward + flops.backward
        row["flops_modelled"] += round(
            n_sequences * modelled_per_sequence(self.assembly.model, self._planned[progress.stage])
        )
        row["saved_activation_bytes"] = self.meter.saved_bytes
        if not plain or self._pending.full:
            self._pending.take_in(progress)
        if plain:
            progress.plain_tokens += tokens
            self._report_tokens += tokens
        self._spend(self._clock() - began, plain=plain)

    def _spend(self, seconds: float, *, plain: bool) -> None:
        """Counts time of training; that of steps without instruments is what the throughput is measured by."""
        self.progress.seconds.train += seconds
        if plain:
            self.progress.plain_seconds += seconds
            self._report_seconds += seconds

    def _compare_with_plan(self, n_sequences: int, form: str) -> None:
        """The budget was solved from planned FLOPs: a step that costs others must not pass unnoticed."""
        flops = self.meter.flops_of(self.progress.stage, n_sequences, form)
        difference = self._planned[self.progress.stage].difference(flops.forward + flops.backward, n_sequences)
        if difference is None:
            return
        if self.training.budget.flops is not None and difference.beyond_tolerance:
            raise TrialError(
                f"{difference.message}: the budget of FLOPs would not be met; this is a fault of the "
                "program, please report it"
            )
        self.log.warning(difference.message)

    def _synchronise(self) -> None:
        """Waits for the steps not yet looked at, which is time of theirs; none of them had instruments."""
        if self._pending:
            began = self._clock()
            self._pending.take_in(self.progress)
            self._spend(self._clock() - began, plain=True)

    # ------------------------------------------------------------------------------------------- stages

    def _enter_stage(self) -> None:
        self.meter.end_steps()
        stage = self.assembly.plan.stages[self.progress.stage]
        self._tools = self.assembly.enter(stage)
        self.drop_cache()
        cached = self._cache.read if self._cache is not None and stage.cached else None
        self._training_step = TrainingStep(self.assembly, self._tools, self.collectives, cached)
        self.meter.enter_stage()
        if len(self.progress.stages) <= self.progress.stage:
            self.progress.stages.append(
                {
                    "name": stage.name,
                    "active_blocks": list(stage.active_blocks),
                    "trainable_params": sum(parameter.numel() for parameter in self._tools.parameters),
                    "tokens": 0,
                    "flops_counted": 0,
                    "flops_modelled": 0,
                    "saved_activation_bytes": None,
                }
            )

    def _fill_cache(self) -> Records:
        """Runs the frozen prefix of a cached stage over the train split, before the stage's first step in this attempt.

        It is a part of training, in FLOPs and in time. An attempt that continues inside a stage does it again, to the
        same end; the FLOPs that count are those of a run that was not interrupted.
        """
        stage, cache, progress = self._tools.stage, self._cache, self.progress
        if cache is None or not stage.cached or cache.filled:
            return
        self.meter.end_steps()
        began = self._clock()
        flops = yield from self._while_alive(cache.fill(stage, self._tools.objective, self._evaluator.batch_windows))
        progress.seconds.train += self._clock() - began
        self.log.info(f"{stage.name}: the frozen prefix is cached, {cache.size} bytes for {flops} FLOPs")
        if progress.stage_step:
            return
        windows, cost = self.assembly.order.windows_per_epoch, self._planned[progress.stage]
        planned = windows * cost.prefix_per_sequence
        if flops != planned:
            self.log.warning(f"filling the cache costs {flops} FLOPs and was planned with {planned}")
        progress.flops.add(Flops(forward=flops))
        progress.flops_cache += flops
        progress.stages[-1]["flops_counted"] += flops
        progress.stages[-1]["flops_modelled"] += round(windows * cost.modelled_prefix_per_sequence)

    def _warm_up(self) -> Records:
        """Compiles the stage's passes, before its first step in this attempt; no part of training, in FLOPs or time."""
        if self._training_step.warm:
            return
        self._synchronise()
        self.meter.end_steps()
        stage, doing = self._tools.stage.name, "compiling" if self.training.compile else "warming up"
        self.log.info(f"{stage}: {doing}")
        yield replace(self.record({}), doing=f"{doing} {stage}")
        began = self._clock()
        self._training_step.warm_up(self._budget.sequences(self.progress))
        self.collectives.sum_number(0)  # else a worker that compiles longer is time of the others' first step
        seconds = self._clock() - began
        self.progress.seconds.compile += seconds
        self.log.info(f"{stage}: {doing} took {seconds:.1f} s")

    def drop_cache(self) -> None:
        """Removes the cache of the frozen prefix where there is one."""
        if self._cache is not None:
            self._cache.drop()

    # ---------------------------------------------------------------------------------------- looking and telling

    def _checkpoint_due(self) -> bool:
        due = self.assembly.rank == 0 and self._writer.due()
        return self.assembly.parallelism.checkpoint_due(due, self.assembly.rank, self.collectives)

    def _evaluate(self) -> Records:
        """Validates on the fixed windows and reports."""
        self._synchronise()
        metrics = yield from self.timed_evaluation(self._evaluator.validate(self._tools.objective))
        self._budget.evaluated(self.progress)
        mean = self.progress.since_evaluation.mean
        if mean is not None:
            self.progress.latest["train/loss"] = mean
        self.progress.since_evaluation = LossMean()
        yield self._report(metrics)

    def _without_finish_due(self) -> bool:
        """Whether the finish is about to begin and what it starts from was not scored yet (a killed run may have)."""
        stage = self.assembly.plan.stages[self.progress.stage]
        begins = stage.finishes and self.progress.stage_step == 0
        return begins and f"validation/loss{WITHOUT_FINISH}" not in self.progress.latest

    def timed_evaluation(
        self, evaluation: Generator[None, None, dict[str, float]]
    ) -> Generator[MetricRecord, None, dict[str, float]]:
        """Runs an evaluation, showing signs of life; its metrics become the latest."""
        self.meter.end_steps()
        began = self._clock()
        metrics = yield from self._while_alive(evaluation)
        self.progress.flops_evaluation += self.meter.take_evaluation_flops()
        self.progress.seconds.evaluation += self._clock() - began
        self.progress.latest.update(metrics)
        return metrics

    def _while_alive(self, work: Generator[None, None, Result]) -> Generator[MetricRecord, None, Result]:
        """Does work that yields now and then, showing signs of life."""
        while True:
            try:
                next(work)
            except StopIteration as end:
                result: Result = end.value
                return result
            if self._clock() - self._last_report >= max(self.training.report_seconds, 1.0):
                self._last_report = self._clock()
                yield self.record({})

    def score_whole_splits(self) -> Records:
        """The final evaluation: exact perplexities of the validation and test splits, where there are both.

        Raises:
            TrialError: The objective is not next-token prediction, which alone has a split's exact likelihood.
        """
        if not self._tools.objective.left_to_right:
            raise TrialError("data.final_evaluation = full needs a model that reads from left to right; write fixed")
        for split in self.assembly.data.held_out:
            yield from self.timed_evaluation(self._evaluator.whole_split(split))

    def finish_components(self) -> Records:
        """The work of the model's components after the last step, each once."""
        scorer = ComponentScorer(evaluator=self._evaluator, objective=self._tools.objective)
        for name, component in attached(self.assembly.model).items():
            if name not in self.progress.done_after:
                yield from self.timed_evaluation(component.after_training(scorer))
                self.progress.done_after.append(name)

    def score_masked_ratios(self) -> Records:
        """The final evaluation of a model that fills in masks: its loss at fixed shares of masked positions."""
        yield from self.timed_evaluation(self._evaluator.masked_ratios())

    def _report(self, extra: Mapping[str, float] | None = None) -> MetricRecord:
        """What is reported now: the mean train loss since the last report, rates, and `extra`."""
        self._synchronise()
        progress = self.progress
        metrics: dict[str, float] = {}
        for name in ("train/lr", "train/grad_norm"):
            if name in progress.latest:
                metrics[name] = progress.latest[name]
        if progress.since_report.mean is not None:
            metrics["train/loss"] = progress.since_report.mean
        if self._report_seconds:
            metrics["throughput/tokens_per_s"] = self._report_tokens / self._report_seconds
        progress.since_report = LossMean()
        self._report_tokens, self._report_seconds = 0, 0.0
        self._last_report = self._clock()
        return self.record({**metrics, **(extra or {})})

    def record(self, metrics: Mapping[str, float]) -> MetricRecord:
        """A record of now; one without metrics is a sign of life."""
        progress = self.progress
        return MetricRecord(
            trial_id=self._trial_id,
            attempt=self._attempt,
            step=progress.step,
            tokens=progress.tokens,
            flops=progress.flops.training,
            time=time.time(),
            metrics={**metrics, "progress": self._budget.share(self.progress)} if metrics else {},
        )

    def final_metrics(self) -> dict[str, float]:
        """The final value of every metric that was measured."""
        self._synchronise()
        self._count_total_seconds()
        return final_metrics(self.progress, self.meter, self.assembly.model, self._budget.share(self.progress))

    # ------------------------------------------------------------------------------------------------ checkpoints

    def save(self) -> None:
        """Copies a checkpoint of now, after looking at every step before it; it is written while training goes on.

        Raises:
            DiskFullError, StaleAttemptError: The checkpoint before could not be written.
        """
        self._synchronise()
        self.meter.end_steps()
        with self._waiting_for_checkpoints() as began:
            self._writer.wait()  # first: its copy is freed before another is made
            self._count_total_seconds()
            if self.assembly.parallelism.gathers_checkpoints or self.assembly.rank == 0:
                checkpoint = self._checkpoint()
                if self.assembly.rank == 0:
                    self._writer.write(checkpoint, began=began)

    def finish_checkpoints(self) -> None:
        """Waits until the last checkpoint is there.

        Raises:
            DiskFullError, StaleAttemptError: It could not be written.
        """
        with self._waiting_for_checkpoints():
            self._writer.wait()

    @contextlib.contextmanager
    def _waiting_for_checkpoints(self) -> Iterator[float]:
        """Counts the time inside, when training waits; gives its beginning."""
        began = self._clock()
        yield began
        self.progress.seconds.checkpoint += self._clock() - began

    def close(self) -> None:
        """Leaves neither a thread nor a cache: this process may train other trials."""
        self.drop_cache()
        failure = self._writer.close()
        if failure is not None:
            with contextlib.suppress(DiskFullError):  # then there is no room for the line, either
                self.log.warning(f"the last checkpoint could not be written: {failure}")

    def _count_total_seconds(self) -> None:
        self.progress.seconds.total = self._total_before + self._clock() - self._attempt_start

    def _checkpoint(self) -> Checkpoint:
        state = capture(self.assembly, self._tools)
        plain = {
            "trial_id": self._trial_id,
            "progress": self.progress.to_plain(),
            "meter": self.meter.to_plain(),
            "torch": state.plain,
            "bit_exact": self.bit_exact,
            "components": {name: one.state() for name, one in attached(self.assembly.model).items()},
        }
        return Checkpoint(step=self.progress.step, tensors=state.tensors, state=plain)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from a checkpoint.

        Raises:
            CheckpointError: It is of another model.
        """
        self.progress = TrainingProgress.from_plain(checkpoint.state["progress"])
        self._total_before = self.progress.seconds.total
        self._enter_stage()
        self.meter.restore(checkpoint.state["meter"])
        same = restore(checkpoint, self.assembly, self._tools)
        for name, component in attached(self.assembly.model).items():
            component.restore(checkpoint.state["components"][name])
        self.bit_exact = same and checkpoint.state["bit_exact"]
