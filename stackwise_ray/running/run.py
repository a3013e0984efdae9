"""Runs one trial in its folder: the function that the sweep's workers and `train` call.

`run_trial` is a generator of metric records; what it returns is the trial's result. It continues from the newest intact
checkpoint. It writes every file atomically, and only while no newer attempt has taken over. It turns what a trial can
do wrong into `TrialError`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.calibration_store import Calibration, CalibrationKey, Sample
from stackwise_ray.core.device_errors import is_out_of_memory, spoils_process
from stackwise_ray.core.environment import describe_environment
from stackwise_ray.core.errors import DeviceLostError, DiskFullError, TrialError
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.data import PreparedData, prepare
from stackwise_ray.kernels import passed_over
from stackwise_ray.models.component import write_components
from stackwise_ray.models.growth.adapters import merge_adapters
from stackwise_ray.models.sizes import describe_parameters
from stackwise_ray.planning.calibration_key import backend_of, calibration_key
from stackwise_ray.planning.counted_costs import stage_bytes, stage_flops
from stackwise_ray.planning.micro_batch import fitted_accumulation
from stackwise_ray.planning.trial_plan import (
    cache_windows,
    planned_steps,
    split_by_cost,
    wants_full_evaluation,
)
from stackwise_ray.training.assembly import Assembly, assemble, choose_device, deterministic, float32_products
from stackwise_ray.training.checkpoints import clear_unfinished, load_newest, save_checkpoint
from stackwise_ray.training.device_facts import read_facts
from stackwise_ray.training.initial import initial_fingerprint, initial_metrics
from stackwise_ray.training.loop import TrainingLoop
from stackwise_ray.training.parallel.collectives import Alone, Collectives, TorchCollectives
from stackwise_ray.training.prefix_cache import PrefixCache
from stackwise_ray.training.stabilisers import fold_gains
from stackwise_ray.training.trial_folder import (
    TrialFolder,
    TrialLog,
    TrialResult,
    attempt_fence,
    finished_result,
    unwritable_is_named,
)

__all__ = ["TrialResult", "run_trial"]

Run = Generator[MetricRecord, None, TrialResult]


def run_trial(
    trial: TrialConfig,
    directory: Path,
    *,
    trial_id: str,
    attempt: int,
    data: PreparedData | None = None,
    data_fingerprint: str | None = None,
    weights_fingerprint: str | None = None,
    rank: int = 0,
    world_size: int = 1,
    collectives: Collectives | None = None,
    final_evaluation: bool = True,
    keep_model: bool = True,
    calibrate: bool = True,
    gpus: float | None = None,
) -> Run:
    """Trains a trial to the end of its budget, from its newest checkpoint on.

    If the trial has already finished, the result in its folder is returned. If a `KeyboardInterrupt` is thrown in at a
    yield, the generator writes a checkpoint and raises the exception again. If it is closed, it writes nothing.

    Args:
        directory: The trial's own folder; made where it is missing.
        attempt: Number of this attempt; a file ``attempt`` in the folder with another number means that a newer one
            has taken over, and then nothing more is written.
        data: Prepared data; None: prepared here, from the cache where it is there.
        data_fingerprint: The fingerprint that the data must have; None: not checked.
        weights_fingerprint: The fingerprint that the initial weights must have; None: not checked.
        rank, world_size: This worker among the workers of the trial, which all call this function alike.
        collectives: Sums over the workers; None: those of the default group of `torch.distributed`.
        final_evaluation: Whether whole splits may be scored at the end (replicates); `data.final_evaluation` decides.
        keep_model: Whether the final weights are written to ``model/``.
        calibrate: Whether what the run measured is stored for later plans on this machine.
        gpus: GPUs that this worker was given (see `choose_device`).

    Yields:
        Records: at least about every `training.report_seconds`, and one at each evaluation, with ``progress`` in
        [0, 1] among the metrics. One without metrics is a sign of life. Only the records of the first worker are used.

    Returns:
        The result, which is also in ``outputs/metrics.json``.

    Raises:
        TrialError: The trial failed by its own doing: loss or gradient not finite, out of memory, a leak, no intact
            checkpoint left, other data or initial weights than planned.
        DeviceLostError: This process cannot use its device again; another one can continue the trial.
        DiskFullError: The disk filled up; nothing is half-written.
        StaleAttemptError: A newer attempt has taken over.
        ConfigError: What was asked contradicts itself.
    """
    started = time.perf_counter()
    directory = Path(directory)
    known = finished_result(directory, trial_id)
    if known is not None:
        if rank == 0:
            TrialFolder(directory, attempt_fence(directory, attempt)).clear()
        yield _last_record(trial_id, attempt, known)
        return known
    with unwritable_is_named(directory):
        directory.mkdir(parents=True, exist_ok=True)
    device = choose_device(trial.training.device, gpus=gpus)
    if collectives is None:
        collectives = Alone() if world_size == 1 else TorchCollectives(device)
    log = TrialLog(directory, enabled=rank == 0)
    with log, deterministic(device), float32_products(trial, device), _own_failures(log):
        if data is None:
            data = prepare(trial.data)
        if data_fingerprint is not None and data.fingerprint != data_fingerprint:
            raise TrialError(
                f"the data on this worker have the fingerprint {data.fingerprint[:12]}, but the trial was planned on "
                f"{data_fingerprint[:12]}; give every node the same source (another Python has another "
                "standard library)"
            )
        started_from = initial_fingerprint(trial)
        if weights_fingerprint is not None and started_from != weights_fingerprint:
            raise TrialError(
                f"the initial weights have the fingerprint {(started_from or 'none')[:12]}, but the trial "
                f"was planned on {weights_fingerprint[:12]}: they have changed since; restore them, or run the sweep "
                "command again"
            )
        resident = psutil.Process().memory_info().rss
        worker = _Worker(trial, directory, trial_id, attempt, device, collectives, log, started, gpus)
        return (yield from worker.run(data, rank, world_size, final_evaluation, keep_model, calibrate, resident))


class _Worker:
    """One attempt on one worker: what `run_trial` does once data, device and folder are there."""

    def __init__(
        self,
        trial: TrialConfig,
        directory: Path,
        trial_id: str,
        attempt: int,
        device: torch.device,
        collectives: Collectives,
        log: TrialLog,
        started: float,
        gpus: float | None,
    ) -> None:
        self._gpus = gpus
        self._trial, self._trial_id, self._attempt, self._device = trial, trial_id, attempt, device
        self._collectives, self._log, self._started = collectives, log, started
        self._folder = TrialFolder(directory, attempt_fence(directory, attempt))

    def run(
        self,
        data: PreparedData,
        rank: int,
        world_size: int,
        final_evaluation: bool,
        keep_model: bool,
        calibrate: bool,
        resident: int,
    ) -> Run:
        """Builds, restores, trains, evaluates and writes."""
        accumulation = fitted_accumulation(
            self._trial, vocab_size=data.vocab_size, special_ids=data.special_ids, world_size=world_size
        )
        assembly = assemble(self._trial, data, self._device, rank, world_size, accumulation=accumulation)
        environment = self._environment(assembly)
        loop = self._build_loop(assembly)
        self._restore(loop, rank)
        environment["bit_exact"] = loop.bit_exact
        if rank == 0:
            self._folder.write_start(self._trial, environment, data.describe())
            model, seq_len = self._trial.model, self._trial.data.seq_len
            self._log.info(describe_parameters(model, vocab_size=data.vocab_size, seq_len=seq_len))
        startup = time.perf_counter() - self._started
        loop.progress.seconds.build += startup
        compiled_before = loop.progress.seconds.compile
        try:
            yield from loop.train()
            yield from loop.finish_components()
            if wants_full_evaluation(assembly.trial, final_evaluation):
                yield from loop.score_whole_splits()
            if assembly.trial.fills_masks:
                yield from loop.score_masked_ratios()
            loop.finish_checkpoints()
        except KeyboardInterrupt:
            if loop.at_rest and not assembly.parallelism.gathers_checkpoints:  # this worker alone was asked
                loop.save()
                loop.finish_checkpoints()
                self._log.info(f"interrupted after step {loop.progress.step}; a checkpoint is there")
            raise
        finally:
            loop.close()
        if keep_model or assembly.plan.stages[-1].trainable.adapters:  # which are merged into whole matrices
            assembly.parallelism.make_whole()
        fold_gains(assembly.model)
        merge_adapters(assembly.model)
        write_components(assembly.model, assembly.trial.model.components)
        metrics = {**loop.final_metrics(), **initial_metrics(self._trial)}
        limit, peak = assembly.trial.training.memory_bytes, metrics.get("memory/peak_bytes")
        if limit is not None and peak is not None and peak > limit:
            self._log.warning(f"a step took {peak:.0f} bytes at its peak, more than training.memory_bytes = {limit}")
        result = TrialResult(metrics=metrics, directory=self._folder.directory, environment=environment)
        if rank == 0:
            if keep_model:
                self._folder.write_model(assembly.model, data.tokenizer)
            self._folder.write_end(self._trial, self._trial_id, metrics, loop.progress.stages, environment)
            self._folder.clear()
            startup += loop.progress.seconds.compile - compiled_before
            if calibrate:
                self._calibrate(assembly, environment, metrics, startup, resident)
            self._log.info(f"finished after step {loop.progress.step}")
        yield loop.record(metrics)
        return result

    def _build_loop(self, assembly: Assembly) -> TrainingLoop:
        trial, data = assembly.trial, assembly.data
        flops = [
            stage_flops(trial, stage, vocab_size=data.vocab_size, special_ids=data.special_ids)
            for stage in assembly.plan.stages
        ]
        assembly = replace(assembly, plan=split_by_cost(trial, assembly.plan, flops))
        windows = cache_windows(trial, data.splits["train"].n_tokens)
        cache = None
        if windows:
            cache = PrefixCache(assembly, self._collectives, self._folder.directory, self._attempt)
            cache.check_room()
            self._log.info(f"the cache of the frozen prefix: {windows} windows, {cache.size} bytes")
        return TrainingLoop(
            assembly,
            cache=cache,
            steps=planned_steps(trial, assembly.plan, flops, windows),
            planned=flops,
            trial_id=self._trial_id,
            attempt=self._attempt,
            collectives=self._collectives,
            log=self._log,
            save=partial(save_checkpoint, self._folder.checkpoints, fence=self._folder.fence),
            started=self._started,
        )

    def _restore(self, loop: TrainingLoop, rank: int) -> None:
        """Goes on from the newest intact checkpoint where there is one."""
        if rank == 0:
            self._folder.fence()
            clear_unfinished(self._folder.checkpoints)
        checkpoint = load_newest(self._folder.checkpoints, trial_id=self._trial_id, warn=self._log.warning)
        if checkpoint is None:
            self._log.info(f"attempt {self._attempt} begins")
            return
        loop.restore(checkpoint)
        self._log.info(f"attempt {self._attempt} continues after step {checkpoint.step}")
        if not loop.bit_exact:
            self._log.warning("threads, workers or device differ from before: the continuation is not bit-exact")

    def _calibrate(
        self,
        assembly: Assembly,
        environment: Mapping[str, Any],
        metrics: Mapping[str, float],
        startup: float,
        resident: int,
    ) -> None:
        """Stores what this run measured, for the hours and bytes of later plans; never a reason to fail."""
        calibration = Calibration()
        try:
            sample = self._sample(calibration, assembly, environment, metrics, startup, resident)
            calibration.add(self._kind(environment), sample)
        except (OSError, DiskFullError, ValueError) as error:
            self._log.warning(f"the calibration at {calibration.path} could not be written: {error}")

    def _kind(self, environment: Mapping[str, Any]) -> CalibrationKey:
        return calibration_key(
            self._trial,
            device=environment["device"],
            threads=environment["threads"],
            backend=environment.get("backend"),
            gpu_share=environment.get("gpu_share", 1.0),
        )

    def _sample(
        self,
        calibration: Calibration,
        assembly: Assembly,
        environment: Mapping[str, Any],
        metrics: Mapping[str, float],
        startup: float,
        resident: int,
    ) -> Sample:
        trial, size = assembly.trial, metrics["flops/step"]
        rate = metrics.get("throughput/tokens_per_s")
        known = calibration.measured(self._kind(environment), size)
        ratio = None
        if "memory/peak_bytes" in metrics and (known is None or known.memory_ratio is None):
            data = assembly.data
            planned = max(
                stage_bytes(trial, stage, vocab_size=data.vocab_size, special_ids=data.special_ids).live_peak
                for stage in assembly.plan.stages
            )
            ratio = metrics["memory/peak_bytes"] / planned
        steps = metrics["flops/total"] - metrics.get("flops/cache", 0.0)  # the rate is that of steps alone
        return Sample(
            flops_per_step=size,
            flops_per_s=rate * steps / metrics["tokens/total"] if rate else None,
            startup_s=startup,
            baseline_bytes=resident,
            memory_ratio=ratio,
        )

    def _environment(self, assembly: Assembly) -> dict[str, Any]:
        environment = describe_environment()
        environment["device"] = _device_name(self._device)
        environment["threads"] = torch.get_num_threads()
        environment["workers"] = assembly.world_size
        environment["data_fingerprint"] = assembly.data.fingerprint
        started_from = initial_fingerprint(self._trial)
        if started_from is not None:
            environment["weights_fingerprint"] = started_from
        backend = backend_of(assembly.trial, self._device.type)
        if self._device.type == "cuda":
            environment |= self._gpu_record(assembly, resolvent=backend is not None)
        if backend is not None:
            environment["backend"] = backend
            for name, reason in passed_over(backend, self._device.type).items():
                self._log.warning(f"the kernels run in the {backend} backend, not in {name}: {reason}")
        return environment

    def _gpu_record(self, assembly: Assembly, *, resolvent: bool) -> dict[str, Any]:
        """What the GPU is, how many of them and which share of each the trial has, and what it computes slowly."""
        facts = read_facts(self._device)
        remarks = facts.remarks(precision=assembly.trial.training.precision, resolvent=resolvent)
        for remark in remarks.values():
            self._log.warning(remark)
        share = {} if self._gpus is None else {"gpu_share": min(1.0, self._gpus)}
        slow = {"computes_slowly": ", ".join(remarks)} if remarks else {}
        return {**facts.record(), "gpus": assembly.world_size, **share, **slow}


def _device_name(device: torch.device) -> str:
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


@contextlib.contextmanager
def _own_failures(log: TrialLog) -> Iterator[None]:
    """Turns running out of memory into a trial's failure and a lost device into its error; logs why a trial ends."""
    try:
        yield
    except TrialError as error:
        log.warning(f"failed: {error}")
        raise
    except (MemoryError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no memory is left"
        if not is_out_of_memory(error):
            if not spoils_process(error):
                raise
            log.warning(f"this process cannot use its device again: {reason}")
            raise DeviceLostError(reason) from error
        message = (
            f"out of memory: {reason}; raise training.accumulation, lower training.memory_bytes, or set "
            "training.activation_checkpointing"
        )
        log.warning(f"failed: {message}")
        raise TrialError(message) from error


def _last_record(trial_id: str, attempt: int, result: TrialResult) -> MetricRecord:
    metrics = result.metrics
    return MetricRecord(
        trial_id=trial_id,
        attempt=attempt,
        step=int(metrics["steps/total"]),
        tokens=int(metrics["tokens/total"]),
        flops=int(metrics["flops/total"]),
        time=time.time(),
        metrics=metrics,
    )
