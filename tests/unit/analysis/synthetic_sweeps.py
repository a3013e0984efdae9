"""Synthetic sweeps for the tests of `analysis`: real SQLite files in the journal's own schema."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stackwise_ray.config.space.comparisons import resolve_questions
from stackwise_ray.config.space.sweep_config import SweepConfig, with_default_objective
from stackwise_ray.config.trial.validation import validate
from stackwise_ray.core.records import JOURNAL_SCHEMA, open_journal, read_trials

ARMS = {"attention": 2.05, "llama": 2.06, "bk_original": 2.31, "token_local": 2.52, "resolvent": 2.12}
"""Arm and its mean loss; chosen so that every verdict has a clear candidate."""
BUDGET = 1.0e12


class JournalBuilder:
    """Writes a journal row by row; `close` before reading."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.connection = sqlite3.connect(directory / "journal.sqlite")
        self.connection.executescript(JOURNAL_SCHEMA)
        self.count = 0
        self._noted: dict[str, Any] = {}
        self._replicated: dict[str, None] = {}

    def meta(self, **values: Any) -> None:
        self._noted |= values
        for key, value in values.items():
            self.connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def trial_set(self, *entries: tuple[str, str, int, str, Mapping[str, Any]]) -> None:
        """The sweep's own trials: trial id, arm, seed, role and parameters of each."""
        names = ("trial_id", "arm", "seed", "role", "parameters")
        self._replicated = {arm: None for _, arm, _, role, _ in entries if role == "replicate"}
        self.meta(trial_set=[dict(zip(names, entry, strict=True)) for entry in entries])

    def decision(self, kind: str, key: str, payload: Mapping[str, Any]) -> None:
        self.connection.execute(
            "INSERT INTO decisions (kind, key, payload, time) VALUES (?, ?, ?, 0)", (kind, key, json.dumps(payload))
        )

    def trial(
        self,
        arm: str,
        seed: int,
        metrics: Mapping[str, float] | None = None,
        *,
        role: str = "replicate",
        status: str = "finished",
        reason: str | None = None,
        environment: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        budget: Mapping[str, float] | None = None,
        seconds: float | None = 30.0,
        config: Mapping[str, Any] | None = None,
    ) -> str:
        trial_id = f"{self.count:016x}"
        if role == "replicate":
            self._replicated[arm] = None
        config = {
            "training": {"budget": dict(budget or {"flops": BUDGET})},
            "data": {"corpus": "python_stdlib", "seq_len": 256},
            **(config or {}),
        }
        facts = {"stackwise_ray": "0.1.0", "git": "abc1234", "torch": "2.13.0", "device": "cpu", "backend": "torch"}
        facts |= {"data_fingerprint": "f" * 16} | dict(environment or {})
        self.connection.execute(
            "INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                trial_id,
                self.count,
                arm,
                seed,
                role,
                json.dumps(config),
                json.dumps(dict(parameters or {})),
                status,
                reason,
                json.dumps(dict(metrics or {})),
                json.dumps(facts),
                1000.0 + self.count,
                1030.0 + self.count,
            ),
        )
        end = None if seconds is None else 1000.0 + seconds
        self.connection.execute(
            "INSERT INTO attempts VALUES (?, 1, 1000.0, ?, ?, NULL, NULL)", (trial_id, end, status if end else None)
        )
        self.count += 1
        return trial_id

    def report(self, trial_id: str, step: int, tokens: int, flops: int, time: float, **metrics: float) -> None:
        values = {name.replace("__", "/"): value for name, value in metrics.items()}
        self.connection.execute(
            "INSERT INTO reports (trial_id, attempt, step, tokens, flops, time, metrics) VALUES (?, 1, ?, ?, ?, ?, ?)",
            (trial_id, step, tokens, flops, time, json.dumps(values)),
        )

    def _questions(self) -> dict[str, Any]:
        """What the driver would note of the file, resolved by the function that resolves it there."""
        file, arms = self._noted["sweep"], self._noted.get("arms", list(self._replicated))
        design = {key: value for key, value in file.get("design", {}).items() if key in ("kind", "baseline")}
        kind = design.pop("kind", "arms")
        if kind in ("isoflop", "ladder"):
            kind = "arms"
        needs = {"arms": {"arms": {arm: {} for arm in arms}}, "search": {}}
        plain = {
            "name": "synthetic",
            "design": {"kind": kind, **design, **needs.get(kind, {"factors": {}})},
            "analysis": [step for step in file.get("analysis", []) if "compare" in step],
            **{key: file[key] for key in ("objective", "replicates") if key in file},
        }
        budgets = self.connection.execute("SELECT config FROM trials WHERE role != 'tuning'").fetchall()
        units = {unit for (config,) in budgets for unit in json.loads(config)["training"].get("budget", {})}
        sweep = validate(SweepConfig, plain, source=None)
        if "objective" not in plain:
            sweep = with_default_objective(sweep)
        return resolve_questions(sweep, list(arms), units.pop() if len(units) == 1 else None).to_plain()

    def close(self) -> Path:
        if "sweep" in self._noted and "questions" not in self._noted:
            self.meta(questions=self._questions())
        self.connection.commit()
        self.connection.close()
        return self.directory


