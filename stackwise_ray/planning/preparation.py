"""The data of a sweep, prepared once in the driver: fingerprints for identities, vocabularies for the plan."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stackwise_ray.config.trial import DataConfig, TrialConfig
from stackwise_ray.core.callbacks import ProgressCallback
from stackwise_ray.core.errors import NotOnThisMachineError
from stackwise_ray.data import PreparedData, prepare


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What the cost of a trial depends on, besides its configuration.

    Attributes:
        vocab_size: Entries of the tokenizer; None: not known, because the data are not on this machine.
        split_tokens: Tokens of each split; None: the data are not on this machine.
        tokenizer: Its folder; None: the data are not on this machine.
        remarks: Notes for the reader of the plan: data that are not on this machine, a split that is the user's own.
    """

    vocab_size: int | None
    special_ids: Mapping[str, int]
    split_tokens: Mapping[str, int] | None = None
    tokenizer: Path | None = None
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: PreparedData) -> DataFacts:
        """The facts of prepared data."""
        return cls(
            vocab_size=data.vocab_size,
            special_ids=data.special_ids,
            split_tokens={name: split.n_tokens for name, split in data.splits.items()},
            tokenizer=data.directory / "tokenizer",
            remarks=data.remarks,
        )

    @classmethod
    def elsewhere(cls, trial: TrialConfig, problem: NotOnThisMachineError) -> DataFacts:
        """The facts of data that are not on this machine: from the tokenizer, or from the model's published one."""
        tokenizer = trial.data.tokenizer
        found = _vocabulary(tokenizer)
        vocab_size, special_ids = (_published(trial), {}) if found is None else found
        counted = f"a vocabulary of {vocab_size:,}" if vocab_size is not None else "nothing"
        whose = f" ({'as published for the model' if found is None else f'that of {tokenizer}'})" * bool(vocab_size)
        return cls(
            vocab_size=vocab_size,
            special_ids=special_ids,
            remarks=(
                f"{trial.data.corpus} is not on this machine: the plan counts with {counted}{whose} and without the "
                f"lengths of its splits; the run needs the data. {str(problem).rstrip('.')}.",
            ),
        )


class PreparedCorpora:
    """Prepared data by configuration; each is prepared at most once.

    Args:
        progress: Called with how far the preparation is.
    """

    def __init__(self, progress: ProgressCallback | None = None) -> None:
        self._progress = progress
        self._prepared: dict[DataConfig, PreparedData | NotOnThisMachineError] = {}
        self._lock = threading.Lock()

    def get(self, config: DataConfig) -> PreparedData:
        """The prepared data of a configuration.

        Raises:
            NotOnThisMachineError: The data are not on this machine.
        """
        with self._lock:
            if config not in self._prepared:
                try:
                    self._prepared[config] = prepare(config, progress=self._progress)
                except NotOnThisMachineError as error:
                    self._prepared[config] = error
            found = self._prepared[config]
        if isinstance(found, NotOnThisMachineError):
            raise found
        return found

    def facts(self, trial: TrialConfig) -> DataFacts:
        """The facts that the plan of a trial needs, also if the data are not on this machine."""
        try:
            return DataFacts.of(self.get(trial.data))
        except NotOnThisMachineError as error:
            return DataFacts.elsewhere(trial, error)

    def fingerprint(self, config: DataConfig) -> str:
        """The fingerprint of the data, which is a part of a trial's identity."""
        return self.get(config).fingerprint


def _vocabulary(tokenizer: str) -> tuple[int, Mapping[str, int]] | None:
    """Entries and special ids of a tokenizer that follow from its name, or from a copy on this machine."""
    from stackwise_ray.data.tokenizers import tokenizer_source  # here: the module loads what encodes

    if tokenizer == "words":  # the types of the train split, which is elsewhere
        return None
    if tokenizer.startswith("bpe:"):
        tokenizer_source(tokenizer)  # refuses one that is no size
        return int(tokenizer.partition(":")[2].replace("_", "")), {}
    try:
        encoder = tokenizer_source(tokenizer).build(_no_texts)
    except NotOnThisMachineError:
        return None
    return encoder.vocab_size, encoder.special_ids


def _no_texts() -> Iterator[str]:
    """The train split, of which a finished tokenizer reads nothing."""
    return iter(())


def _published(trial: TrialConfig) -> int | None:
    """The vocabulary of the model's published size, or of its family."""
    from stackwise_ray.models.family import FAMILIES
    from stackwise_ray.models.sizes import published_size

    published = published_size(trial.model)
    known = None if published is None else published[1].model.vocab_size
    return trial.model.vocab_size or known or FAMILIES.get(trial.model.family).published_vocab_size
