"""The kinds of sources that runs are read from, in the order in which they are asked."""

from __future__ import annotations

from pathlib import Path

from stackwise_ray.core.errors import AnalysisError

from . import delimited_text, mlflow_experiment, sweep_journal
from .source_kind import SourceKind, SourceRows

KINDS: tuple[SourceKind, ...] = (mlflow_experiment.KIND, delimited_text.KIND, sweep_journal.KIND)


def kind_of(source: str) -> SourceKind:
    """The kind of a source.

    Raises:
        AnalysisError: It is not there, or it is of no known kind; the message lists the kinds.
    """
    for kind in KINDS:
        if kind.recognises(source):
            return kind
    listed = "; ".join(kind.described for kind in KINDS)
    path = Path(source)
    if path.is_dir():
        within = sweep_journal.sweeps_inside(path)
        raise AnalysisError(f"{source}: no journal.sqlite in this folder{within}; give one of: {listed}")
    what = "not a source that runs are read from" if path.exists() else "no such file or folder"
    raise AnalysisError(f"{source}: {what}; give one of: {listed}")


def read_rows(source: str) -> SourceRows:
    """The rows of a source of any kind.

    Raises:
        AnalysisError: No such source, one of no known kind, or one that cannot be read.
    """
    return kind_of(source).read(source)