def final_metrics(
    loss: float, *, flops: float = BUDGET, tokens: float = 2.0e6, speed: float = 60_000.0
) -> dict[str, float]:
    """What a finished trial of the program records, around one loss."""
    return {
        "validation/loss": loss,
        "validation/perplexity": float(np.exp(loss)),
        "test/perplexity_byte": float(np.exp(loss + 0.02)),
        "test/perplexity_word": float(np.exp((loss + 0.02) * 5.5)),
        "train/loss": loss - 0.05,
        "flops/total": flops,
        "flops/forward": 1.0e5,
        "flops/backward": 2.0e5,
        "flops/optimizer": 3.0e6,
        "flops/evaluation": 0.1 * flops,
        "flops/recomputed": 0.0,
        "tokens/total": tokens,
        "throughput/tokens_per_s": speed,
        "memory/peak_bytes": 9.0e7,
        "memory/saved_activation_bytes": 6.0e7,
        "model/params": 230_000,
        "model/params_non_embedding": 198_000,
        "model/bytes": 920_000,
    }


def write_ablation(directory: Path, *, seeds: int = 3, failed: bool = True, noise: float = 0.008) -> Path:
    """A five-arm sweep with curves, tuning decisions, and (by default) one failed trial."""
    rng = np.random.default_rng(7)
    builder = JournalBuilder(directory)
    block_effect = rng.normal(0, 0.04, size=seeds)
    for index, (arm, mean) in enumerate(ARMS.items()):
        tuning = []
        for k, rate in enumerate((1e-3, 3e-3, 1e-2)):
            loss = mean + 0.2 + 0.05 * abs(k - 1)
            name = builder.trial(
                arm,
                900_000 + k,
                final_metrics(loss, flops=0.2 * BUDGET),
                role="tuning",
                parameters={"training.lr": rate},
            )
            tuning.append({"trial_id": name, "values": {"training.lr": rate}, "loss": loss})
        builder.decision("tuning", arm, {"values": {"training.lr": 3e-3}, "trials": tuning, "flops": int(0.6 * BUDGET)})
        tokens, speed = 2.0e6 * (1 + 0.1 * index), 60_000 / (1 + 0.3 * index)
        for seed in range(seeds):
            if failed and arm == "token_local" and seed == 1:
                reason = "loss is NaN at step 31 (lr 0.003, gradient norm 812)"
                builder.trial(arm, seed, status="failed", reason=reason)
                continue
            final = mean + block_effect[seed] + rng.normal(0, noise)
            name = builder.trial(
                arm,
                seed,
                final_metrics(final, flops=BUDGET * (1 - 0.001 * index), tokens=tokens, speed=speed),
                parameters={"training.lr": 3e-3},
                seconds=tokens / speed,
            )
            for step in range(1, 101):
                share = step / 100
                curve = final + 3.4 * np.exp(-5.5 * share**0.6) - 3.4 * np.exp(-5.5)
                seen, spent = int(tokens * share), int(BUDGET * share)
                values = {
                    "train__loss": curve - 0.05 + rng.normal(0, 0.03),
                    "throughput__tokens_per_s": speed * (1 + rng.normal(0, 0.03)),
                }
                if step % 10 == 0:
                    values |= {"validation__loss": curve, "validation__perplexity": float(np.exp(curve))}
                builder.report(name, step, seen, spent, 1000.0 + seen / speed, **values)
    compare = {"metric": "validation/loss", "baseline": "attention", "correction": "holm", "margin": 0.02}
    builder.meta(
        sweep={
            "name": "ablation",
            "question": "At equal training FLOPs, which token mixer gives the lowest validation loss?",
            "design": {"kind": "arms", "arms": {arm: {} for arm in ARMS}, "baseline": "attention"},
            "replicates": {"seeds": seeds, "block": "seed"},
            "objective": [{"metric": "validation/loss", "direction": "minimize"}],
            "tune": {"space": {"training.lr": {"log_uniform": [3e-4, 1e-2]}}, "trials_per_arm": 3, "budget_share": 0.2},
            "analysis": [{"compare": compare}],
        },
        sweep_hash="5" * 16,
        analysis_plan_hash="a" * 16,
        analysis_plan_first_hash="a" * 16,
        analysis_plan_amended_after=None,
        environment={"python": "3.11.7", "torch": "2.13.0"},
        started_at=1000.0,
    )
    return builder.close()


def train_nothing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the sweep command find that training has ended with the journal in `folder`.

    Only the training, which starts Ray, is left out: the report that the command hands over, its
    result and its errors are the real ones, and they are what such a test is about.
    """
    from stackwise_ray.distributed import driver

    def ended(*words: Any) -> driver.SweepOutcome:
        with closing(open_journal(folder / "journal.sqlite")) as journal:
            trials = tuple(read_trials(journal))
        failed = tuple(trial for trial in trials if trial.status == "failed")
        return driver.SweepOutcome(directory=folder, trials=trials, failed=failed, report=words[-1].report(folder))

    monkeypatch.setattr(driver, "run_sweep", ended)


def table(values, **columns):
    """{arm: losses by seed} as a table of runs; None leaves the run out."""
    rows = [
        {"arm": arm, "seed": seed, "loss": value}
        for arm, series in values.items()
        for seed, value in enumerate(series)
        if value is not None
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(**columns)
