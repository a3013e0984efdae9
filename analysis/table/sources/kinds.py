"""The kinds of sources that runs are read from, in the order in which they are asked."""

from __future__ import annotations

from pathlib import Path

from stackwise_ray.core.errors import AnalysisError

from . import (
    delimited_text,
    hydra_jobs,
    json_table,
    lm_eval_results,
    mlflow_experiment,
    optuna_trials,
    parquet_table,
    sweep_journal,
    tensorboard_runs,
    trainer_states,
    wandb_curves,
)
from .mislabelled import refuse_mislabelled
from .source_kind import SourceKind, SourceRows

KINDS: tuple[SourceKind, ...] = (
    wandb_curves.KIND,
    delimited_text.KIND,
    json_table.LINES_KIND,
    parquet_table.KIND,
    optuna_trials.KIND,  # its databases have the same URIs as MLflow's
    mlflow_experiment.KIND,
    sweep_journal.KIND,
    hydra_jobs.KIND,  # its jobs hold files of the next kinds
    trainer_states.KIND,  # the Trainer writes event files too
    lm_eval_results.KIND,
    json_table.LIST_KIND,
    tensorboard_runs.KIND,
)


def kind_of(source: str) -> SourceKind:
    """The kind of a source.

    Raises:
        AnalysisError: It is not there, or it is of no known kind; the message lists the kinds.
    """
    refuse_mislabelled(source)
    for kind in KINDS:
        if kind.recognises(source):
            return kind
    listed = "; ".join(kind.described for kind in KINDS)
    path = Path(source)
    if path.is_dir():
        within = sweep_journal.sweeps_inside(path)
        raise AnalysisError(f"{source}: nothing in this folder is known{within}; give one of: {listed}")
    what = "not a source that runs are read from" if path.exists() else "no such file or folder"
    raise AnalysisError(f"{source}: {what}; give one of: {listed}")


def read_rows(source: str) -> SourceRows:
    """The rows of a source of any kind.

    Raises:
        AnalysisError: No such source, one of no known kind, or one that cannot be read.
    """
    return kind_of(source).read(source)
