"""From a table of runs to the numbers that a law is fitted to, with a reason for everything that is not used.

Called by `parametric_law`, `isoflop_valleys` and `frontier`. A run that would bend a law without a trace (ended early,
copied, on other data, with another kind of loss, without a finite loss) is refused by name; nothing is dropped here.
Tables are prepared on request with `derive_tokens` and `drop_highest`, which leave a line behind, as what
`table.selection` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stackwise_ray.core.errors import AnalysisError, did_you_mean
from stackwise_ray.core.metric_catalogue import metric_called
from stackwise_ray.core.records import TABLE_COLUMNS

from ..table.block_order import STARTS
from ..table.columns import columns_of
from ..table.exclusions import exclusion_counts, left_out_words, refuse_without_runs, without
from ..table.outlier_search import outliers_of_law
from ..table.outliers import Outlier
from ..table.run_status import check_words, is_finished, status_columns
from ..table.typed_columns import names_of, numbers_of
from ..table.units import check_units
from .laws import Array

if TYPE_CHECKING:
    import pandas as pd

FLOPS_PER_PARAM_AND_TOKEN = 6.0
"""Kaplan et al. (2020): two FLOPs forward and four backward per parameter and token."""
FEWEST_SIZES = 4
"""A valley through three points is exact whatever the noise, so its floor would be believed for no reason."""
SAME_BUDGET = 0.02
"""Runs whose FLOPs lie within this share of the smallest of them form one budget."""
_LOSS_KINDS = (
    "loss_kind",
    "loss_unit",
    "objective",
    "tokenizer",
    "parameters/data.tokenizer",
    "parameters/data.corpus",
)
SPARE_RUNS = 2
"""Runs beyond the free parameters that a fit needs, so that its misses are no rounding."""
_NO_SETTINGS = frozenset(
    {*TABLE_COLUMNS, *STARTS, "run_id", "run_name", "name", "id", "run", "trial", "replicate", "rep", "item", "group"}
    | {"user", "host", "hostname", "notes", "tags", "runtime", "attempt_seconds", "state", "unnamed"}
)
"""Columns that tell runs apart, or say when and where they ran, and set nothing."""


@dataclass(frozen=True, kw_only=True)
class LawRuns:
    """Runs in columns, checked.

    Attributes:
        columns: Positive values by column name (runs,).
        loss: Measured losses (runs,).
        labels: How to name each run in a message.
        notes: What a reader must know beside the fit.
        exclusions: What loading or the caller left out, with the reason.
    """

    columns: Mapping[str, Array]
    loss: Array
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    exclusions: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return self.loss.size

    def outliers(self, misses: Array, parameters: int) -> tuple[Outlier, ...]:
        """The runs that are far from a law of so many parameters, by log(law) - log(measured) of the losses (runs,)."""
        return outliers_of_law(self.labels, self.loss, misses, parameters)

    @property
    def compute(self) -> tuple[str, Array] | None:
        """What orders the runs by cost: flops where recorded, else params x tokens; None where neither is there."""
        if "flops" in self.columns:
            return "flops", self.columns["flops"]
        if {"params", "tokens"} <= set(self.columns):
            return "params × tokens", self.columns["params"] * self.columns["tokens"]
        return None


def read_law_runs(
    table: pd.DataFrame, required: Sequence[str], optional: Sequence[str] = (), *, tokens_from: str | None = None
) -> LawRuns:
    """The columns of `table` that a law needs, refused where they cannot answer for one.

    Args:
        required: Columns beside `loss` that must be there.
        optional: Columns that are used where every run has them.
        tokens_from: "6N" derives the column tokens as flops / (6 params).

    Raises:
        AnalysisError: A missing column, a run without finite positive values, truncated or copied runs, mixed data
            fingerprints or kinds of loss.
    """
    notes = list(table.attrs.get("notes", ()))
    if tokens_from is not None:
        table = derive_tokens(table, tokens_from)
        notes += [note for note in table.attrs["notes"] if note not in notes]
    hint = '; tokens_from="6N" derives tokens = flops / (6 params)'
    if table.empty:
        refuse_without_runs(table)
    for column in (*required, "loss"):
        words = left_out_words(table)
        gone = f" ({words})" if words else ""
        if column in table.attrs.get("empty", ()):
            raise AnalysisError(f"column '{column}' is empty in every run of the table; fill it in{gone}")
        if column not in table.columns:
            more = hint if column == "tokens" and {"flops", "params"} <= set(table.columns) else ""
            say = f"say which one holds it (--map {column}=COLUMN, or load_runs(…, columns=…))"
            raise AnalysisError(
                f"no column '{column}' in the table; {say}; {did_you_mean(column, table.columns)}{more}{gone}"
            )
    refuse_truncated(table)
    _refuse_mixtures(table)
    loss = _positive(table, "loss")
    columns = {name: _positive(table, name) for name in required}
    for name in optional:
        if name not in columns and name in table.columns and table[name].notna().all():
            columns[name] = _positive(table, name)
    _refuse_copies(table, columns, loss)
    check_units(table, columns, run_names(table))
    notes += _settings_note(table, columns) + _other_loss_note(table)
    exclusions = tuple(table.attrs.get("exclusions", ()))
    notes += [f"left out: {line}" for line in exclusion_counts(exclusions)]
    return LawRuns(columns=columns, loss=loss, labels=run_names(table), notes=tuple(notes), exclusions=exclusions)


def require_runs(n: int, n_parameters: int, law: str) -> None:
    """Refuse a law that has too many free parameters for the runs."""
    if n < n_parameters + SPARE_RUNS:
        raise AnalysisError(
            f"too few runs: {n} for the {n_parameters} free parameters of '{law}', which needs {SPARE_RUNS} more than "
            f"these, {n_parameters + SPARE_RUNS}; add runs, or tie or fix parameters"
        )


def derive_tokens(table: pd.DataFrame, rule: str) -> pd.DataFrame:
    """The table with tokens = flops / (6 params), and a note that says so.

    Raises:
        AnalysisError: Another rule, tokens that are there already, or no flops and params.
    """
    if rule != "6N":
        raise AnalysisError(f"tokens_from = '{rule}' is not a rule; choose '6N' (tokens = flops / (6 params))")
    if "tokens" in table.columns:
        raise AnalysisError(
            "tokens_from = '6N' would replace the tokens of the table, which were counted; leave it out"
        )
    refuse_without_runs(table)
    for column in ("flops", "params"):
        if column not in table.columns:
            raise AnalysisError(f"tokens_from = '6N' needs a column '{column}'; {did_you_mean(column, table.columns)}")
    flops, params = _positive(table, "flops"), _positive(table, "params")
    derived = table.assign(tokens=flops / (FLOPS_PER_PARAM_AND_TOKEN * params))
    notes = [*table.attrs.get("notes", ()), "tokens derived as flops / (6 params), not counted"]
    derived.attrs = {**table.attrs, "notes": notes}
    return derived


def drop_highest(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The table without the `count` runs of the highest loss, each listed among the exclusions.

    Raises:
        AnalysisError: A negative count, or no run left.
    """
    refuse_without_runs(table)
    if "loss" not in table.columns:
        raise AnalysisError(f"no column 'loss' in the table; {did_you_mean('loss', table.columns)}")
    if not 0 <= count < len(table):
        raise AnalysisError(f"drop_highest = {count} must lie between 0 and {len(table) - 1}, one less than the runs")
    order = numbers_of(table, "loss", run_names(table)).to_numpy().argsort(kind="stable")
    worst = np.isin(np.arange(len(table)), order[len(table) - count :])
    return without(table, worst, "loss", f"among the {count} highest losses, as asked")


