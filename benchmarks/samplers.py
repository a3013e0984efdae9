"""How many trials each sampler needs until it finds a good point: searches replayed on recorded tables.

    python benchmarks/samplers.py --record            # train every point of two grids once (about 20 minutes, one core)
    python benchmarks/samplers.py                     # replay searches on the recorded tables (about 15 minutes)
    python benchmarks/samplers.py --replays 3 --trials 12 --results /tmp/samplers        # does it run?

A table holds the validation loss of every point of a grid of small models. A replay is a search by `trials.search`, as
a sweep runs it, whose trials are looked up instead of trained. A point is good when its loss is among the best 2 % of
the table. Counted is, per sampler, the number of trials up to the first good point: the median, and the number within
which nine of ten replays have found one. `lists unordered` treats numbers as categories.

Written under --results: samplers.json, samplers.md. The bar: the default sampler of a search is the one that needs the
fewest trials in nine of ten replays, by the geometric mean over the tables.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna

import stackwise_ray as sw
from analysis.render import Grid
from stackwise_ray.config.space.domains import Choice, Factor, Space
from stackwise_ray.config.space.sweep_config import Search, SearchDesign, SweepConfig
from stackwise_ray.config.trial.editing import edit, to_plain
from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.core.records import TrialRecord
from stackwise_ray.trials import search
from stackwise_ray.trials.sources import Proposal

GOOD = 0.02
HERE = Path(__file__).parent / "results"
LOSS = "validation/loss"
SAMPLERS = ("random", "tpe", "tpe, lists unordered", "gp", "gp, lists unordered", "nsga2")


@dataclass(frozen=True)
class Table:
    """A grid of trials that is trained once.

    Attributes:
        words: What all its trials have in common, as words of the command line.
        levels: The values of each path.
    """

    name: str
    words: tuple[str, ...]
    levels: Mapping[str, tuple[Any, ...]]


_TRAINING = ("training.budget.tokens=20000", "data.seq_len=32", "data.final_evaluation=fixed", "training.evaluations=1")
TABLES = (
    Table(
        name="gpt2_python",
        words=("model=decoder/gpt2_family/tiny", "data=python_stdlib", "data.validation_tokens=8192", *_TRAINING),
        levels={
            "training.lr": tuple(float(f"{10**power:.3g}") for power in np.linspace(-4, -1, 10)),
            "training.batch_tokens": (256, 512, 1024),
            "model.n_layers": (1, 2, 4),
            "training.schedule.warmup": (0.0, 0.1, 0.3),
        },
    ),
    Table(
        name="llama_python",
        words=("model=decoder/llama_family/tiny", "data=python_stdlib", "data.validation_tokens=8192", *_TRAINING),
        levels={
            "training.lr": tuple(float(f"{10**power:.3g}") for power in np.linspace(-4, -1, 10)),
            "training.batch_tokens": (256, 512, 1024),
            "model.d_ff": (32, 128, 512),
            "training.gradient_clip": (0.1, 1.0, 10.0),
        },
    ),
)


def file_of(table: Table, results: Path) -> Path:
    return results / f"samplers_{table.name}.csv"


def record(table: Table, results: Path) -> None:
    """Train every point that the table's file does not hold yet."""
    file, paths = file_of(table, results), list(table.levels)
    known = set(losses_of(table, results)) if file.exists() else set()
    points = [point for point in itertools.product(*table.levels.values()) if point not in known]
    started = time.perf_counter()
    with file.open("a", newline="") as stream, tempfile.TemporaryDirectory() as folder:
        writer = csv.writer(stream)
        if not known:
            writer.writerow([*paths, LOSS])
        for number, point in enumerate(points, start=1):
            words = [*table.words, *(f"{path}={value}" for path, value in zip(paths, point, strict=True))]
            result = sw.train(sw.load_trial(words), Path(folder) / str(number))
            writer.writerow([*point, result.metrics.get(LOSS, math.inf)])
            stream.flush()
            each = (time.perf_counter() - started) / number
            print(f"\r{table.name}: {number} of {len(points)}, {each:.1f} s per trial", end="", file=sys.stderr)
    print(file=sys.stderr)


def losses_of(table: Table, results: Path) -> dict[tuple[Any, ...], float]:
    """The recorded loss of every point."""
    with file_of(table, results).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    kinds = {path: type(levels[0]) for path, levels in table.levels.items()}
    return {tuple(kind(row[path]) for path, kind in kinds.items()): float(row[LOSS]) for row in rows}


