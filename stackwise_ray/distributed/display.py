"""What a person sees while a sweep runs: trials done, running, failed; tokens/s; time left; the best so far.

On a terminal it is a live table (rich); elsewhere one line per minute without control characters, so that output can be
piped.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict

from rich.console import Console
from rich.live import Live
from rich.table import Table

from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.core.metric_catalogue import format_metric
from stackwise_ray.core.quantities import format_count, format_seconds
from stackwise_ray.core.records import FINAL, Role
from stackwise_ray.distributed.ledger import Ledger
from stackwise_ray.planning.sweep_plan import SweepPlan

PLAIN_PERIOD_S = 60.0
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
        self._thread = threading.Thread(target=self._lines, name="progress", daemon=True)

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
        self._console.print(self.line(), highlight=False)

    def watch(self, ledger: Ledger, plan: SweepPlan) -> None:
        """Whom to show from now on, and what was planned."""
        self._ledger, self._plan = ledger, plan

    def __rich__(self) -> Table:
        """The live table: a line of totals, then a line per running trial."""
        table = Table(title=self.line(), title_justify="left", box=None, pad_edge=False)
        shown = dict.fromkeys((_RATE, "train/loss", self._goal.metric))
        table.add_column("running")
        for column in ("step", *("tokens/s" if path == _RATE else path for path in shown)):
            table.add_column(column, justify="right")
        for attempt in list(self._ledger.running.values()) if self._ledger else []:
            latest, proposal = attempt.latest, attempt.proposal
            table.add_row(
                f"{proposal.arm} · seed {proposal.seed} · {proposal.role}{f' · {attempt.doing}' * bool(attempt.doing)}",
                str(attempt.step),
                *(format_metric(path, latest[path]) if path in latest else "" for path in shown),
            )
        return table

    def line(self) -> str:
        """The totals in one line."""
        ledger = self._ledger
        elapsed = format_seconds(time.monotonic() - self._began)
        if ledger is None:
            return f"starting … {elapsed}"
        records = ledger.records()
        count = {status: sum(r.status == status for r in records) for status in ("finished", "failed", "stopped")}
        total = ledger.source.expected()
        parts = [f"{count['finished'] + count['stopped']}/{total} trials done", f"{len(ledger.running)} running"]
        doing = Counter(attempt.doing for attempt in list(ledger.running.values()) if attempt.doing)
        parts += [f"{n} {what}" for what, n in sorted(doing.items())]
        parts.append(f"{count['failed']} failed")
        if ledger.known:
            parts.append(f"{ledger.known} kept from before")
        rate = sum(a.latest[_RATE] for a in list(ledger.running.values()) if _RATE in a.latest)
        if rate:
            parts.append(f"{format_count(rate)} tokens/s")
        parts.append(elapsed)
        left = self.seconds_left()
        if left is not None and ledger.running:
            open_ended = self._plan is not None and self._plan.seeds_possible is not None
            parts.append(f"{'at most' if open_ended else 'about'} {format_seconds(left)} left")
        best = self._best()
        if best is not None:
            parts.append(best)
        return " · ".join(parts)

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
            if spent:
                seconds[row.arm] += time.monotonic() - attempt.began
                flops[row.arm] += spent
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

    def _lines(self) -> None:
        while not self._end.wait(PLAIN_PERIOD_S):
            self._console.print(self.line(), highlight=False)