def budget_groups(flops: Array) -> NDArray[np.intp]:
    """Number of the budget of each run, from the smallest: within 2 % of the smallest of its group.

    >>> budget_groups(np.array([1e12, 3e12, 1.01e12])).tolist()
    [0, 1, 0]
    """
    groups = np.zeros(flops.size, dtype=np.intp)
    group, first = -1, -np.inf
    for index in np.argsort(flops, kind="stable"):
        if group < 0 or flops[index] > first * (1 + SAME_BUDGET):
            group, first = group + 1, float(flops[index])
        groups[index] = group
    return groups


def refuse_truncated(table: pd.DataFrame) -> None:
    """Refuse runs that did not finish, in a table that nobody freed of them."""
    for column in status_columns(table.columns):
        status = table[column].dropna()
        check_words(column, status)
        other = status[~status.map(is_finished).eq(True)]
        if len(other):
            kinds = ", ".join(f"{count} {kind}" for kind, count in other.value_counts().items())
            label = run_names(table.loc[other.index])[0]
            why = "a run that ended early has the loss of a truncated run, which no law describes"
            raise AnalysisError(f"{kinds} among {len(table)} runs ({label}): {why}; keep the finished ones")


def _refuse_mixtures(table: pd.DataFrame) -> None:
    for column, words in (("data_fingerprint", "different data"), *((name, "kinds of loss") for name in _LOSS_KINDS)):
        if column in table.columns and table[column].dropna().nunique() > 1:
            counts = table[column].dropna().map(lambda value: str(value)[:120]).value_counts()
            shown = ", ".join(f"{value} ({count} runs)" for value, count in counts.items())
            raise AnalysisError(
                f"mixed {words} in column '{column}': {shown}; a law holds for one, so keep the runs of one"
            )
    models = table["parameters/model"].dropna().astype(str) if "parameters/model" in table.columns else None
    if models is not None:
        kinds = sorted({name.split("/")[0] for name in models} & {"encoder", "decoder"})
        if len(kinds) > 1:
            raise AnalysisError(
                "mixed kinds of loss: encoders (loss on masked tokens) and decoders (on every token); keep one of them"
            )