def trials_needed(table: Table, losses: Mapping[tuple[Any, ...], float], sampler: str, trials: int, seed: int) -> float:
    """The number of trials of one replay up to its first good point; infinity where it finds none."""
    factors = tuple(Factor(path=path, domain=Choice(levels)) for path, levels in table.levels.items())
    good = np.quantile([loss for loss in losses.values() if math.isfinite(loss)], GOOD)
    source = search.OptunaSource(
        Space(factors=factors),
        sampler=sampler.partition(",")[0],
        trials=trials,
        resolve=lambda point: to_plain(edit(_ANY_TRIAL, point)),
        propose=_proposal,
        goals=[Goal.of(LOSS)],
        known={},
        record=lambda key, point: None,
        root_seed=seed,
    )
    seen: list[tuple[Any, ...]] = []
    while (proposal := source.propose()) is not None:
        point = tuple(proposal.parameters[path] for path in table.levels)
        loss = losses[point]
        seen += [] if point in seen else [point]  # a point that is drawn twice is one trial
        if loss <= good:
            return len(seen)
        status = "finished" if math.isfinite(loss) else "failed"
        source.ended(proposal, _ended(proposal, status, loss))
    return math.inf


def _proposal(number: int, point: Mapping[str, Any]) -> Proposal:
    return Proposal(arm=str(number), seed=0, role="search", trial=_ANY_TRIAL, parameters=dict(point), key=number)


_ANY_TRIAL = sw.load_trial(["model=decoder/gpt2_family/tiny", "data=markov"])
"""Nothing is trained, so that every proposal may carry the same trial."""


def _ended(proposal: Proposal, status: Any, loss: float) -> TrialRecord:
    metrics = {LOSS: loss} if status == "finished" else {}
    return TrialRecord(
        trial_id=str(proposal.key), number=0, arm="", seed=0, role="search", config={}, status=status, metrics=metrics
    )


def replay(table: Table, results: Path, sampler: str, replays: int, trials: int) -> dict[str, float]:
    """Median and nine-of-ten number of trials over the replays of a sampler."""
    losses = losses_of(table, results)
    ordered = Choice.ascending
    if "unordered" in sampler:
        Choice.ascending = property(lambda domain: None)  # type: ignore[assignment, method-assign]
    try:
        needed = []
        for seed in range(replays):
            needed.append(trials_needed(table, losses, sampler, trials, seed))
            print(f"\r{table.name}, {sampler}: {seed + 1} of {replays}   ", end="", file=sys.stderr)
    finally:
        Choice.ascending = ordered  # type: ignore[method-assign]
    return {
        "median": float(np.quantile(needed, 0.5, method="higher")),
        "nine_of_ten": float(np.quantile(needed, 0.9, method="higher")),
    }


def markdown(found: Mapping[str, Any]) -> str:
    """The table of what was counted, and the bar."""
    names = list(found["tables"])
    rows = [
        (sampler, *(f"{found['tables'][name][sampler][key]:g}" for name in names for key in ("median", "nine_of_ten")))
        for sampler in found["samplers"]
    ]
    head = ("sampler", *(f"{name}, {key}" for name in names for key in ("median", "nine of ten")))
    grid = Grid(head, tuple(rows), "Trials up to the first point among the best 2 %", (), tuple(range(1, len(head))))
    verdict = f"fewest in nine of ten: {found['fewest']}; the default is {found['default']}"
    return f"`{found['command']}`, {found['date']}, {found['machine']}\n\n{grid.to_markdown()}\n\n{verdict}\n"


def fewest(tables: Mapping[str, Mapping[str, Mapping[str, float]]], samplers: Sequence[str]) -> str:
    """The sampler with the smallest geometric mean of its nine-of-ten numbers."""
    return min(samplers, key=lambda one: sum(math.log(each[one]["nine_of_ten"]) for each in tables.values()))


def _default() -> str:
    """The sampler of a search in which none is written."""
    search = Search(space={"training.lr": [1e-3, 1e-2]}, trials=40)
    return SweepConfig(name="default", design=SearchDesign(), search=search).sampler


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="train the points of the tables that are not there yet")
    parser.add_argument("--replays", type=int, default=50)
    parser.add_argument("--trials", type=int, default=60, help="a replay that needs more has found nothing")
    parser.add_argument("--results", type=Path, default=HERE, help="for JSON and table")
    options = parser.parse_args(argv)
    options.results.mkdir(parents=True, exist_ok=True)
    if options.record:
        for table in TABLES:
            record(table, options.results)
        return 0
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    tables = {
        table.name: {name: replay(table, HERE, name, options.replays, options.trials) for name in SAMPLERS}
        for table in TABLES
    }
    print(file=sys.stderr)
    found = {
        "command": f"python benchmarks/samplers.py --replays {options.replays} --trials {options.trials}",
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {"optuna": optuna.__version__, "numpy": np.__version__},
        "samplers": SAMPLERS,
        "tables": tables,
        "fewest": fewest(tables, SAMPLERS),
        "default": _default(),
    }
    (options.results / "samplers.json").write_text(json.dumps(found, indent=2) + "\n")
    text = markdown(found)
    (options.results / "samplers.md").write_text(text)
    print(text)
    return 0 if found["fewest"] == found["default"] else 1


if __name__ == "__main__":
    sys.exit(main())
