"""Trials of an Optuna study as rows, from any of its storages: a database, or a journal file.

Read with the library `optuna`, which must know the version of the storage. The storage is only read: a database file
is opened for reading, and nothing is created.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError, did_you_mean

from .foreign import as_source, beside, flattened, library, parted, sqlite_tables
from .source_kind import SourceKind, SourceRows

if TYPE_CHECKING:
    import optuna

_STATUS = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "pending"}
_TABLES = {"studies", "trials", "study_directions"}
"""Tables that every version of Optuna's databases has, and MLflow's have not."""


def is_database(uri: str) -> bool:
    """Whether a database URL, or the path of an SQLite file, holds Optuna's tables; False where it cannot be asked."""
    if "://" not in uri or uri.startswith("sqlite:///"):
        return sqlite_tables(Path(uri.removeprefix("sqlite:///"))) >= _TABLES
    if uri.startswith(("http://", "https://", "file://", "databricks")):
        return False
    sqlalchemy = library("sqlalchemy", "sqlalchemy", "databases behind a URL")
    try:
        engine = sqlalchemy.create_engine(uri)
        return set(sqlalchemy.inspect(engine).get_table_names()) >= _TABLES
    except (sqlalchemy.exc.SQLAlchemyError, ImportError):
        return False


def is_journal(path: Path) -> bool:
    """Whether a file begins as the journal of a `JournalFileBackend` does."""
    with path.open("rb") as file:
        first = file.readline(10_000)
    return first.startswith(b"{") and b'"op_code"' in first and b'"worker_id"' in first


def read_study(source: str) -> SourceRows:
    """The trials of "storage#study".

    Raises:
        AnalysisError: No study named, or what `study_trials` refuses.
    """
    uri, name = parted(source)
    if name is None:
        optuna = _optuna()
        with _storage(uri) as storage:
            names = ", ".join(map(str, optuna.study.get_all_study_names(storage))) or "none"
        raise AnalysisError(f"{source}: name a study after '#'; the storage has: {names}")
    return as_source(*study_trials(uri, name))


def study_trials(uri: str, name: str) -> tuple[list[dict[str, Any]], list[str], dict[str, str]]:
    """One row per trial of a study, in the order in which they were asked for, notes, and the study's directions.

    Raises:
        AnalysisError: optuna is not installed, no such study, or a storage of another version.
    """
    optuna = _optuna()
    with _storage(uri) as storage:
        names = [str(each) for each in optuna.study.get_all_study_names(storage)]
        if name not in names:
            raise AnalysisError(f"{uri}: no study '{name}'; {did_you_mean(name, names)}")
        study = optuna.load_study(study_name=name, storage=storage)
        trials, goals = study.get_trials(deepcopy=False), [goal.name.lower() for goal in study.directions]
        metrics = study.metric_names or (
            ["value"] if len(goals) == 1 else [f"values/{number}" for number in range(len(goals))]
        )
    shown = ", ".join(f"{goal} {metric}" for goal, metric in zip(goals, metrics, strict=True))
    ways = dict(zip(metrics, goals, strict=True))
    return [_row(trial, metrics) for trial in trials], [f"the study was asked to {shown}"], ways


def _row(trial: optuna.trial.FrozenTrial, metrics: list[str]) -> dict[str, Any]:
    """A pruned trial has reported a value of a part of its training: this is no value of the objective."""
    state = trial.state.name
    row: dict[str, Any] = {"run_name": f"trial {trial.number}", "status": _STATUS.get(state, state)}
    if trial.datetime_start is not None:
        row["start_time"] = trial.datetime_start.timestamp()
    if trial.duration is not None:
        row["attempt_seconds"] = trial.duration.total_seconds()
    if state == "COMPLETE":
        row |= dict(zip(metrics, trial.values, strict=True))
    beside(row, trial.params, "parameters")
    beside(row, flattened(trial.user_attrs), "attributes")
    return row


def _optuna() -> Any:
    found = library("optuna", "optuna", "Optuna studies")
    found.logging.set_verbosity(found.logging.WARNING)
    return found


@contextmanager
def _storage(uri: str) -> Iterator[Any]:
    """The storage behind a URL or a path, its complaints in our words."""
    optuna = _optuna()
    path = Path(uri.removeprefix("sqlite:///"))
    try:
        if "://" not in uri and is_journal(path):
            yield optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        elif path.is_file():
            read_only = f"sqlite:///{path.resolve().as_uri()}?mode=ro&uri=true"
            yield optuna.storages.RDBStorage(read_only, skip_table_creation=True)
        else:
            yield optuna.storages.RDBStorage(uri, skip_table_creation=True)
    except AnalysisError:
        raise
    except (RuntimeError, ValueError, OSError, ImportError, optuna.exceptions.OptunaError) as error:
        said = str(error).strip().splitlines()[0][:300]
        raise AnalysisError(
            f"{uri}: optuna {optuna.__version__} cannot read this storage ({said}); give a storage that this version "
            f"reads, or install the version that wrote it"
        ) from error


def _recognises(source: str) -> bool:
    uri = parted(source)[0]
    return is_database(uri) or (Path(uri).is_file() and is_journal(Path(uri)))


KIND = SourceKind(
    name="optuna",
    described="an Optuna study (sqlite:///FILE#STUDY, or JOURNAL#STUDY)",
    recognises=_recognises,
    read=read_study,
)