def _refuse_copies(table: pd.DataFrame, columns: Mapping[str, Array], loss: Array) -> None:
    for name in ("trial_id", "run_id"):
        if name in table.columns and table[name].dropna().duplicated().any():
            twice = table[name].dropna()[table[name].dropna().duplicated()].iloc[0]
            raise AnalysisError(f"run {twice} stands in the table more than once ({name}); keep it once")
    used = [name for name in table.columns if name in {*columns, "loss"}]
    others = [name for name in table.columns if name not in used]
    frame = table[others].astype(str).assign(**columns, loss=loss)
    copies = frame.duplicated(keep=False).to_numpy()
    if copies.any():
        where = [label for label, copy in zip(run_names(table), copies, strict=True) if copy]
        raise AnalysisError(
            f"duplicated runs: {', '.join(where[:4])} have the same {', '.join([*used, *others])}; keep each run once, "
            f"or name their seeds in a column 'seed'"
        )


def _settings_note(table: pd.DataFrame, columns: Mapping[str, Array]) -> list[str]:
    """A note where runs of the same sizes differ in a setting, of which a law wants the best."""
    import pandas as pd

    sizes = [name for name in ("params", "tokens", "unique_tokens") if name in columns] or list(columns)
    groups = pd.Series(list(zip(*(columns[name] for name in sizes), strict=True)), index=table.index)
    shared = groups[groups.duplicated(keep=False)]
    found = []
    for name in table.columns:
        if name in {*columns, "loss"} or name.lower() in _NO_SETTINGS or "seed" in name.lower():
            continue
        if metric_called(name) is not None:
            continue
        values = names_of(table, name)[shared.index]
        varies = int((values.groupby(shared).nunique() > 1).sum())
        if varies and values.nunique() <= len(values) / 2:
            found.append(f"{name} ({values.nunique()} values)")
    if not found:
        return []
    return [
        f"runs of the same {' and '.join(sizes)} differ in {', '.join(found)}: a law describes the best of them, and "
        f"this one is of all; keep the run of the lowest loss at each"
    ]


def _positive(table: pd.DataFrame, column: str) -> Array:
    """The column as positive finite numbers, or a refusal that names the first run that has none."""
    labels = run_names(table)
    numbers: Array = np.asarray(numbers_of(table, column, labels), dtype=np.float64)
    bad = ~(np.isfinite(numbers) & (numbers > 0))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise AnalysisError(
            f"column '{column}': {int(bad.sum())} of {len(table)} values are not positive finite numbers (first: "
            f"{numbers[first]:g}, {labels[first]}); leave these runs out and say so (--drop-missing, or --where)"
        )
    return numbers


def _other_loss_note(table: pd.DataFrame) -> list[str]:
    """A note where `loss` may be of the training, as a loss of the validation stands beside it."""
    others = [name for name in columns_of("validation/loss", table.columns) if name != "loss"]
    if not others or "validation/loss" in others or "loss" in table.attrs.get("sources_of", {}).values():
        return []
    return [f"the law is of the column 'loss'; the table has '{others[0]}' as well (--map loss={others[0]})"]


def run_names(table: pd.DataFrame) -> tuple[str, ...]:
    """How each run is named in a message."""
    for name in ("trial_id", "run_id"):
        if name in table.columns:
            return tuple(f"{name} {value}" for value in table[name])
    return tuple(f"row {index}" for index in table.index)
