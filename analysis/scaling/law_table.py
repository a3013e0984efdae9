"""From a table of runs to the numbers that a law is fitted to, with a reason for everything that is not used.

Called by `parametric_law`, `isoflop_valleys` and `frontier`. A run that would bend a law without a trace (ended early,
copied, on other data, with another kind of loss, without a finite loss) is refused by name; nothing is dropped here.
Tables are prepared on request with `rename_columns`, `derive_tokens` and `drop_highest`, which leave a line behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stackwise_ray.core.errors import AnalysisError, did_you_mean
from stackwise_ray.core.records import OWN_MASKS

from ..table.exclusions import exclusion_counts
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
_TOO_FEW = "a law is fitted to at least two runs per parameter"


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
    for column in (*required, "loss"):
        if column in table.attrs.get("empty", ()):
            raise AnalysisError(f"column '{column}' is empty in every run of the table; fill it in")
        if column not in table.columns:
            more = hint if column == "tokens" and {"flops", "params"} <= set(table.columns) else ""
            say = f"say which one holds it (--map {column}=COLUMN, or rename_columns)"
            raise AnalysisError(
                f"no column '{column}' in the table; {say}; {did_you_mean(column, table.columns)}{more}"
            )
    if table.empty:
        raise AnalysisError("the table has no rows")
    _refuse_truncated(table)
    _refuse_mixtures(table)
    loss = _positive(table, "loss")
    columns = {name: _positive(table, name) for name in required}
    for name in optional:
        if name not in columns and name in table.columns and table[name].notna().all():
            columns[name] = _positive(table, name)
    _refuse_copies(table, columns, loss)
    exclusions = tuple(table.attrs.get("exclusions", ()))
    notes += [f"left out: {line}" for line in exclusion_counts(exclusions)]
    return LawRuns(columns=columns, loss=loss, labels=run_names(table), notes=tuple(notes), exclusions=exclusions)


def require_runs(n: int, n_parameters: int, law: str) -> None:
    """Refuse a law that has too many parameters for the runs."""
    if n < 2 * n_parameters:
        raise AnalysisError(
            f"too few runs: {n} for the {n_parameters} parameters of '{law}'; {_TOO_FEW}, so {2 * n_parameters}"
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
    for column in ("flops", "params"):
        if column not in table.columns:
            raise AnalysisError(f"tokens_from = '6N' needs a column '{column}'; {did_you_mean(column, table.columns)}")
    flops, params = _positive(table, "flops"), _positive(table, "params")
    derived = table.assign(tokens=flops / (FLOPS_PER_PARAM_AND_TOKEN * params))
    notes = [*table.attrs.get("notes", ()), "tokens derived as flops / (6 params), not counted"]
    derived.attrs = {**table.attrs, "notes": notes}
    return derived


def rename_columns(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """The table with `names[ours]` called `ours`.

    Raises:
        AnalysisError: A column that is not there, or a name that another column has.
    """
    for ours, theirs in names.items():
        if theirs not in table.columns:
            raise AnalysisError(
                f"{ours} = '{theirs}' is not a column of the table; {did_you_mean(theirs, table.columns)}"
            )
        if ours == "loss" and theirs != ours and "validation/loss" in table.columns:
            kind = [] if theirs in OWN_MASKS else ["loss_kind"]  # which says nothing of a loss on the same masks
            table = table.drop(columns=["loss", *kind], errors="ignore")  # the loss stays, under its full name
        if ours in table.columns and ours != theirs:
            raise AnalysisError(f"the table has a column '{ours}' already; '{theirs}' cannot take its name")
    renamed = table.rename(columns={theirs: ours for ours, theirs in names.items()})
    renamed.attrs = dict(table.attrs)
    return renamed


def drop_highest(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The table without the `count` runs of the highest loss, each listed among the exclusions.

    Raises:
        AnalysisError: A negative count, or no run left.
    """
    if "loss" not in table.columns:
        raise AnalysisError(f"no column 'loss' in the table; {did_you_mean('loss', table.columns)}")
    if not 0 <= count < len(table):
        raise AnalysisError(f"drop_highest = {count} must lie between 0 and {len(table) - 1}, one less than the runs")
    worst = table["loss"].astype(float).sort_values(kind="stable").index[len(table) - count :]
    dropped = [
        {"run": str(label), "by": "loss", "why": f"among the {count} highest losses, as asked"} for label in worst
    ]
    kept = table.drop(index=worst)
    kept.attrs = {**table.attrs, "exclusions": [*table.attrs.get("exclusions", ()), *dropped]}
    return kept


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


def _refuse_truncated(table: pd.DataFrame) -> None:
    if "status" not in table.columns:
        return
    status = table["status"]
    other = table[status.notna() & (status != "finished")]
    if len(other):
        kinds = ", ".join(f"{count} {kind}" for kind, count in other["status"].value_counts().items())
        why = "a run that ended early has the loss of a truncated run, which no law describes"
        raise AnalysisError(f"{kinds} among {len(table)} runs ({run_names(other)[0]}): {why}; keep the finished ones")


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
    import pandas as pd

    known = [name for name in ("arm", "seed") if name in table.columns]
    frame = pd.DataFrame({**columns, "loss": loss, **{name: table[name].to_numpy() for name in known}})
    copies = frame.duplicated(keep=False).to_numpy()
    if copies.any():
        where = [label for label, copy in zip(run_names(table), copies, strict=True) if copy]
        raise AnalysisError(
            f"duplicated runs: {', '.join(where[:4])} have the same {', '.join(frame.columns)}; keep each run once, or "
            f"name their seeds in a column 'seed'"
        )


def _positive(table: pd.DataFrame, column: str) -> Array:
    """The column as positive finite numbers, or a refusal that names the first run that has none."""
    import pandas as pd

    if isinstance(table[column], pd.DataFrame):
        raise AnalysisError(f"the table has several columns called '{column}'; keep one")
    numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float)
    bad = ~(np.isfinite(numbers) & (numbers > 0))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        value, label = table[column].iloc[first], run_names(table)[first]
        shown = f"'{value}'" if isinstance(value, str) else str(value)
        raise AnalysisError(
            f"column '{column}': {int(bad.sum())} of {len(table)} values are not positive finite numbers (first: "
            f"{shown}, {label}); leave these runs out and say so"
        )
    return numbers


def run_names(table: pd.DataFrame) -> tuple[str, ...]:
    """How each run is named in a message."""
    for name in ("trial_id", "run_id"):
        if name in table.columns:
            return tuple(f"{name} {value}" for value in table[name])
    return tuple(f"row {index}" for index in table.index)
