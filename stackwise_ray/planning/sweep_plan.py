"""What a sweep would run and what it would cost, before anything runs: `--plan`, `plan.json`, `sw.plan`.

One row per cell (an arm in one role). FLOPs are counted on the meta device, and steps follow from these counts. Hours
and peak memory come from measurements of this machine (`core.calibration_store`), and are absent without them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.calibration_store import Calibration
from stackwise_ray.core.callbacks import ProgressCallback
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.prompt import as_html, as_text
from stackwise_ray.core.quantities import format_bytes, format_count, format_seconds
from stackwise_ray.core.records import Role
from stackwise_ray.flags import apply_flags
from stackwise_ray.planning.calibration_key import calibration_key
from stackwise_ray.planning.plan_device import CPU, PlanDevice
from stackwise_ray.planning.preparation import DataFacts
from stackwise_ray.training.initial import charged, check_tokenizer

if TYPE_CHECKING:
    from stackwise_ray.planning.trial_plan import PlannedStage

SEARCH_CELLS = ("search", "winners")
"""The cells of a search: its points, and the replicates of the best ones."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """An arm in one role: what one row of a plan is about.

    Attributes:
        trial: One trial of the cell; its seed does not matter to the cost.
        trials: Most trials of the cell in the sweep (replicates, tuning trials or search trials).
        trials_least: Fewest trials, if the number is open (adaptive replicates); else None.
        data: The facts of the data on which the cost depends.
    """

    arm: str
    role: Role
    trial: TrialConfig
    trials: int
    data: DataFacts
    trials_least: int | None = None


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """The cost of one cell; FLOPs and tokens are those of one trial.

    Attributes:
        trials, trials_least: As in `Cell`.
        flops_forward_per_token: Counted FLOPs of the forward pass, per token.
        flops_backward_per_token: The same of the backward pass.
        flops_optimizer_per_step: FLOPs of one optimizer step.
        steps: Optimizer steps of the whole budget; None where the budget is wall-clock time.
        flops: Training FLOPs of the whole budget, exactly the run's `flops/total`. If components make steps differ in
            cost: the most.
        flops_least, steps_most: In that case the fewest FLOPs, and the most steps; else None.
        seconds: Predicted wall time of one trial; None: not calibrated.
        peak_bytes: Predicted peak of live tensors; None: not calibrated.
        disk_bytes: Two checkpoints, the final model and a cache.
        cache_bytes: Of these, the cache of a frozen prefix; None: the trial has none.
        vocabulary: Both parameter counts in words, if the published size has another vocabulary; else None.
        refused: Why this cell cannot run; then the counts are None.
        whole_splits: Whether a trial scores whole splits at its end.
        stages: Names, shares of the budget and steps of a trial's stages.
        charged: The part of the budget, in its unit, that pays for the checkpoint that a trial starts from.
        done: Trials of the cell that have ended; they are among `trials`.
        device: "cpu", the name of the GPU, or "cuda" for a GPU of unknown name: what `seconds` and `peak_bytes` are of.
    """

    arm: str
    role: Role
    trials: int
    budget: Mapping[str, float]
    params: int | None = None
    params_non_embedding: int | None = None
    flops_forward_per_token: float | None = None
    flops_backward_per_token: float | None = None
    flops_optimizer_per_step: int | None = None
    steps: int | None = None
    tokens: int | None = None
    flops: int | None = None
    flops_evaluation: int | None = None
    seconds: float | None = None
    peak_bytes: float | None = None
    disk_bytes: int | None = None
    cache_bytes: int | None = None
    vocabulary: str | None = None
    refused: str | None = None
    trials_least: int | None = None
    whole_splits: bool = False
    stages: tuple[PlannedStage, ...] = ()
    charged: float | None = None
    flops_least: int | None = None
    steps_most: int | None = None
    device: str | None = None
    done: int = 0

    @property
    def name(self) -> str:
        """The arm, with its role where these are neither its replicates nor the points of a search."""
        return self.arm if self.role in ("replicate", "search") else f"{self.arm} ({self.role})"

    @property
    def predicted(self) -> dict[str, float | None]:
        """FLOPs, seconds and peak bytes that are predicted for one trial; the journal stores them before it runs."""
        return {"flops": self.flops, "seconds": self.seconds, "peak_bytes": self.peak_bytes}

    @property
    def trials_text(self) -> str:
        """The number of trials, or the least and the most; of them, how many have ended."""
        text = str(self.trials) if self.trials_least is None else f"{self.trials_least}–{self.trials}"
        return f"{text} ({self.done} done)" if self.done else text

    @property
    def left(self) -> PlanRow:
        """The same row without the trials that have ended."""
        least = None if self.trials_least is None else max(0, self.trials_least - self.done)
        return replace(self, trials=max(0, self.trials - self.done), trials_least=least, done=0)


_COLUMNS = ("arm", "trials", "parameters", "steps", "tokens", "training FLOPs", "time per trial", "peak memory")


@dataclass(frozen=True, kw_only=True, repr=False)
class SweepPlan:
    """One row per cell, and the totals of the sweep: those of the most trials that it may have (`least`: the fewest).

    Attributes:
        slots: Trials that run at once; the hours are divided by it.
        seeds_possible: First number of seeds at which adaptive replicates can decide; None: replicates are fixed.
        notes: Lines that a reader should see, e.g. that the learning rate is not tuned.
        start_seconds: Seconds from the command to the first report of a trial, as measured in earlier sweeps on this
            machine. No other number here includes them. None: not measured.
        sweep: Whether Ray runs it; else it is one trial in the process of `train`.
    """

    name: str
    rows: tuple[PlanRow, ...]
    slots: int
    notes: tuple[str, ...] = ()
    seeds_possible: int | None = None
    start_seconds: float | None = None
    sweep: bool = True

    @property
    def done(self) -> int:
        """Trials that have ended."""
        return sum(row.done for row in self.rows)

    @property
    def left(self) -> SweepPlan:
        """The same plan without the trials that have ended."""
        return replace(self, rows=tuple(row.left for row in self.rows))

    def with_done(self, ended: Mapping[tuple[str, Role], int]) -> SweepPlan:
        """The same plan with this number of ended trials per (arm, role)."""
        done: Counter[tuple[str, Role]] = Counter()
        for (arm, role), count in ended.items():
            done[self.row(arm, role).arm, role] += count
        return replace(self, rows=tuple(replace(row, done=done[row.arm, row.role]) for row in self.rows))

    @property
    def least(self) -> SweepPlan | None:
        """The same plan with the least of every open number of trials; None where none is open."""
        if self.seeds_possible is None:
            return None
        rows = (replace(row, trials=row.trials_least or row.trials, trials_least=None) for row in self.rows)
        return replace(self, rows=tuple(rows), seeds_possible=None)

    @property
    def refused(self) -> tuple[PlanRow, ...]:
        """The cells that cannot run."""
        return tuple(row for row in self.rows if row.refused is not None)

    def row(self, arm: str, role: Role) -> PlanRow:
        """The row of a trial; all points of a search have one row, and so have their replicates.

        Raises:
            KeyError: The plan has no such trial.
        """
        rows = [row for row in self.rows if row.role == role]
        found = next((row for row in rows if row.arm == arm), None)
        if found is None and len(rows) == 1 and rows[0].arm in SEARCH_CELLS:
            found = rows[0]
        if found is None:
            raise KeyError(f"{arm} ({role})")
        return found

    @property
    def trials(self) -> int:
        """Trials in all, without those that are refused."""
        return sum(row.trials for row in self.rows if row.refused is None)

    @property
    def flops(self) -> int | None:
        """Training FLOPs of the whole sweep; None: open, since a cell has a budget of time."""
        return None if any(row.flops is None for row in self.accepted) else self.known_flops

    @property
    def known_flops(self) -> int:
        """The same of the cells whose FLOPs are planned."""
        return sum(row.trials * row.flops for row in self.rows if row.flops is not None)

    @property
    def seconds(self) -> float | None:
        """Predicted wall time of the whole sweep on this machine, without `start_seconds`; None: not calibrated."""
        return None if any(row.seconds is None for row in self.accepted) else self.known_seconds

    @property
    def known_seconds(self) -> float | None:
        """The same of the cells whose time is predicted; None: none is."""
        known = [row.trials * row.seconds for row in self.rows if row.seconds is not None]
        return sum(known) / max(1, self.slots) if known else None

    @property
    def accepted(self) -> list[PlanRow]:
        """The cells that can run."""
        return [row for row in self.rows if row.refused is None]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data: `plan.json`."""
        rows = [asdict(row) | {"budget": dict(row.budget)} for row in self.rows]
        return {
            "name": self.name,
            "slots": self.slots,
            "notes": list(self.notes),
            "totals": self._totals(),
            "totals_least": None if self.least is None else self.least._totals(),
            "totals_left": self.left._totals() if self.done else None,
            "seeds_possible": self.seeds_possible,
            "start_seconds": self.start_seconds,
            "rows": rows,
        }

    def __repr__(self) -> str:
        return as_text(self._title, [_COLUMNS, *self._cells()], self._remarks())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(self._title, self._cells(), self._remarks(), head=_COLUMNS)

    @property
    def _title(self) -> str:
        took = f", about {format_seconds(self.left.known_seconds)}" if self.left.known_seconds else ""
        return f"plan of {self.name}: {self.left.trials} trials to run, {self.slots} at once{took}"

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (row.name, "0", "refused", *[""] * 5)
            if row.refused is not None
            else (
                row.name,
                row.trials_text,
                *(_shown(value, format_count) for value in (row.params, row.steps, row.tokens, row.flops)),
                _shown(row.seconds, format_seconds),
                _shown(row.peak_bytes, format_bytes),
            )
            for row in self.rows
        ]

    def _remarks(self) -> list[str]:
        return [*(f"refused: {row.name}: {row.refused}" for row in self.refused), *self.notes]

    def _totals(self) -> dict[str, float | None]:
        return {"trials": self.trials, "flops": self.flops, "seconds": self.seconds}


