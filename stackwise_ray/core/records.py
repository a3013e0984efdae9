"""What a run leaves behind: the records that training writes and `analysis` reads.

This is the contract between the two packages. It fixes the metric names, the table schema (one row per trial) and the
SQLite schema of `journal.sqlite`, and it reads a journal without torch, ray or pandas. Only
`stackwise_ray.tracking.journal` writes one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.registries import REGIMES

Role = Literal["replicate", "tuning", "search"]
Status = Literal["pending", "running", "finished", "failed", "interrupted", "stopped"]
"""`failed`: by the trial's own doing, final. `interrupted`: killed, or the disk was full; it continues.
`stopped`: ended early by a scheduler (search only); final, its loss is that of a truncated run."""

FINAL: tuple[Status, ...] = ("finished", "failed", "stopped")
"""The statuses of a trial that is never run again."""

JOURNAL_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    trial_id TEXT PRIMARY KEY, number INTEGER NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, role TEXT NOT NULL,
    config TEXT NOT NULL, parameters TEXT NOT NULL, status TEXT NOT NULL, reason TEXT,
    metrics TEXT NOT NULL DEFAULT '{}', environment TEXT NOT NULL DEFAULT '{}',
    created_at REAL NOT NULL, ended_at REAL);
CREATE TABLE IF NOT EXISTS attempts (
    trial_id TEXT NOT NULL, attempt INTEGER NOT NULL, started_at REAL NOT NULL, ended_at REAL, outcome TEXT,
    reason TEXT, resumed_from_step INTEGER, PRIMARY KEY (trial_id, attempt));
CREATE TABLE IF NOT EXISTS reports (
    id INTEGER PRIMARY KEY AUTOINCREMENT, trial_id TEXT NOT NULL, attempt INTEGER NOT NULL, step INTEGER NOT NULL,
    tokens INTEGER NOT NULL, flops INTEGER NOT NULL, time REAL NOT NULL, metrics TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS reports_of_trial ON reports (trial_id, step);
CREATE TABLE IF NOT EXISTS decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, key TEXT NOT NULL, payload TEXT NOT NULL,
    time REAL NOT NULL, UNIQUE (kind, key));
"""
"""`reports` is append-only: a continued attempt may report a step again, and the later row is the one that counts
(on a CPU both hold the same values). `decisions` holds what a searcher or a tuning stage settled, and
under "prediction" what the plan said of a trial before it ran: flops, seconds and peak_bytes, or null."""

MACHINE_COLUMNS = (
    "torch",
    "device",
    "backend",
    "cuda",
    "driver",
    "gpus",
    "device_memory_bytes",
    "gpu_share",
    "computes_slowly",
)
"""Columns that a trial's environment gives under the same names: what its numbers and its speed may depend on."""

TABLE_COLUMNS = (
    "arm",
    "seed",
    "loss",
    "flops",
    "tokens",
    "params",
    "params_total",
    "budget",
    "role",
    "status",
    "reason",
    "trial_id",
    "loss_kind",
    "data_fingerprint",
    "version",
    "git",
    *MACHINE_COLUMNS,
)
"""The leading columns of the one table; every metric follows under its own path."""


NEXT_TOKENS = "next tokens"
"""The `loss_kind` of models that predict the next token; every other kind is of masked tokens."""

OWN_MASKS = ("loss", "validation/loss", "validation/loss_without_finish", "train/loss")
"""Columns that a model which fills in masks measures on the masks of its own training."""


