"""Where a benchmark's files are looked for: the path given, then $STACKWISE_DATA, then the hub.

What is found is used or refused, never replaced by another dataset. Called by the corpora.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stackwise_ray.config.trial import DataConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data.corpus import SPLITS, Split
from stackwise_ray.data.hub_access import load_hub, texts


@dataclass(frozen=True, kw_only=True)
class BenchmarkData(DataConfig):
    """The options of a published dataset."""

    path: str | None = None  # folder with its files; None: $STACKWISE_DATA, then the hub


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """How a published dataset is laid out.

    Attributes:
        folder: Its folder under $STACKWISE_DATA.
        file_names: For each known layout, the names of the train, validation and test file.
        hub_path: Repository of its dataset on the hub.
        hub_name: Configuration of that dataset.
        hub_revision: Branch with data files where the main one has a script only; None: the main one.
    """

    folder: str
    file_names: Sequence[tuple[str, str, str]]
    hub_path: str
    hub_name: str
    hub_revision: str | None = None

    def find(self, config: BenchmarkData) -> Mapping[Split, Path] | None:
        """The files of a local copy, or None where only the hub is left.

        Raises:
            ConfigError: `data.path` is given and the files are not there: what was asked for is not replaced.
        """
        if config.path is not None:
            files = self._files(Path(config.path).expanduser())
            if files is None:
                raise ConfigError(
                    f"= {config.path}: {config.corpus} is not there; give a folder with {self._expected()}",
                    path="data.path",
                )
            return files
        shared = os.environ.get("STACKWISE_DATA")
        return self._files(Path(shared) / self.folder) if shared else None

    def hub_rows(self, config: DataConfig, split: Split, column: str) -> Iterator[str]:
        """The rows of a split on the hub.

        Raises:
            NotOnThisMachineError: It is in none of the places tried, which the message lists.
        """
        shared = os.environ.get("STACKWISE_DATA")
        tried = f"{Path(shared) / self.folder}" if shared else "$STACKWISE_DATA (not set)"
        dataset = load_hub(
            self.hub_path,
            self.hub_name,
            self.hub_revision,
            path="data.corpus",
            asked=config.corpus,
            tried=f"Looked in data.path (not set) and {tried} for {self._expected()}. ",
            published=True,
        )
        yield from texts(dataset[split], column)

    def _files(self, folder: Path) -> Mapping[Split, Path] | None:
        for names in self.file_names:
            paths = [folder / name for name in names]
            if all(path.is_file() for path in paths):
                return dict(zip(SPLITS, paths, strict=True))
        return None

    def _expected(self) -> str:
        return " or ".join(", ".join(names) for names in self.file_names)
