"""What a person sees while a sweep runs: how many trials are done, what the others do, tokens/s, time left, the best.

On a terminal it is a live table (rich); elsewhere a few lines, the first after two seconds and later one per minute,
without control characters, so that output can be piped. No line is longer than 80 characters.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.core.metric_catalogue import format_metric
from stackwise_ray.core.quantities import format_count, format_seconds
from stackwise_ray.core.records import FINAL, Role
from stackwise_ray.distributed.ledger import Attempt, Ledger
from stackwise_ray.planning.sweep_plan import SweepPlan

FIRST_LINES_S, PLAIN_PERIOD_S = (2.0, 18.0), 60.0
"""Seconds, without a terminal, until the first lines, and between later ones."""
WIDTH = 80
"""Characters of a line."""
_SHORTEST_NAME, _GAP = 12, 2
"""Characters of a trial's name that are always shown, and between two columns."""
_RATE = "throughput/tokens_per_s"


class ProgressDisplay:
    """Shows a ledger until it is closed; a context manager.

    Args:
        slots: Trials that run at once.
        goal: The metric that is shown of every running trial, and the best value of all.
    """

    def __init__(self, console: Console, *, slots: int, goal: Goal) -> None:
        self._console, self._slots = console, slots
        self._goal = goal
        self._began = time.monotonic()
        self._ledger: Ledger | None = None
        self._plan: SweepPlan | None = None
        self._live: Live | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._print_now_and_then, name="progress", daemon=True)

    def __enter__(self) -> ProgressDisplay:
        if self._console.is_terminal:
            self._live = Live(self, console=self._console, refresh_per_second=2, transient=True)
            self._live.start()
        else:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()
        self._end.set()
        self._print()

    def watch(self, ledger: Ledger, plan: SweepPlan) -> None:
        """Show this ledger from now on, with what was planned."""
        self._ledger, self._plan = ledger, plan

    def __rich__(self) -> Group:
        """What a terminal shows: the totals, then a row per trial that has been given out."""
        totals = (Text(line, no_wrap=True, overflow="ellipsis") for line in self.lines())
        attempts = list(self._ledger.running.values()) if self._ledger else []
        return Group(*totals, self.table(attempts)) if attempts else Group(*totals)

    def table(self, attempts: Sequence[Attempt]) -> Table:
        """A row per trial: how far it is, its pace and its losses, each only once it was measured."""
        shown = dict.fromkeys((_RATE, "train/loss", self._goal.metric))
        heads = ("step", *("tokens/s" if path == _RATE else path.replace("/", "/\n") for path in shown))
        rows = [(self._step(attempt), *_measured(attempt.latest, tuple(shown))) for attempt in attempts]
        columns = zip(heads, *rows, strict=True)
        taken = sum(
            _GAP + max(len(line) for cell in column for line in cell.splitlines() or [""]) for column in columns
        )
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
        # A long name is cut before a number or its heading is.
        name_width = max(_SHORTEST_NAME, min(WIDTH, self._console.width) - taken)
        table.add_column("trial", no_wrap=True, overflow="ellipsis", max_width=name_width, vertical="bottom")
        for head in heads:
            table.add_column(head, justify="right", no_wrap=True, vertical="bottom")
        for attempt, row in zip(attempts, rows, strict=True):
            table.add_row(Text(_name(attempt)), *row)
        return table

    def lines(self) -> list[str]:
        """The totals, in lines of at most `WIDTH` characters."""
        lines: list[str] = []
        for part in self._parts():
            longer = f"{lines[-1]} · {part}" if lines else part
            if lines and len(longer) > WIDTH:
                lines.append(f"  {part}")
            else:
                lines[-1:] = [longer]
        return [line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines]

    def _parts(self) -> Iterator[str]:
        ledger = self._ledger
        elapsed = format_seconds(time.monotonic() - self._began)
        if ledger is None:
            yield f"starting · {elapsed}"
            return
        records, attempts = ledger.records(), list(ledger.running.values())
        count = Counter(record.status for record in records)
        yield f"{count['finished'] + count['stopped']}/{ledger.source.expected()} trials done"
        if count["failed"]:
            yield f"{count['failed']} failed"
        if ledger.known:
            yield f"{ledger.known} kept from before"
        yield from self._doing(ledger, attempts)
        yield elapsed
        left = self.seconds_left()
        if left is not None and attempts:
            open_ended = self._plan is not None and self._plan.seeds_possible is not None
            yield f"{'at most' if open_ended else 'about'} {format_seconds(left)} left"
        rate = sum(attempt.latest.get(_RATE, 0.0) for attempt in attempts)
        if rate:
            yield f"{format_count(rate)} tokens/s"
        best = self._best()
        if best is not None:
            yield best

    def _doing(self, ledger: Ledger, attempts: Sequence[Attempt]) -> Iterator[str]:
        """What the trials do that have been given out; where there are none, what is waited for."""
        states = Counter(attempt.state for attempt in attempts)
        for state in sorted(states, key=lambda state: (state != "running", state)):
            yield f"{states[state]} {state}"
        if states or self._end.is_set():
            return
        if ledger.halted:
            yield "stopping"
        elif ledger.finished:
            yield "ending Ray"
        else:
            yield f"waiting for Ray to start the {'first' if ledger.first_report is None else 'next'} trial"

    def _step(self, attempt: Attempt) -> str:
        """Step of steps, or what it does before the first one."""
        if not attempt.step:
            return attempt.state
        row = None if self._plan is None else self._plan.row(attempt.proposal.arm, attempt.proposal.role)
        text = f"{attempt.step:,}"
        if row is not None and row.steps is not None and row.steps_most is None:
            text += f"/{row.steps:,}"
        return f"{text} {attempt.doing}" if attempt.doing else text

    def seconds_left(self) -> float | None:
        """Time until the sweep ends, from the seconds per FLOP that each planned cell has shown.

        None before anything has been measured, or where a budget is not known in FLOPs beforehand.
        """
        ledger, plan = self._ledger, self._plan
        if ledger is None or plan is None:
            return None
        seconds: defaultdict[str, float] = defaultdict(float)
        flops: defaultdict[str, float] = defaultdict(float)
        done: defaultdict[tuple[str, Role], float] = defaultdict(float)  # trials; one that runs counts as its share
        records = {record.trial_id: record for record in ledger.records()}
        for trial_id, arm, role in list(ledger.trial_set):  # a kept record may bear the arm name of an older file
            record, row = records.get(trial_id), plan.row(arm, role)
            if record is None:
                continue
            if record.status in FINAL:
                done[row.arm, row.role] += 1
            if {"flops/total", "time/total_s"} <= record.metrics.keys():
                seconds[row.arm] += record.metrics["time/total_s"]
                flops[row.arm] += record.metrics["flops/total"]
        for attempt in list(ledger.running.values()):
            row = plan.row(attempt.proposal.arm, attempt.proposal.role)
            spent = attempt.latest.get("flops/total", 0.0)  # nothing reported: nothing spent that is known
            if attempt.first_step is not None and spent > attempt.first_step[1]:  # its start says nothing of its pace
                seconds[row.arm] += time.monotonic() - attempt.first_step[0]
                flops[row.arm] += spent - attempt.first_step[1]
            if row.flops:
                done[row.arm, row.role] += min(1.0, spent / row.flops)
        if not any(flops.values()):
            return None
        mean = sum(seconds.values()) / sum(flops.values())
        left = 0.0
        for row in plan.rows:
            if not row.trials:
                continue
            if row.flops is None:
                return None
            pace = seconds[row.arm] / flops[row.arm] if flops[row.arm] else mean
            left += max(0.0, row.trials - done[row.arm, row.role]) * row.flops * pace
        return left / self._slots

    def _best(self) -> str | None:
        assert self._ledger is not None
        metric = self._goal.metric
        scored = [
            (self._goal.badness(record.metrics[metric]), record.arm, record.metrics[metric])
            for record in self._ledger.records()
            if record.role != "tuning" and metric in record.metrics
        ]
        if not scored:
            return None
        _, arm, value = min(scored)
        return f"best {metric} {format_metric(metric, value)} ({arm})"

    def _print(self) -> None:
        for line in self.lines():
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _print_now_and_then(self) -> None:
        first = iter(FIRST_LINES_S)
        while not self._end.wait(next(first, PLAIN_PERIOD_S)):
            self._print()


def _measured(latest: Mapping[str, float], paths: Sequence[str]) -> list[str]:
    """The values of the metrics; nothing where none was measured yet, as of a pace that is still 0."""
    known = {path for path in paths if path in latest and (path != _RATE or latest[path])}
    return [format_metric(path, latest[path]) if path in known else "" for path in paths]


def _name(attempt: Attempt) -> str:
    """A trial in few characters: its seed, or its number where the seed was drawn and has 19 digits."""
    proposal = attempt.proposal
    if proposal.role == "replicate":
        return f"{proposal.arm} · seed {proposal.seed}"
    return proposal.arm if proposal.role == "search" else f"{proposal.arm} · {proposal.role} {attempt.place}"