def _shown(value: float | None, text: Callable[[float], str]) -> str:
    return "—" if value is None else text(value)


def plan_cells(
    name: str,
    cells: Sequence[Cell],
    *,
    slots: int,
    threads: int,
    gpus: float = 0,
    notes: Iterable[str] = (),
    progress: ProgressCallback | None = None,
) -> SweepPlan:
    """Count and solve every cell; one that cannot run becomes a refused row.

    Args:
        slots: Trials at once.
        threads: torch threads per trial, a key of the calibration.
        gpus: GPUs that each worker of a trial is given; 0: the CPU.
        progress: Called with how many cells are planned.
    """
    calibration = Calibration()
    device = PlanDevice.given(gpus, calibration)
    rows = []
    for number, cell in enumerate(cells):
        if progress is not None:
            progress(f"planning {name}", number, len(cells))
        rows.append(_row(cell, calibration, threads, device.of(cell.trial)))
    elsewhere = {row.device for row in rows if row.seconds is not None} - {CPU, None} if not device.here else ()
    said = [f"times on a GPU are those of another machine's {name}" for name in elsewhere]
    said += dict.fromkeys(remark for cell in cells for remark in cell.data.remarks)
    return SweepPlan(
        name=name, rows=tuple(rows), slots=slots, notes=(*said, *notes), start_seconds=calibration.start_seconds()
    )


