"""Any dataset of the Hugging Face hub (`data.path`, `data.name`), or a folder that the `datasets` library reads.

A row is a document. The dataset's own train, validation and test splits are used; of those that it does not have,
validation and test are taken out of train by hash of the text, and the recipe says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise_ray.config.trial import DataConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data.corpora import CORPORA
from stackwise_ray.data.corpus import SPLITS, Corpus, Document, Split, file_signature, split_of
from stackwise_ray.data.hub_access import load_hub, texts

if TYPE_CHECKING:
    from datasets import DatasetDict


@dataclass(frozen=True, kw_only=True)
class HubData(DataConfig):
    """The options of a dataset of the hub."""

    path: str | None = None  # its name on the hub, or a folder; required
    name: str | None = None  # its configuration
    text_field: str = "text"  # column that holds the text


@CORPORA.register("hub")
class HubDataset(Corpus):
    """Documents from a dataset on the hub; a prepared one is used again without asking the hub."""

    options = HubData

    def __init__(self, config: HubData) -> None:
        super().__init__(config)
        assert config.path is not None, "checked"
        self._path, self._name, self._text_field = config.path, config.name, config.text_field
        self._facts: dict[str, Any] = {}

    @classmethod
    def check(cls, config: DataConfig) -> None:
        super().check(config)
        assert isinstance(config, HubData)
        if config.path is None:
            raise ConfigError(
                "is required with corpus: hub, but it is absent; give the dataset's name, for example "
                "data.path=roneneldan/TinyStories",
                path="data.path",
            )

    def recipe(self) -> Mapping[str, Any]:
        return {
            "corpus": "hub",
            "text_field": self._text_field,
            "split": "the dataset's own; validation and test that it lacks out of train by sha256, 5 % each",
        }

    def signature(self) -> Mapping[str, Any]:
        folder = Path(self._path)
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
        return {"path": self._path, "name": self._name, "files": [file_signature(path) for path in files]}

    def documents(self) -> Iterator[Document]:
        dataset = self._dataset
        if "train" not in dataset:
            raise ConfigError(
                f"= {self._path}: this dataset has no split named train; it has {', '.join(map(str, dataset))}",
                path="data.path",
            )
        missing = {split for split in SPLITS if split not in dataset}
        seen: set[bytes] = set()
        dropped = 0
        # Test and validation first: what is also in them is dropped from train, not the other way round.
        for source in reversed([split for split in SPLITS if split in dataset]):
            for i, text in enumerate(texts(dataset[source], self._text_field)):
                digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
                if digest[:16] in seen:
                    dropped += 1
                    continue
                seen.add(digest[:16])
                yield Document(_target(source, digest, missing), text, f"{self._path} {source} row {i}")
        self._facts = {"splits_of_the_dataset": sorted(map(str, dataset)), "duplicates_dropped": dropped}

    def facts(self) -> Mapping[str, Any]:
        return self._facts

    @cached_property
    def _dataset(self) -> DatasetDict:
        return load_hub(self._path, self._name, None, path="data.path", asked=self._path)


def _target(source: Split, digest: bytes, missing: set[Split]) -> Split:
    if source != "train":
        return source
    by_hash = split_of(digest)
    return by_hash if by_hash in missing else "train"
