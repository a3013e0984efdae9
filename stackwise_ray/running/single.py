"""One trial by itself, without a sweep: its folder has one owner, one configuration, and counts its own attempts.

The command `train` and the Python interface (`sw.train`, `sw.build_model`) use this module. Sweeps number attempts in
their journal and call `run.run_trial` directly.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise_ray.config.identity import plugins_of
from stackwise_ray.config.reading.yaml import load_yaml
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.editing import from_plain, to_plain
from stackwise_ray.core.atomic import atomic_write_text
from stackwise_ray.core.callbacks import ProgressCallback
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.ownership import SweepLock
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.data import PreparedData, prepare
from stackwise_ray.flags import apply_flags
from stackwise_ray.models import build_model as build_from_config
from stackwise_ray.running.run import run_trial
from stackwise_ray.training.initial import identify, initial_fingerprint
from stackwise_ray.training.trial_folder import TrialResult, unwritable_is_named

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def train(
    trial: TrialConfig, output: str | Path, *, on_record: Callable[[MetricRecord], object] | None = None
) -> TrialResult:
    """Train one trial in this process, in the folder `output`; the same call continues it, or returns its result.

    Args:
        output: The trial's folder: a new one, or one of this very trial.
        on_record: Called with every record as it comes.

    Raises:
        ConfigError: `output` contains another trial, another process trains in it, or it cannot be written.
        TrialError, DiskFullError: As `run.run_trial`.

    Example:
        >>> import stackwise_ray as sw
        >>> sw.train(sw.load_trial(["model=decoder/gpt2_family/tiny"]), output="runs/x")  # doctest: +SKIP
    """
    with owned(trial, output) as directory:
        run = attempt(trial, directory)
        while True:
            try:
                record = next(run)
            except StopIteration as end:
                result: TrialResult = end.value
                return result
            if on_record is not None:
                on_record(record)


@contextlib.contextmanager
def owned(trial: TrialConfig, output: str | Path) -> Iterator[Path]:
    """The folder `output`, made and owned by this process while the block lasts.

    Raises:
        ConfigError: It contains another trial, has another owner, or cannot be written.
    """
    directory = Path(output)
    with unwritable_is_named(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with SweepLock(directory):
        _refuse_another_trial(trial, directory)
        yield directory


def attempt(
    trial: TrialConfig, directory: Path, *, data: PreparedData | None = None, progress: ProgressCallback | None = None
) -> Generator[MetricRecord, None, TrialResult]:
    """The next attempt at the trial in its owned folder, as `run.run_trial` runs it.

    Args:
        data: Prepared data; None: prepared here.
        progress: Called with how far the preparation of the data is.
    """
    data = data or prepare(trial.data, progress=progress)
    path = directory / "attempt"
    number = 1 + (int(path.read_text()) if path.is_file() else 0)
    atomic_write_text(path, str(number))
    return run_trial(trial, directory, trial_id=identify(trial, data.fingerprint), attempt=number, data=data)


def _refuse_another_trial(trial: TrialConfig, directory: Path) -> None:
    path = directory / "config.yaml"
    if not path.is_file():
        return
    stored, wanted = to_plain(from_plain(load_yaml(path), source=str(path))), to_plain(trial)
    differences = list(_differences(stored, wanted))
    if differences:
        shown = "; ".join(f"{name} was {old!r}, is {new!r}" for name, old, new in differences[:3])
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ConfigError(
            f"contains another trial ({shown}{more}); choose another --output, or delete this folder",
            source=str(directory),
        )
    _refuse_other_weights(trial, directory)
    _refuse_changed_plugins(trial, directory)


def _refuse_changed_plugins(trial: TrialConfig, directory: Path) -> None:
    path = directory / "metadata" / "environment.json"
    stored = json.loads(path.read_text()).get("plugins", []) if path.is_file() else []
    hashes = {record["sha256"] for record in stored}
    for plugin in plugins_of(trial) if path.is_file() else ():
        if plugin.sha256 not in hashes:
            raise ConfigError(
                f"contains a trial that began before the plugin {plugin.name} changed (its sha256 is now "
                f"{plugin.sha256[:12]}); choose another --output, delete this folder, or restore the plugin",
                source=str(directory),
            )


def _refuse_other_weights(trial: TrialConfig, directory: Path) -> None:
    path = directory / "metadata" / "environment.json"
    stored = json.loads(path.read_text()).get("weights_fingerprint") if path.is_file() else None
    if stored is not None and stored != initial_fingerprint(trial):
        raise ConfigError(
            f"contains a trial that began from other weights ({stored[:12]}) than those that training.init_from names "
            "now; choose another --output, delete this folder, or restore the weights",
            source=str(directory),
        )


def _differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new


def build_model(
    trial: TrialConfig,
    *,
    vocab_size: int,
    special_ids: Mapping[str, int] | None = None,
    device: str | torch.device = "cpu",
) -> PreTrainedModel:
    """The trial's model with random weights from torch's default generator (seed it yourself), in training mode.

    Args:
        vocab_size: The tokenizer's size.
        device: "meta" builds shapes without weights.

    Raises:
        ConfigError: A field does not fit the family.
    """
    trial = apply_flags(trial)
    return build_from_config(
        trial.model, vocab_size=vocab_size, seq_len=trial.data.seq_len, special_ids=special_ids, device=device
    )