def _row(cell: Cell, calibration: Calibration, threads: int, device: PlanDevice) -> PlanRow:
    from stackwise_ray.planning.trial_plan import (
        plan_trial,
        wants_full_evaluation,
    )  # torch: seconds that the driver spends beside starting Ray

    trial = cell.trial
    budget = {unit: value for unit, value in asdict(trial.training.budget).items() if value is not None}
    known = PlanRow(arm=cell.arm, role=cell.role, trials=cell.trials, trials_least=cell.trials_least, budget=budget)
    whole_splits = wants_full_evaluation(trial, cell.role == "replicate")
    data = cell.data
    if data.vocab_size is None or (data.split_tokens is None and apply_flags(trial).training.cache):
        return replace(known, whole_splits=whole_splits, device=device.name)  # what it costs follows from the data
    try:
        if data.tokenizer is not None:
            check_tokenizer(trial, data.tokenizer)
        cost = plan_trial(
            trial,
            vocab_size=data.vocab_size,
            special_ids=data.special_ids,
            split_tokens=data.split_tokens,
            final_evaluation=cell.role == "replicate",
        )
    except ConfigError as error:
        return replace(known, trials_least=None, refused=str(error))
    differ = (cost.flops_least, cost.steps_most) != (cost.flops_total, cost.steps)
    backend = device.backend(trial)
    kind = calibration_key(trial, device=device.name, threads=threads, backend=backend, gpu_share=device.share)
    tokens_per_step = cost.full_step_sequences * trial.data.seq_len
    per_step = (
        tokens_per_step * (cost.flops_forward_per_token + cost.flops_backward_per_token) + cost.flops_optimizer_per_step
    )
    seconds = _wall_budget(trial)
    if cost.flops_total is not None:
        seconds = calibration.predict_seconds(
            kind,
            flops_per_step=per_step,
            flops_total=cost.flops_total,
            flops_evaluation=cost.flops_evaluation or 0,
        )
    peak = calibration.predict_peak_bytes(kind, flops_per_step=per_step, live_peak_bytes=cost.live_peak_bytes)
    return replace(
        known,
        params=cost.params,
        params_non_embedding=cost.params_non_embedding,
        flops_forward_per_token=cost.flops_forward_per_token,
        flops_backward_per_token=cost.flops_backward_per_token,
        flops_optimizer_per_step=cost.flops_optimizer_per_step,
        steps=cost.steps,
        tokens=cost.tokens_total,
        flops=cost.flops_total,
        flops_evaluation=None if data.split_tokens is None and whole_splits else cost.flops_evaluation,
        seconds=seconds,
        peak_bytes=peak,
        disk_bytes=cost.disk_bytes,
        cache_bytes=cost.cache_bytes or None,
        vocabulary=_both_counts(cell),
        whole_splits=whole_splits,
        stages=cost.stages,
        flops_least=cost.flops_least if differ else None,
        steps_most=cost.steps_most if differ else None,
        device=device.name,
        charged=(trial.training.budget.amount - charged(trial).training.budget.amount) or None,
    )


def _both_counts(cell: Cell) -> str | None:
    from stackwise_ray.models.sizes import describe_parameters, published_size

    model = cell.trial.model
    if published_size(model) is None or cell.role == "tuning":
        return None
    text = describe_parameters(model, vocab_size=cell.data.vocab_size or 0, seq_len=cell.trial.data.seq_len)
    return text if ";" in text else None


def _wall_budget(trial: TrialConfig) -> float | None:
    """Seconds of a budget that is given in seconds; its evaluations come on top and are not known in steps."""
    return charged(trial).training.budget.wall_seconds
