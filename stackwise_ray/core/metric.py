"""The record of one metric: its path, unit, direction, label and digits. `core.metric_catalogue` holds all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["minimize", "maximize"]
Form = Literal["number", "count", "bytes", "seconds", "share"]
Needs = Literal["next tokens", "masked tokens", "whole splits", "finish", "known law", "answers"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What there is to know about one metric.

    Attributes:
        path: Its name everywhere, e.g. ``validation/loss``.
        unit: What one of it is, e.g. "nats per token"; empty where the label says it.
        direction: Which way is better; None where neither is (a count, a learning rate).
        label: What an axis or a table calls it; the path where it is empty.
        digits: Decimal places where it is shown as a plain number (`form` "number"); fewer beyond five digits.
        form: How its number is written: plainly, or as a count, bytes, a duration, a share in percent.
        needs: What a trial must have to report it.
        reported_by: Who measures it, and when, e.g. "every trial, at the end".
        also_called: Names that people and tables use for it elsewhere, e.g. ``val_loss``.
    """

    path: str
    unit: str
    direction: Direction | None = None
    label: str = ""
    digits: int = 4
    form: Form = "number"
    needs: tuple[Needs, ...] = ()
    reported_by: str
    also_called: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What an axis or a table calls it."""
        return self.label or self.path

    @property
    def axis(self) -> str:
        """The label of an axis: name and unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name
