"""Saved models: where their files are, what they hold by name, their content as a fingerprint, and loading them whole.

`build` takes weights from here for training, `training.scoring` for evaluation. Finding, naming and fingerprinting load
neither torch nor transformers, so that a sweep's driver can ask. What growing left in a model is `growth`'s.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_WEIGHTS = "model*.safetensors"
"""One file or its shards. Nothing pickled is ever read: a stranger's file could run code."""

IN_ONE_KERNEL = {"gelu_new": "gelu_pytorch_tanh"}
"""Activations of transformers that are a chain of operations, to those of the same definition that are one kernel.

GPT-2's GELU, ½x (1 + tanh √(2/π) (x + 0.044715 x³)), is eight operations as `gelu_new`, all of them in float32 under
autocast. The values differ by rounding in float32.
"""
_ACTIVATION_FIELDS = ("activation_function", "hidden_act", "hidden_activation")
"""Names under which transformers configs keep the activation of the channel mixer."""


def saved_folder(source: str, *, path: str) -> Path:
    """The folder of a saved model; one of the hub is fetched into the hub's own cache.

    Args:
        path: The key or option that named it, for messages.

    Raises:
        ConfigError: It is neither a folder nor on the hub.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if source.startswith(("/", ".", "~")) or source.count("/") > 1:  # no name of the hub is like that
        raise ConfigError(f"= {source}: there is no such folder", path=path)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=["config.json", _WEIGHTS, "model*.index.json"]))
    except (OSError, ValueError) as error:
        raise _unreadable(source, error, path) from None


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files with the weights, by name; empty where there are none."""
    return tuple(sorted(folder.glob(_WEIGHTS)))


def stored_names(folder: Path) -> dict[str, Path]:
    """The names of all stored tensors and the file that holds each; no tensor is read.

    Source: the safetensors format: eight bytes of length, little-endian, and a JSON header of that length.
    """
    found: dict[str, Path] = {}
    for file in weight_files(folder):
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        found.update(dict.fromkeys(header.keys() - {"__metadata__"}, file))
    return found


def saved_fingerprint(folder: Path) -> str:
    """The SHA-256 of a saved model's config and weights: equal exactly where their bytes and file names are."""
    files = [file for file in (folder / "config.json", *weight_files(folder)) if file.is_file()]
    return hashlib.sha256("\n".join(f"{file.name} {file_digest(file)}" for file in files).encode()).hexdigest()


def file_digest(file: Path) -> str:
    """The SHA-256 of a file; read again only when the file has changed."""
    state = file.stat()
    return _digest(file.resolve(), state.st_size, state.st_mtime_ns, state.st_ino)


@functools.lru_cache(maxsize=256)
def _digest(file: Path, size: int, modified: int, inode: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def saved_config(folder: Path, *, path: str) -> PretrainedConfig:
    """The transformers config of a saved model, with an activation that is one kernel where there is one.

    Raises:
        ConfigError: There is none that transformers can read.
    """
    from transformers import AutoConfig

    importlib.import_module("stackwise_ray.models.bk")  # registers the family with transformers
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise _unreadable(str(folder), error, path) from None
    for field in _ACTIVATION_FIELDS:
        activation = getattr(config, field, None)
        if activation in IN_ONE_KERNEL:
            setattr(config, field, IN_ONE_KERNEL[activation])
    return config


def load_saved(folder: Path, role: str, *, path: str, **settings: Any) -> PreTrainedModel:
    """A saved model with every weight from its files, those that growing gave it included.

    Args:
        settings: Of `from_pretrained`; `config` is read from the folder where it is not among them.

    Raises:
        ConfigError: Nothing readable is there, weights are missing, which would be drawn at random, or its components
            are not what they were.
    """
    from stackwise_ray.models.component import SAVED, attach_saved, component_parameters
    from stackwise_ray.models.growth.insertion import load_own, own_names, take_form

    settings = {"config": saved_config(folder, path=path)} | settings
    try:
        with quiet_transformers():
            model, told = auto_class(role).from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **settings
            )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"= {folder} has no safetensors weights that can be loaded ({reason})", path=path) from None
    names = stored_names(folder)
    take_form(model, names)
    attach_saved(model, str(folder / "config.json"))
    own = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    besides = own_names(model) | component_parameters(model)
    lost = {*told["missing_keys"], *(str(key) for key in told["mismatched_keys"])} & own
    absent = sorted(lost | (besides - names.keys()))
    if absent:
        what = "masked language model" if role == "encoder" else "language model"
        raise ConfigError(
            f"= {folder} is not a complete {what}: it lacks {', '.join(absent[:3])}{', …' if len(absent) > 3 else ''}. "
            "These weights would be random; give a model that was trained as one",
            path=path,
        )
    left = sorted(set(told["unexpected_keys"]) - model.state_dict().keys())
    if left and hasattr(model.config, SAVED):  # this program saved it, and saves nothing that is not the model's
        shown = f"{', '.join(left[:3])}{', …' if len(left) > 3 else ''}"
        raise ConfigError(
            f"does not fit the weights beside it: {shown} would be left out; restore config.json as it was saved",
            path=SAVED,
            source=str(folder / "config.json"),
        )
    load_own(model, names, besides)
    loaded: PreTrainedModel = model
    return loaded


def auto_class(role: str) -> Any:
    """The class of transformers that makes a model of a role."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    return AutoModelForCausalLM if role == "decoder" else AutoModelForMaskedLM


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps transformers from drawing a bar for every shard, and from a report on weights that the caller checks."""
    from transformers.utils import logging

    enabled, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if enabled:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _unreadable(source: str, error: Exception, path: str) -> ConfigError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ConfigError(f"= {source} cannot be read as a transformers model ({reason})", path=path)