@dataclass(frozen=True, kw_only=True)
class MetricRecord:
    """Values measured at one optimizer step of one trial.

    Attributes:
        step: Optimizer steps finished (0 before the first).
        tokens: Training tokens seen so far.
        flops: Training FLOPs spent so far, by the convention of `stackwise_ray.metrics.flops`.
        time: Unix time in seconds.
        metrics: Finite values by metric path, e.g. ``{"train/loss": 2.31}``.
        doing: What begins now and measures nothing while it lasts, for whoever watches; not kept.
    """

    trial_id: str
    attempt: int
    step: int
    tokens: int
    flops: int
    time: float
    metrics: Mapping[str, float]
    doing: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial as the journal knows it.

    Attributes:
        number: Order in which the sweep created it, from 0.
        arm: Name of the arm; "search" trials carry the name of their sweep.
        seed: Root seed (the block of a paired comparison).
        config: The canonical `TrialConfig` as plain JSON data.
        parameters: The values that this arm, tuning stage or searcher set, by dotted path.
        metrics: Final value of every metric; empty until the trial has finished or was stopped.
        environment: Versions, device, backend, git hash, data fingerprint.
    """

    trial_id: str
    number: int
    arm: str
    seed: int
    role: Role
    config: Mapping[str, Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    status: Status = "pending"
    reason: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 0
    created_at: float = 0.0
    ended_at: float | None = None


def table_row(trial: TrialRecord) -> dict[str, Any]:
    """The trial as a row of the one table: `TABLE_COLUMNS` first, absent values left out (never 0 or inf)."""
    metrics, environment = trial.metrics, trial.environment
    row: dict[str, Any] = {
        "arm": trial.arm,
        "seed": trial.seed,
        "loss": metrics.get("validation/loss"),
        "flops": metrics.get("flops/total"),
        "tokens": metrics.get("tokens/total"),
        "params": metrics.get("model/params_non_embedding"),
        "params_total": metrics.get("model/params"),
        "budget": _nominal_budget(trial.config),
        "role": trial.role,
        "status": trial.status,
        "reason": trial.reason,
        "trial_id": trial.trial_id,
        "loss_kind": loss_kind(trial.config),
        "data_fingerprint": environment.get("data_fingerprint"),
        "version": environment.get("stackwise_ray"),
        "git": environment.get("git"),
        **{name: environment.get(name) for name in MACHINE_COLUMNS},
    }
    row.update(metrics)
    row.update({f"parameters/{path}": value for path, value in trial.parameters.items()})
    return {key: value for key, value in row.items() if value is not None}


def _nominal_budget(config: Mapping[str, Any]) -> float | None:
    budget = config.get("training", {}).get("budget", {})
    values = [value for value in budget.values() if value is not None]
    return float(values[0]) if len(values) == 1 else None


def loss_kind(config: Mapping[str, Any]) -> str | None:
    """What `validation/loss` asks of a trial's model; losses of two kinds are answers to two questions.

    Args:
        config: The trial as plain data, defaults included; its numbers may be text (MLflow's parameters).

    Returns:
        `NEXT_TOKENS`, or which masks the trial draws; None where the configuration does not say.
    """
    model, training = config.get("model") or {}, config.get("training") or {}
    if "role" not in model or "regime" not in training:
        return None
    if model["role"] != "encoder" and training.get("decoder_objective") != "bidirectional":
        return NEXT_TOKENS
    regime = training["regime"]
    if regime not in REGIMES:  # of a package that is not here: its losses answer a question of their own
        return f"masks of {regime}"
    masks = REGIMES.get(regime).masks
    return f"masks of {regime}" if masks is None else str(masks(config))


def open_journal(path: str | Path) -> sqlite3.Connection:
    """A read-only connection to a journal, also while its owner writes.

    Raises:
        FileNotFoundError: There is no journal at `path`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no journal at {path}")
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
    connection.row_factory = sqlite3.Row
    return connection


def unreadable_journal(error: sqlite3.Error, path: Path) -> ConfigError:
    """The mistake of a command whose journal SQLite cannot read."""
    fix = "it may be damaged: restore it from a copy, or choose another --output and run the sweep anew"
    return ConfigError(f"the journal cannot be read ({error}); {fix}", source=str(path))


def read_trials(connection: sqlite3.Connection, trial_id: str | None = None) -> list[TrialRecord]:
    """All trials in the order of their numbers, or the one called `trial_id` (an empty list where there is none)."""
    where, arguments = ("", []) if trial_id is None else (" WHERE trial_id = ?", [trial_id])
    attempts = dict(
        connection.execute(
            f"SELECT trial_id, MAX(attempt) FROM attempts{where} GROUP BY trial_id", arguments
        ).fetchall()
    )
    rows = connection.execute(f"SELECT * FROM trials{where} ORDER BY number", arguments).fetchall()
    return [
        TrialRecord(
            trial_id=row["trial_id"],
            number=row["number"],
            arm=row["arm"],
            seed=row["seed"],
            role=row["role"],
            config=json.loads(row["config"]),
            parameters=json.loads(row["parameters"]),
            status=row["status"],
            reason=row["reason"],
            metrics=json.loads(row["metrics"]),
            environment=json.loads(row["environment"]),
            attempts=attempts.get(row["trial_id"], 0),
            created_at=row["created_at"],
            ended_at=row["ended_at"],
        )
        for row in rows
    ]


def read_reports(
    connection: sqlite3.Connection, trial_id: str | None = None, *, after: int = 0, limit: int = -1
) -> Iterator[tuple[int, MetricRecord]]:
    """(row id, record) in the order of writing, of one trial or of all, beginning after row id `after`.

    A step that was reported twice comes twice: see `history` for one value per step.
    """
    where, arguments = "id > ?", [after]
    if trial_id is not None:
        where, arguments = where + " AND trial_id = ?", [after, trial_id]  # type: ignore[list-item]
    query = f"SELECT * FROM reports WHERE {where} ORDER BY id LIMIT ?"
    for row in connection.execute(query, [*arguments, limit]):
        yield (
            row["id"],
            MetricRecord(
                trial_id=row["trial_id"],
                attempt=row["attempt"],
                step=row["step"],
                tokens=row["tokens"],
                flops=int(row["flops"]),  # above 2**63 SQLite holds it as a float
                time=row["time"],
                metrics=json.loads(row["metrics"]),
            ),
        )


def read_meta(connection: sqlite3.Connection) -> dict[str, Any]:
    """The journal's facts about its sweep: config, hashes, schema version, analysis plan."""
    rows = connection.execute("SELECT key, value FROM meta").fetchall()
    return {row["key"]: json.loads(row["value"]) for row in rows}
