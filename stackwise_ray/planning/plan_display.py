"""A plan on a terminal: a table of the arms, a table of what their budgets buy, and notes below."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stackwise_ray.core.invocation import as_started
from stackwise_ray.core.quantities import format_bytes, format_count, format_seconds
from stackwise_ray.planning.plan_device import UNKNOWN_GPU
from stackwise_ray.planning.sweep_plan import PlanRow, SweepPlan

CHEAPER_EVALUATION = "fewer training.evaluations or data.validation_tokens"
NOT_CALIBRATED = f"not calibrated: run {as_started('doctor')}"
NO_GPU_CALIBRATED = f"not calibrated for a GPU: run {as_started('doctor')} on a machine that has one"


def plan_table(plan: SweepPlan) -> RenderableType:
    """The plan as two tables that fit 80 columns; only the reasons if every cell is refused."""
    arms = _table(_ARMS, title=f"Plan of {plan.name}")
    budgets = _table(_BUDGETS)
    for row in plan.rows:
        name = row.name
        if row.refused is None:
            costs = (row.flops_forward_per_token, row.flops_backward_per_token, row.flops_optimizer_per_step)
            arms.add_row(name, row.trials_text, *map(_count, (row.params, row.params_non_embedding, *costs)))
            budgets.add_row(
                name,
                *map(_count, (row.steps, row.tokens, row.flops, row.flops_evaluation)),
                "—" if row.seconds is None else format_seconds(row.seconds),
                "—" if row.peak_bytes is None else format_bytes(row.peak_bytes),
                "—" if row.disk_bytes is None else format_bytes(row.disk_bytes),
            )
    refused = [Text(f"refused: {row.name}: {row.refused}", style="red") for row in plan.refused]
    if not plan.accepted:
        return Group(*refused)
    return Group(arms, budgets, *refused, Text(_caption(plan)))


_ARMS = (
    "arm",
    "trials",
    "parameters",
    "without\nembeddings",
    "forward\nFLOPs/token",
    "backward\nFLOPs/token",
    "optimizer\nFLOPs/step",
)
_BUDGETS = ("arm", "steps", "tokens", "training\nFLOPs", "evaluation\nFLOPs", "time per\ntrial", "peak\nmemory", "disk")


def _table(columns: Sequence[str], title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="left" if name == "arm" else "right", no_wrap=name != "arm", vertical="bottom")
    return table


def _caption(plan: SweepPlan) -> str:
    """What is left to run, and below it what a reader must know beside the tables."""
    whole, plan = plan, plan.left
    ends = [plan] if plan.least is None else [plan.least, plan]
    trials = _many(plan.trials, "trial") if plan.least is None else f"{plan.least.trials} to {plan.trials} trials"
    if whole.done:
        trials = f"{whole.done} of {_many(whole.trials, 'trial')} have ended; {trials} left"
    total = f"{trials}, {_flops_text(plan, ends)}, {plan.slots} at once"
    seconds = [format_seconds(p.known_seconds) for p in ends if p.known_seconds is not None]
    total += f"; about {' to '.join(seconds)}" if seconds else ""
    untimed = [row.name for row in plan.accepted if row.seconds is None]
    total += f" without {', '.join(untimed)}" if seconds and untimed else ""
    total += f"\n{_start_text(plan)}" if plan.trials and plan.sweep else ""
    counts = [f"{row.arm}: {row.vocabulary}" for row in plan.rows if row.vocabulary is not None]
    counts += [
        f"{row.arm}: the cache of the frozen prefix takes {row.cache_bytes} bytes ({format_bytes(row.cache_bytes)})"
        for row in plan.rows
        if row.cache_bytes is not None
    ]
    counts += [text for row in plan.rows if (text := charged_text(row)) is not None]
    counts += [
        f"{row.arm}: components make steps differ in cost: {_count(row.flops_least)} to {_count(row.flops)} training "
        f"FLOPs in {_count(row.steps)} to {_count(row.steps_most)} steps; above are the costliest"
        for row in plan.rows
        if row.flops_least is not None
    ]
    dear = [row for row in plan.rows if (row.flops_evaluation or 0) > (row.flops or float("inf"))]
    if dear:
        arms = ", ".join(dict.fromkeys(row.arm for row in dear))
        fixed = "data.final_evaluation=fixed, " if any(row.whole_splits for row in dear) else ""
        total += f"\nevaluation costs more FLOPs than training ({arms}): try {fixed}{CHEAPER_EVALUATION}"
    return "\n".join([total, *counts, *_not_calibrated(plan), *plan.notes])


def _start_text(plan: SweepPlan) -> str:
    """What is not in the time: the start of Ray and of the processes."""
    if plan.start_seconds is None:
        return "the start of Ray and of the trials' processes comes on top (not measured on this machine yet)"
    took = format_seconds(plan.start_seconds)
    return f"the start of Ray and of the trials' processes comes on top: {took}, as measured on this machine"


def _flops_text(plan: SweepPlan, ends: Sequence[SweepPlan]) -> str:
    """The training FLOPs of the sweep: those that are planned, and whose are not."""
    open_ = [row for row in plan.accepted if row.flops is None]
    why = "a budget of time" if all("wall_seconds" in row.budget for row in open_) else "not counted"
    if len(open_) == len(plan.accepted):
        return f"training FLOPs open ({why})"
    known = " to ".join(format_count(end.known_flops) for end in ends) + " training FLOPs"
    return f"{known} without {', '.join(row.name for row in open_)} ({why})" if open_ else known


def _not_calibrated(plan: SweepPlan) -> list[str]:
    """What no measurement of this machine predicts, and of which cells where others are predicted."""
    lacking: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for what, column in (("time", "seconds"), ("peak", "peak_bytes")):
        rows = [row for row in plan.accepted if getattr(row, column) is None and row.params is not None]
        for unknown, why in ((False, NOT_CALIBRATED), (True, NO_GPU_CALIBRATED)):
            cells = tuple(row.name for row in rows if (row.device == UNKNOWN_GPU) is unknown)
            if cells:
                lacking.setdefault((cells, why), []).append(what)
    every = tuple(row.name for row in plan.accepted)
    return [
        f"{' and '.join(what)}{'' if cells == every else ' of ' + ', '.join(cells)}: {why}"
        for (cells, why), what in lacking.items()
    ]


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _count(value: float | None) -> str:
    return "—" if value is None else format_count(value)


def stages_text(row: PlanRow) -> str:
    """The stages in words."""
    parts = [
        f"{stage.name} {f'{stage.share:.3g} of the budget' if stage.steps is None else _many(stage.steps, 'step')}"
        for stage in row.stages
    ]
    return f"stages: {', '.join(parts)}"


def charged_text(row: PlanRow) -> str | None:
    """In words, the part of the budget that is charged for the initial checkpoint; None: nothing is charged."""
    if row.charged is None:
        return None
    ((unit, amount),) = row.budget.items()
    shown = unit.replace("wall_seconds", "seconds").replace("flops", "FLOPs")
    return f"{row.name}: {row.charged:.4g} of its {amount:.4g} {shown} are charged for training.init_from"
