"""Which token mixer learns most at one size and one number of tokens: the bk block around six mixers, three seeds.

    python benchmarks/mixers.py                  # about a quarter of an hour on two cores; goes on where it stopped
    python benchmarks/mixers.py --tokens 20480 --seeds 2 --output /tmp/mixers --results /tmp/mixers   # does it run?

Every arm has 4 layers of width 64 and, with its byte embedding, 216 k parameters within 2 % (`d_ff` makes up for mixers
of fewer), the same Python sources in the same order, and a learning rate of its own out of three. It is a sweep like
any other: the directory under --output has its journal, report and figures. Written under --results: mixers.json
(losses by seed, paired differences with intervals, the bars) and mixers.png (validation loss against tokens and FLOPs).

The bars: `resolvent_apply` more than 0.05 nats a byte below `attention`, `resolvent_diagonal` (16 heads) at least 0.4
below `none`. A bar is held against the mean paired difference; its interval stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import analysis
from analysis.plots.curves import BUDGETS, against_budget, seeds_drawn
from analysis.plots.figures import Panel, PanelFigure, draw_panels
from stackwise_ray.config.loading import sweep_from_plain
from stackwise_ray.core.errors import ConfigError, SweepFailedError
from stackwise_ray.sweep import run
from stackwise_ray.terminal import make_console

METRIC = "validation/loss"
ARMS: dict[str, dict[str, Any]] = {
    "none": {"model.mixer": {"kind": "none"}, "model.d_ff": 260},
    "original": {
        "model.mixer": {"kind": "resolvent_diagonal", "n_heads": 1, "base": -2.0, "eta": 1.0, "learn": ["potential"]},
        "model.d_ff": 258,
    },
    "resolvent_diagonal": {"model.mixer": {"kind": "resolvent_diagonal", "n_heads": 16}, "model.d_ff": 246},
    "resolvent_diagonal_64": {"model.mixer": {"kind": "resolvent_diagonal", "n_heads": 64}, "model.d_ff": 197},
    "attention": {"model.mixer": {"kind": "attention", "n_heads": 4}, "model.d_ff": 177},
    "resolvent_apply": {},  # the preset itself: 8 heads of 8 values
}
BARS = (("resolvent_apply", "attention", -0.05), ("resolvent_diagonal", "none", -0.4))
"""(arm, the arm that it is compared with, the largest mean difference in nats a byte that passes)."""


def design(tokens: float, seeds: int) -> dict[str, Any]:
    """The sweep as a search-space file would say it."""
    return {
        "name": "mixers",
        "question": "At equal parameters and training tokens, which token mixer has the lowest validation loss?",
        "base": {
            "model": "decoder/bk_family/tiny",
            "data": "python_stdlib",
            "training": "classical",
            "overrides": {
                "training.budget": {"tokens": tokens},
                "training.batch_tokens": 1024,
                "data.seq_len": 256,
                "data.final_evaluation": "fixed",
            },
        },
        "design": {"kind": "arms", "arms": ARMS, "baseline": "none"},
        "replicates": {"seeds": seeds, "block": "seed"},
        "objective": [{"metric": METRIC, "direction": "minimize"}],
        "tune": {
            "space": {"training.lr": {"log_uniform": [1e-3, 3e-2]}},
            "trials_per_arm": 3,
            "budget_share": 0.2,
        },
        "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0, "workers": 1, "max_concurrent": "auto"},
        "tracking": {"experiment": "mixers", "keep_models": "none"},
        "analysis": [{"compare": {"metric": METRIC, "baseline": baseline}} for baseline in ("none", "attention")],
    }


def found(directory: Path) -> dict[str, Any]:
    """Losses by arm and seed, both comparisons, and where each bar stands."""
    runs = analysis.load_runs(directory)
    comparisons = {
        baseline: analysis.compare(runs, METRIC, baseline=baseline, equal="tokens")
        for baseline in ("none", "attention")
    }
    bars = []
    for arm, baseline, most in BARS:
        result = comparisons[baseline][arm]
        bars.append(
            {
                "arm": arm,
                "against": baseline,
                "at_most": most,
                "difference": result.difference,
                "difference_text": result.difference_text,
                "passed": result.difference is not None and result.difference < most,
            }
        )
    return {
        "parameters": {arm: int(part["model/params"].iloc[0]) for arm, part in runs.groupby("arm")},
        "losses": {
            arm: {str(seed): float(loss) for seed, loss in zip(part["seed"], part[METRIC], strict=True)}
            for arm, part in runs.groupby("arm")
        },
        "differences": {
            f"{result.arm} - {baseline}": result.to_dict()
            for baseline, comparison in comparisons.items()
            for result in comparison.arms
        },
        "bars": bars,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=float, default=1.2e6, help="training tokens of a trial")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("experiments"), help="where the sweep's directory lies")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="for JSON and PNG")
    options = parser.parse_args(argv)
    load = os.getloadavg()[0]
    try:
        sweep = sweep_from_plain(design(options.tokens, options.seeds))
        done = run(sweep, options.output, console=Console(stderr=True))
    except SweepFailedError as error:
        done = error.result
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if done.failed or not done.outcome.trials:
        for record in done.failed:
            print(f"failed: {record.arm}, seed {record.seed}, {record.role}: {record.reason}", file=sys.stderr)
        return 1
    make_console().print(analysis.summary_table(done.directory))
    results = {
        "command": f"python benchmarks/mixers.py --tokens {options.tokens:.0f} --seeds {options.seeds}",
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average_before": load,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "tokens": options.tokens,
        **found(done.directory),
    }
    for bar in results["bars"]:
        verdict = "passed" if bar["passed"] else "MISSED"
        print(f"{bar['arm']} − {bar['against']}: {bar['difference_text']}, bar {bar['at_most']}: {verdict}")
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "mixers.json").write_text(json.dumps(results, indent=2) + "\n")
    curves = analysis.load_curves(done.directory, [METRIC])
    drawn = {"metric": METRIC, "curves": curves, "runs": analysis.load_runs(done.directory), "arms": list(ARMS)}
    panels = tuple(
        Panel(budget.name, partial(against_budget, budget=budget, direction="minimize", **drawn))
        for budget in BUDGETS
        if budget.on_the_way is not None
    )
    note = seeds_drawn(curves)
    draw_panels(PanelFigure(path=options.results / "mixers.png", panels=panels, arms=list(ARMS), note=note))
    return 0


if __name__ == "__main__":
    sys.exit(main())
