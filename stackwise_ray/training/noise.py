"""The noise of depth-as-time: which share of positions is masked in the training of which stack.

Arithmetic on a trial's `training.noise`; regimes call it. Stacks are counted from the input: stack 1 of K is the
leftmost and owns the heaviest noise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.training.growth_options import Noise, WithNoise, options_of
from stackwise_ray.training.stages import stacks_of

Band = tuple[float, float]
"""Lowest and highest share of masked positions."""

MASKED_RATIOS = (0.15, 0.3, 0.5, 0.75, 0.9)
"""Shares of masked positions at which models that fill in masks are compared, whatever they were trained on."""

HEAVIEST = 0.95
"""Beyond it hardly a token is left to predict from."""


def levels(noise: Noise, n_stacks: int) -> tuple[float, ...]:
    """r_1 > … > r_K; a single stack has r_last.

    `linear` and `cosine` interpolate between r_first and r_last (cosine: flat at both ends), `exponential` does so in
    the logarithm.

    Raises:
        ConfigError: They do not fall from left to right, lie outside (0, .95], or a list has another length than K.

    >>> levels(Noise(), 5)
    (0.95, 0.75, 0.55, 0.35, 0.15)
    """
    if isinstance(noise.schedule, tuple):
        if len(noise.schedule) != n_stacks:
            raise ConfigError(
                f"= {list(noise.schedule)} has {len(noise.schedule)} shares for {n_stacks} stacks; give {n_stacks}",
                path="training.noise.schedule",
            )
        found = noise.schedule
    elif n_stacks == 1:
        found = (noise.r_last,)
    else:
        found = tuple(_at(noise, k / (n_stacks - 1)) for k in range(n_stacks))
    falling = all(left > right for left, right in itertools.pairwise(found))
    if not falling or not found[-1] > 0 or found[0] > HEAVIEST:
        raise ConfigError(
            f"gives r = {', '.join(f'{r:g}' for r in found)}: the shares must fall from left to right, and "
            f"lie between 0 and {HEAVIEST}",
            path="training.noise",
        )
    return tuple(round(r, 12) for r in found)


def _at(noise: Noise, x: float) -> float:
    first, last = noise.r_first, noise.r_last
    if noise.schedule == "exponential":
        return first * (last / first) ** x if last > 0 else 0.0
    falling = 1 - x if noise.schedule == "linear" else (1 + math.cos(math.pi * x)) / 2
    return last + (first - last) * falling


def band_of(noise: Noise, r: tuple[float, ...], number: int) -> Band:
    """The band in which the training of stack `number` (0 is the leftmost) draws its share."""
    if noise.kind == "point":
        return r[number], r[number]
    if noise.kind == "cumulative":
        return r[-1], r[number]
    above = r[number] if number == 0 else (r[number - 1] + r[number]) / 2
    below = r[number] if number == len(r) - 1 else (r[number] + r[number + 1]) / 2
    return below, above


def bands(trial: TrialConfig, n_stacks: int) -> tuple[tuple[Band, ...], ...]:
    """What each stack's training draws its shares from, leftmost stack first.

    Where the stack's number gives the noise (`time: depth`) that is the stack's own band; where the model gets it
    (`time: input`), t ~ U(0, 1) gives a sequence the share r_last + (r_first − r_last) t in every stage alike.

    Raises:
        ConfigError: As `levels`; or no range is there to draw from.
    """
    noise = options_of(trial, WithNoise).noise
    if trial.training.time == "depth":
        r = levels(noise, n_stacks)
        return tuple((band_of(noise, r, number),) for number in range(n_stacks))
    if not 0 < noise.r_last < noise.r_first <= HEAVIEST:
        raise ConfigError(
            f"= {noise.r_last:g} and r_first = {noise.r_first:g} do not form a range to draw a time from; give "
            f"0 < r_last < r_first <= {HEAVIEST}, or training.time: depth",
            path="training.noise.r_last",
        )
    return (((noise.r_last, noise.r_first),),) * n_stacks


def stack_noise(trial: TrialConfig, n_stacks: int) -> tuple[Band, ...]:
    """What a stage draws from that trains all stacks: the shares that they own, or the whole range of times."""
    if trial.training.time == "input":
        return bands(trial, n_stacks)[0]
    return tuple((r, r) for r in levels(options_of(trial, WithNoise).noise, n_stacks))


def entered_blocks(trial: TrialConfig, share: float) -> tuple[int, ...]:
    """Blocks that evaluation runs on inputs of which a share is masked: all, or those that `training.entry` asks for.

    With `nearest_r` it enters at the stack whose own share is nearest (of two the one with more masks) and goes on to
    the output: an input with few masks belongs to the stacks that trained on light noise.
    """
    stacks = stacks_of(trial)
    first = 0
    if trial.training.entry == "nearest_r":
        r = levels(options_of(trial, WithNoise).noise, len(stacks))
        first = min(range(len(r)), key=lambda k: round(abs(r[k] - share), 9))
    return tuple(block for stack in stacks[first:] for block in stack)


def denoising_objective(trial: TrialConfig) -> str:
    """What a model learns from masked input: the masked tokens where it sees both sides, else the next one."""
    return "masked_denoising" if trial.fills_masks else "noisy_context"


def masks_of_stacks(config: Mapping[str, Any]) -> str:
    """In words, which masks the loss of a regime with `noise` is of (`stages.Regime.masks`).

    Args:
        config: The trial as plain data, whose numbers may be text.
    """
    training = config["training"]
    noise = ", ".join(f"{key} {value}" for key, value in sorted((training.get("noise") or {}).items()))
    stacks = int(config["model"]["n_layers"]) // int(training.get("blocks_per_stack", 1))
    finish = ", finish" if float(training.get("finish", 0)) > 0 else ""
    time = training.get("time", "depth")
    return f"masks of {training['regime']}: noise {noise}; time {time}; {stacks} stacks{finish}"
