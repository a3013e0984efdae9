"""What a person sees while a sweep runs: trials done, running, failed; tokens/s; time left; the best so far.

On a terminal a live table (rich); elsewhere one line a minute without control characters, so that output can be piped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from stackwise_ray.core.quantities import format_count, format_seconds
from stackwise_ray.core.records import Role
from stackwise_ray.distributed.ledger import Ledger

PLAIN_PERIOD_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Trials of one arm and role that the plan foresees.

    Attributes:
        trials: How many.
        flops: Training FLOPs of each; None where the budget is not known in FLOPs beforehand.
    """

    trials: int
    flops: int | None


class Progress:
    """Shows a ledger until it is closed; a context manager.

    Args:
        slots: Trials that run at once.
        metric: The metric whose best value is shown.

    Attributes:
        expected: What the plan foresees, by (arm, role); set once there is one.
    """

    def __init__(
        self,
        console: Console,
        *,
        slots: int,
        metric: str,
        minimize: bool = True,
    ) -> None:
        self._console, self._slots = console, slots
        self.expected: Mapping[tuple[str, Role], Expected] = {}
        self._metric, self._sign = metric, 1 if minimize else -1
        self._began = time.monotonic()
        self._ledger: Ledger | None = None
        self._live: Live | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._lines, name="progress", daemon=True)

    def __enter__(self) -> Progress:
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

    def watch(self, ledger: Ledger) -> None:
        """Whom to show from now on."""
        self._ledger = ledger

    def __rich__(self) -> Table:
        """The live table: a line of totals, then a line a running trial."""
        table = Table(title=self.line(), title_justify="left", box=None, pad_edge=False)
        for column, justify in (("running", "left"), ("step", "right"), ("tokens/s", "right"), ("loss", "right")):
            table.add_column(column, justify=justify)  # type: ignore[arg-type]
        for attempt in list(self._ledger.running.values()) if self._ledger else []:
            latest, proposal = attempt.latest, attempt.proposal
            loss = latest.get("validation/loss", latest.get("train/loss"))
            table.add_row(
                f"{proposal.arm} · seed {proposal.seed} · {proposal.role}",
                str(attempt.step),
                format_count(latest.get("throughput/tokens_per_s", 0.0)),
                "" if loss is None else f"{loss:.4f}",
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
        parts.append(f"{count['failed']} failed")
        if ledger.known:
            parts.append(f"{ledger.known} kept from before")
        rate = sum(a.latest.get("throughput/tokens_per_s", 0.0) for a in list(ledger.running.values()))
        if rate:
            parts.append(f"{format_count(rate)} tokens/s")
        parts.append(elapsed)
        left = self.seconds_left()
        if left is not None and ledger.running:
            parts.append(f"about {format_seconds(left)} left")
        best = self._best()
        if best is not None:
            parts.append(best)
        return " · ".join(parts)

    def seconds_left(self) -> float | None:
        """Time until the sweep ends, from the seconds per FLOP that each arm has shown; None before anything has."""
        ledger = self._ledger
        if ledger is None:
            return None
        seconds: dict[str, float] = {}
        flops: dict[str, float] = {}
        done: dict[tuple[str, Role], float] = {}
        for record in ledger.records():
            key = (record.arm, record.role)
            spent = record.metrics.get("flops/total")
            duration = record.metrics.get("time/total_s")
            if record.status in ("finished", "stopped", "failed"):
                done[key] = done.get(key, 0.0) + 1
            if spent and duration:
                seconds[record.arm] = seconds.get(record.arm, 0.0) + duration
                flops[record.arm] = flops.get(record.arm, 0.0) + spent
        for attempt in list(ledger.running.values()):
            key = (attempt.proposal.arm, attempt.proposal.role)
            spent = attempt.latest.get("flops/total", 0.0)
            planned = self.expected.get(key)
            if spent:
                seconds[key[0]] = seconds.get(key[0], 0.0) + time.time() - attempt.started
                flops[key[0]] = flops.get(key[0], 0.0) + spent
            if planned and planned.flops:
                done[key] = done.get(key, 0.0) + min(1.0, spent / planned.flops)
        if not sum(flops.values()) or not self.expected:
            return None
        mean = sum(seconds.values()) / sum(flops.values())
        left = 0.0
        for (arm, role), planned in self.expected.items():
            if planned.flops is None:
                return None
            pace = seconds[arm] / flops[arm] if flops.get(arm) else mean
            left += max(0.0, planned.trials - done.get((arm, role), 0.0)) * planned.flops * pace
        return left / self._slots

    def _best(self) -> str | None:
        assert self._ledger is not None
        scored = [
            (self._sign * record.metrics[self._metric], record.arm)
            for record in self._ledger.records()
            if record.role != "tuning" and self._metric in record.metrics
        ]
        if not scored:
            return None
        value, arm = min(scored)
        return f"best {self._metric} {self._sign * value:.4f} ({arm})"

    def _lines(self) -> None:
        while not self._end.wait(PLAIN_PERIOD_S):
            self._console.print(self.line(), highlight=False)
