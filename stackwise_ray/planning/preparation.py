"""The data of a sweep, prepared once in the driver: fingerprints for identities, vocabularies for the plan."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from rich.console import Console

from stackwise_ray.config.trial import DataConfig
from stackwise_ray.data import PreparedData, prepare


class PreparedCorpora:
    """Prepared data by configuration; each is prepared at most once, with progress where it takes long."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._prepared: dict[DataConfig, PreparedData] = {}
        self._lock = threading.Lock()

    def get(self, config: DataConfig) -> PreparedData:
        """The prepared data of a configuration."""
        with self._lock:
            if config not in self._prepared:
                with self._shown() as show:
                    self._prepared[config] = prepare(config, progress=show)
            return self._prepared[config]

    def fingerprint(self, config: DataConfig) -> str:
        """Its fingerprint: part of every trial's identity."""
        return self.get(config).fingerprint

    @contextlib.contextmanager
    def _shown(self) -> Iterator[_Shown]:
        if not self._console.is_terminal:
            yield _Shown(self._console, None)
            return
        with self._console.status("preparing data …") as status:
            yield _Shown(self._console, status)


class _Shown:
    """A `core.callbacks.ProgressCallback` on the console: a live line on a terminal, else one line a piece of work."""

    def __init__(self, console: Console, status: object | None) -> None:
        self._console, self._status, self._last = console, status, ""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        share = f" {100 * done // total} %" if total else ""
        if self._status is not None:
            self._status.update(f"{what}{share}")  # type: ignore[attr-defined]
        elif what != self._last:
            self._console.print(what, highlight=False)
        self._last = what
