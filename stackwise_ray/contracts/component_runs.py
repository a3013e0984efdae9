"""Short runs of one component that its contract looks at: seconds of work on generated text.

Called by `components_contract`. A run that was not interrupted is made once per component and shared by the checks.
Nothing that these runs measure goes into the machine's calibration.
"""

from __future__ import annotations

import contextlib
import functools
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise_ray.config.trial import Budget, TrialConfig, replace_training
from stackwise_ray.config.trial.registered import NamedOptions
from stackwise_ray.contracts import NotAtHand
from stackwise_ray.contracts.small_trial import small_trial
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.registries import COMPONENTS

if TYPE_CHECKING:
    from stackwise_ray.planning.trial_plan import TrialPlan

TIMES = ("time/", "throughput/", "memory/process")
"""Metrics that are other ones in every run."""
STEPS, KILLED_AFTER = 10, 6


@dataclass(frozen=True, kw_only=True)
class ComponentRun:
    """A run that has ended.

    Attributes:
        metrics: Its result's, by path.
        folder: The trial's.
    """

    metrics: Mapping[str, float]
    folder: Path

    def exact(self) -> dict[str, float]:
        """The metrics that the trial decides, and no clock."""
        return {name: value for name, value in self.metrics.items() if not name.startswith(TIMES)}

    def stages(self) -> list[dict[str, Any]]:
        """What was counted in each stage."""
        content = json.loads((self.folder / "outputs" / "metrics.json").read_text())
        return list(content["stages"])

    def weights(self) -> dict[str, Any]:
        """The saved tensors by name."""
        from safetensors.torch import load_file

        return dict(load_file(self.folder / "model" / "model.safetensors"))


def plain_trial() -> TrialConfig:
    """Ten steps of three blocks without a component."""
    trial = small_trial()
    training = replace_training(trial.training, budget=Budget(steps=STEPS))
    return replace(trial, model=replace(trial.model, n_layers=3), training=training)


def trial_with(name: str) -> TrialConfig:
    """Ten steps of three blocks with a component at its default options.

    Raises:
        NotAtHand: The component refuses that trial.
    """
    from stackwise_ray.config.trial.rules import check_trial

    plain = plain_trial()
    selected = NamedOptions({name: COMPONENTS.get(name).options()})
    trial = replace(plain, model=replace(plain.model, components=selected))
    try:
        check_trial(trial)
    except ConfigError as error:
        raise NotAtHand(f"a small trial with it is refused: {error}") from None
    return trial


def plan_of(trial: TrialConfig) -> TrialPlan:
    """What a trial is planned to cost."""
    from stackwise_ray.data import prepare
    from stackwise_ray.planning.trial_plan import plan_trial

    data = prepare(trial.data)
    tokens: dict[str, int] = {split: stream.n_tokens for split, stream in data.splits.items()}
    return plan_trial(trial, vocab_size=data.vocab_size, special_ids=data.special_ids, split_tokens=tokens)


def run(trial: TrialConfig, folder: Path, *, attempt: int = 1) -> ComponentRun:
    """Run a trial to its end, from its newest checkpoint on."""
    from stackwise_ray.running.run import run_trial

    generator = run_trial(trial, folder, trial_id="contract", attempt=attempt, calibrate=False)
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return ComponentRun(metrics=end.value.metrics, folder=folder)


def finished(name: str) -> ComponentRun:
    """The run of a component that was not interrupted."""
    return _finished(COMPONENTS.get(name), name)[0]


@functools.lru_cache(maxsize=1)  # on the entry itself: another one may be registered under the name later
def _finished(entry: Any, name: str) -> tuple[ComponentRun, tempfile.TemporaryDirectory[str]]:
    folder = tempfile.TemporaryDirectory()
    return run(trial_with(name), Path(folder.name)), folder


@contextlib.contextmanager
def continued(name: str) -> Iterator[ComponentRun]:
    """The same run, stopped in its middle and continued from its checkpoint; its folder is gone after the block."""
    from stackwise_ray.running.run import run_trial

    trial = trial_with(name)
    trial = replace(trial, training=replace_training(trial.training, checkpoint_seconds=0.0, report_seconds=0.0))
    with tempfile.TemporaryDirectory() as folder:
        stopped = run_trial(trial, Path(folder), trial_id="contract", attempt=1, calibrate=False)
        for record in stopped:
            if record.step >= KILLED_AFTER:
                break
        stopped.close()
        yield run(trial, Path(folder), attempt=2)
