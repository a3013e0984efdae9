"""How far a run is: every counter and accumulator of the loop, as plain numbers that a checkpoint stores exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(kw_only=True)
class Flops:
    """Counted FLOPs of one step, or summed over many. Training FLOPs are forward + backward + optimizer."""

    forward: int = 0
    backward: int = 0
    optimizer: int = 0
    recomputed: int = 0

    @property
    def training(self) -> int:
        """What a budget of FLOPs pays for; recomputation is reported apart."""
        return self.forward + self.backward + self.optimizer

    def add(self, other: Flops) -> None:
        """Adds another count to this one."""
        for entry in fields(self):
            setattr(self, entry.name, getattr(self, entry.name) + getattr(other, entry.name))


@dataclass(kw_only=True)
class LossMean:
    """A mean over loss positions of several steps (Python floats: exact through JSON)."""

    total: float = 0.0
    positions: int = 0

    def add(self, mean: float, positions: int) -> None:
        """Takes in a step's mean loss over its positions."""
        self.total += mean * positions
        self.positions += positions

    @property
    def mean(self) -> float | None:
        """None where nothing was taken in."""
        return self.total / self.positions if self.positions else None


@dataclass(kw_only=True)
class Seconds:
    """Time of this trial over all its attempts, in seconds."""

    build: float = 0.0
    train: float = 0.0
    evaluation: float = 0.0
    compile: float = 0.0
    checkpoint: float = 0.0
    total: float = 0.0


@dataclass(kw_only=True)
class TrainingProgress:
    """The state of the loop between two steps.

    Attributes:
        step: Optimizer steps finished in the whole run.
        stage: Number of the current stage.
        stage_step: Steps finished in it.
        sequences: Training sequences seen, which is the data position.
        evaluations: Validations finished.
        since_report, since_evaluation: Train loss since then. The second gives the final `train/loss`, since when a
            report falls depends on the clock.
        plain_tokens, plain_seconds: Tokens and time of steps without instruments: the throughput.
        latest: Latest value of every metric that is measured now and then.
        stages: A row for each finished or current stage.
        flops_cache: What filling caches cost: a part of `flops`.
        done_after: Components whose work after the last step is done.
    """

    step: int = 0
    stage: int = 0
    stage_step: int = 0
    sequences: int = 0
    tokens: int = 0
    flops: Flops = field(default_factory=Flops)
    flops_evaluation: int = 0
    flops_cache: int = 0
    evaluations: int = 0
    since_report: LossMean = field(default_factory=LossMean)
    since_evaluation: LossMean = field(default_factory=LossMean)
    skipped_steps: int = 0
    seconds: Seconds = field(default_factory=Seconds)
    plain_tokens: int = 0
    plain_seconds: float = 0.0
    latest: dict[str, float] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    done_after: list[str] = field(default_factory=list)

    def to_plain(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> TrainingProgress:
        """What `to_plain` gave."""
        parts = {"flops": Flops, "since_report": LossMean, "since_evaluation": LossMean, "seconds": Seconds}
        return cls(**{key: parts[key](**value) if key in parts else value for key, value in plain.items()})
