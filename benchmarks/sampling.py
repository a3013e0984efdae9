"""How well a trained encoder fills in masked text, against what it costs: one sweep through depth beside rounds.

    python benchmarks/sampling.py --run experiments/bert_depth_time_vs_classical/trials/<id> [--run …] --json FILE

A run must have kept its model (`tracking.keep_models`, or `stackwise_ray.train`). Windows of the validation split are
masked at the heaviest share that depth-as-time trains on, filled in, and compared with the text: the share of masked
tokens that come back, against block passes (a block run once over a window). Rounds are for every model, and one that
takes time is told before each the share that is masked still; the sweep is for models grown right to left alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stackwise_ray.config.reading.yaml import load_yaml
from stackwise_ray.config.trial.editing import from_plain
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import fixed_validation_windows, gather, prepare
from stackwise_ray.data.corruption import denoising_mask
from stackwise_ray.models.growth.sampling import rounds, sweep
from stackwise_ray.training.noise import bands, levels
from stackwise_ray.training.scoring import load_model
from stackwise_ray.training.stages import stacks_of

ROUNDS = (1, 2, 4, 8)


def measure(run: Path, n_windows: int) -> list[dict[str, Any]]:
    """A row for each way of filling in."""
    trial = from_plain(load_yaml(run / "config.yaml"))
    if not trial.fills_masks:
        raise ConfigError(f"= {run} trained a causal decoder, which does not fill in masks", path="--run")
    data = prepare(trial.data)
    model = load_model(str(run / "model"), trial.model.role).eval()
    n_stacks = len(stacks_of(trial))
    ((_, heaviest), *_) = bands(trial, n_stacks)[0]
    tokens = data.splits["validation"].tokens
    offsets = fixed_validation_windows(len(tokens), trial.data.seq_len, n_windows * trial.data.seq_len)
    windows, _ = gather(tokens, offsets, trial.data.seq_len)
    masked = denoising_mask(windows, offsets, epoch=0, seed=0, ratios=heaviest, special_ids=data.special_ids)
    inputs, mask_id = torch.from_numpy(masked.inputs), data.special_ids["mask"]
    ways = {f"{n} rounds": (lambda n=n: rounds(model, inputs, mask_id=mask_id, n_rounds=n)) for n in ROUNDS}
    if trial.training.regime == "depth_time":
        ways["one sweep"] = lambda: sweep(model, inputs, mask_id=mask_id, levels=levels(trial.training.noise, n_stacks))
    rows = []
    for name, fill in ways.items():
        filled = fill()
        right = filled.tokens.numpy() == masked.targets
        rows.append(
            {
                "run": run.name,
                "regime": trial.training.regime,
                "time": trial.training.time,
                "way": name,
                "block_passes": filled.block_passes,
                "masked": heaviest,
                "right": float(np.mean(right[masked.selected])),
            }
        )
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", required=True, help="a finished trial's folder")
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    try:
        rows = [row for run in options.run for row in measure(run, options.windows)]
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in rows:
        trained = f"{row['regime']}, time as {row['time']}"
        print(f"{trained:40} {row['way']:10} {row['block_passes']:3} block passes  right {row['right']:.3f}")
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
