"""Datasets and tokenizers of the Hugging Face hub, with errors that say what to do.

Called by the corpora and by `pretrained_tokenizers`. What the hub's own cache holds is found without a network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from stackwise_ray.core.errors import ConfigError, NotOnThisMachineError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_PROBE_SECONDS = 5.0


@contextlib.contextmanager
def hub_or_offline() -> Iterator[bool]:
    """Whether the hub answers; where it does not, its libraries are offline inside, and look in their cache alone.

    Without this each of their requests is tried six times: 24 to 48 s, measured, until the error is shown.
    """
    import datasets.config
    from huggingface_hub import constants

    reachable = not constants.HF_HUB_OFFLINE and _answers(constants.ENDPOINT)
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if not reachable:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield reachable
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _answers(endpoint: str) -> bool:
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    try:
        get_session().head(endpoint, timeout=_PROBE_SECONDS)
    except Exception:  # the session's library differs by version (requests, httpx), and so do its errors
        return False
    return True


def load_hub(
    hub_path: str,
    name: str | None,
    revision: str | None,
    *,
    path: str,
    asked: str,
    tried: str = "",
    published: bool = False,
) -> DatasetDict:
    """A hub dataset, or a folder that `datasets` reads, with all its splits.

    Args:
        path: The config key that asked for it, and `asked` its value, for the message.
        tried: Where else it was looked for, for the message.
        published: Whether the dataset is known to be there.

    Raises:
        NotOnThisMachineError: The hub cannot be reached, or does not give what is there.
        ConfigError: There is no such dataset.
    """
    import datasets

    reachable = True
    try:
        with hub_or_offline() as reachable:
            loaded = datasets.load_dataset(hub_path, name, revision=revision)
    # `datasets` says "no network", "no such dataset", "a script, which is no longer run" and "no such configuration"
    # with errors of many kinds, several of them bare subclasses of Exception.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        arguments = repr(hub_path) + (f", {name!r}" if name else "") + (f", revision={revision!r}" if revision else "")
        kind = NotOnThisMachineError if published or not reachable else ConfigError
        raise kind(
            f"= {asked}: not found. {tried}Loading {hub_path} from the hub gave {type(error).__name__}: {reason}. "
            f'Where there is a network, fetch it with: python -c "import datasets; datasets.load_dataset({arguments})"',
            path=path,
        ) from error
    return cast("DatasetDict", loaded)


def texts(dataset: Dataset, column: str) -> Iterator[str]:
    """The text column of a dataset, row by row, without decoding the others.

    Raises:
        ConfigError: There is no such column, or it holds something else than text.
    """
    if column not in dataset.column_names:
        raise ConfigError(
            f"= {column}: the dataset has no such column; choose one of {', '.join(dataset.column_names)}",
            path="data.text_field",
        )
    for i, row in enumerate(dataset.select_columns([column])):
        text = row[column]
        if not isinstance(text, str):
            raise ConfigError(
                f"= {column}: row {i} is a {type(text).__name__}; it must be text", path="data.text_field"
            )
        yield text
