"""`fit_isoflop`: the best model size at each budget, and how it grows with the budget (Chinchilla, approach 2).

At one budget the loss over log params is a valley. Its floor is found twice: by a parabola through all sizes and by
Akima's interpolation, which passes through every mean and assumes no shape. The noise between seeds is carried through
both by a bootstrap. A budget without a floor among its sizes is refused by name and takes no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackwise_ray.core.errors import AnalysisError, did_you_mean
from stackwise_ray.core.quantities import format_number

from ..paired.intervals import check_draws
from ..render import Grid, GridView
from ..table.outlier_search import outliers_of_grid
from ..table.outliers import Outlier, outlier_lines, plain_outliers
from .allocation import LOST_SHARE, AllocationLine, fit_line, slopes
from .law_table import FEWEST_SIZES, LawRuns, budget_groups, read_law_runs
from .law_text import show_ends, show_value
from .law_words import exponent_notes, valley_caveats, valley_sentence
from .laws import Array
from .resampling import percentile_ends

if TYPE_CHECKING:
    import pandas as pd

_AKIMA_GRID = 2001
_DECADE = 10
"""Budgets closer together than this hardly move the optimum: their exponent is mostly noise (Hoffmann's span 500)."""
_MOST_NAMES = 8


@dataclass(frozen=True, kw_only=True)
class IsoFlopBudget:
    """One budget's valley.

    Attributes:
        flops: Mean over its runs; `name`: the nominal budget, or the flops in words.
        sizes: Distinct params; `losses`: mean loss of each; `runs`: how many runs each has.
        refused: Why there is no optimum; None where there is one.
        params: Size at the parabola's floor; `interval`: 95 % bootstrap, None where too many draws have no floor.
        tokens: Tokens that go with it; None where not recorded.
        akima_params: Size at the floor of Akima's interpolation; None where that lies at an edge.
        bias: Parabola's optimum over the true one, less 1, on noise-free losses of the fitted surface; None: see notes.
        akima_bias: The same for Akima's interpolation.
        coefficients: Of the parabola over log params, the highest power first.
    """

    name: str
    flops: float
    sizes: tuple[float, ...]
    losses: tuple[float, ...]
    runs: tuple[int, ...]
    log_tokens: tuple[float, float] | None
    refused: str | None
    params: float | None = None
    interval: tuple[float, float] | None = None
    tokens: float | None = None
    akima_params: float | None = None
    akima_interval: tuple[float, float] | None = None
    bias: float | None = None
    akima_bias: float | None = None
    coefficients: tuple[float, ...] = ()

    @property
    def x(self) -> Array:
        """log params of the sizes."""
        return np.asarray(np.log(np.array(self.sizes)))


@dataclass(frozen=True, kw_only=True, repr=False)
class IsoFlopFit(GridView):
    """Optimal size by budget, and its growth.

    Attributes:
        budgets: Every budget, refused ones included, the smallest first.
        exponents: {a, b}: optimal params and tokens grow as flops^a and flops^b, by the parabola; empty below two
            accepted budgets; no b where tokens are not recorded.
        intervals: 95 % bootstrap by exponent; None with bootstrap=0 or where too many draws have no optimum.
        akima_exponent: a by Akima's interpolation; None where fewer than two budgets have an optimum by it.
        exponent_bias: What the parabola adds to a on noise-free losses of the fitted surface; None: see notes.
        noise: "seeds" (deviations from each size's mean) or "residuals" (from the parabola: no size has two seeds).
        line: The power law through the optima; None below two. `outliers`: runs far outside their neighbours' losses.
    """

    budgets: tuple[IsoFlopBudget, ...]
    exponents: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] | None
    akima_exponent: float | None
    exponent_bias: float | None
    noise: str
    bootstrap: int
    seed: int
    notes: tuple[str, ...]
    outliers: tuple[Outlier, ...]
    exclusions: tuple[Mapping[str, Any], ...] = field(repr=False)
    optima: AllocationLine | None = field(repr=False, compare=False)

    @property
    def line(self) -> AllocationLine:
        """The power law through the optima.

        Raises:
            AnalysisError: Fewer than two budgets have an optimum.
        """
        if self.optima is None:
            raise AnalysisError(
                "fewer than two budgets have an optimum, so it has no growth: " + "; ".join(self.refusals)
            )
        return self.optima

    @property
    def accepted(self) -> tuple[IsoFlopBudget, ...]:
        """Budgets with an optimum."""
        return tuple(budget for budget in self.budgets if budget.refused is None)

    @property
    def refusals(self) -> tuple[str, ...]:
        """A line for each reason why a budget has none, with the budgets' names."""
        by_reason: dict[str, list[str]] = {}
        for budget in self.budgets:
            if budget.refused:
                by_reason.setdefault(budget.refused, []).append(budget.name)
        return tuple(
            f"budget{'s' if len(names) > 1 else ''} {_listed(names)} refused: {reason}"
            for reason, names in by_reason.items()
        )

    @property
    def sentence(self) -> str:
        """The growth of the optimum in words."""
        only = self.accepted[0].params if len(self.accepted) == 1 else None
        refused = [budget.refused for budget in self.budgets if budget.refused is not None]
        return valley_sentence(self.exponents, len(self.accepted), refused, only)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What speaks against the growth."""
        return valley_caveats(self.refusals, len(self.accepted))

    @property
    def grid(self) -> Grid:
        """One row per budget; exponents, refusals and the parabola's bias below."""
        rows = []
        for budget in self.budgets if self.accepted else ():  # without one the reasons below say it all
            head = (budget.name, str(sum(budget.runs)), str(len(budget.sizes)))
            if budget.refused:
                rows.append((*head, "refused", "", "", "", "", ""))
                continue
            parabola = (show_value(budget.params), show_ends(budget.interval, "no interval"), _percent(budget.bias))
            akima = (show_value(budget.akima_params, "at an edge"), show_ends(budget.akima_interval, "no interval"))
            rows.append((*head, *parabola, *akima, show_value(budget.tokens)))
        columns = ("budget", "runs", "sizes", "params (parabola)", "95%", "bias", "params (Akima)", "95%", "tokens")
        notes = [*exponent_notes(self.exponents, self.intervals), *self.refusals]
        if self.exponent_bias is not None:
            shown = format_number(self.exponent_bias, 4, signed=True)
            notes.append(f"the parabola's bias in a, on noise-free losses of the fitted surface: {shown}")
        if self.akima_exponent is not None:
            notes.append(f"a by Akima's interpolation: {show_value(self.akima_exponent)}")
        if self.bootstrap and self.accepted:
            whence = (
                "between seeds" if self.noise == "seeds" else "in the residuals of the parabolas: one seed per size"
            )
            notes.append(f"intervals: {self.bootstrap} bootstrap draws of the noise {whence}")
        above = outlier_lines(self.outliers, sum(sum(budget.runs) for budget in self.budgets))
        title = "IsoFLOP: the best size of each budget"
        return Grid(columns, tuple(rows), title, (*notes, *self.notes), (1, 2, 3, 4, 5, 6, 7, 8), above)

    @property
    def short_grid(self) -> Grid:
        """What a terminal shows."""
        return self.grid.of_columns("budget", "sizes", "params (parabola)", "95%", "tokens")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, `sentence` included."""
        plain = {name: value for name, value in vars(self).items() if name not in ("optima", "budgets")}
        plain |= plain_outliers(self.outliers)
        return {"sentence": self.sentence, "budgets": [asdict(budget) for budget in self.budgets], **plain}


def fit_isoflop(table: pd.DataFrame, budgets: str | None = None, bootstrap: int = 1000, seed: int = 0) -> IsoFlopFit:
    """The optimal model size of each budget with its interval, and the exponents of its growth.

    Args:
        table: One run per row with params, loss and flops; with tokens, their growth too.
        budgets: Column with the nominal budget (our sweeps write `budget`); None: runs whose flops lie within 2 % form
            one, and the grouping is printed.
        bootstrap: Draws of the noise; 0: no intervals.
        seed: Of the draws.

    Raises:
        AnalysisError: A missing column, or runs that no law may be fitted to (see `law_table`). A budget with a
            maximum, an optimum at an edge or fewer than 4 sizes is no error: the result refuses it by name.

    Source: Hoffmann et al. (2022), arXiv 2203.15556, approach 2; Akima (1970), J. ACM 17. The parabola is exact only
    for a valley that is one: its bias is computed on noise-free losses of the surface E + A/N^alpha + B/D^beta fitted
    to the same runs, at the same sizes.
    """
    if budgets is not None and budgets not in table.columns:
        raise AnalysisError(
            f"budgets = '{budgets}' is not a column of the table; {did_you_mean(budgets, table.columns)}"
        )
    check_draws(bootstrap, seed)
    runs = read_law_runs(table, ("params", "flops"), ("tokens",))
    groups, names = _grouping(table, runs, budgets)
    notes = [*runs.notes]
    if budgets is None:
        counts = np.bincount(groups)
        sizes = [f"{name} ({count} run{'s' if count > 1 else ''})" for name, count in zip(names, counts, strict=True)]
        notes.append(f"budgets: runs whose flops lie within 2 %: {_listed(sizes)}")
    found = [_valley(name, runs, groups == i) for i, name in enumerate(names)]
    if all(len(budget.sizes) < FEWEST_SIZES for budget in found):
        notes.append(
            f"isoflop needs the same flops at {FEWEST_SIZES} model sizes or more: name the column of the nominal "
            f"budget (--budgets) where the runs' flops scatter about it, or fit a law, which needs no budgets (fit)"
        )
    accepted = [i for i, budget in enumerate(found) if budget.refused is None]
    noise, deviations = _noise(runs, groups, [found[i] for i in accepted])
    surface, why = _surface(table)
    optima = []
    rng = np.random.default_rng(seed)
    for i in accepted:
        found[i], draws = _with_intervals(found[i], noise, deviations, bootstrap, rng)
        found[i] = _with_bias(found[i], surface)
        optima.append(draws)
    if why is not None and accepted:
        notes.append(f"the parabola's bias is not computed: {why}")
    kept = [found[i] for i in accepted]
    notes += _what_the_growth_rests_on(kept)
    line = _line(kept, optima) if len(kept) > 1 else None
    akima = [(budget.flops, budget.akima_params) for budget in kept if budget.akima_params is not None]
    return IsoFlopFit(
        budgets=tuple(found),
        exponents=line.exponents if line else {},
        intervals=line.intervals if line else None,
        akima_exponent=_growth(*zip(*akima, strict=True)) if len(akima) > 1 else None,
        exponent_bias=_exponent_bias(kept),
        noise=noise,
        bootstrap=bootstrap,
        seed=seed,
        notes=tuple(notes),
        outliers=outliers_of_grid(runs.labels, np.log(runs.columns["params"]), groups, runs.loss),
        exclusions=runs.exclusions,
        optima=line,
    )


def _grouping(table: pd.DataFrame, runs: LawRuns, column: str | None) -> tuple[Any, list[str]]:
    """Number of each run's budget, from the smallest, and the budgets' names."""
    flops = runs.columns["flops"]
    if column is None:
        groups = budget_groups(flops)
        return groups, [f"{flops[groups == i].mean():.3g}" for i in range(int(groups.max()) + 1)]
    values = table[column]
    if values.isna().any():
        raise AnalysisError(f"column '{column}' has no budget for {int(values.isna().sum())} of {len(table)} runs")
    labels = values.astype(str).to_numpy()
    order = sorted(set(labels), key=lambda label: float(flops[labels == label].mean()))
    numbers = np.array([order.index(label) for label in labels])
    texts = [f"{float(label):.4g}" if label.replace(".", "").replace("e+", "").isdigit() else label for label in order]
    return numbers, texts


def _valley(name: str, runs: LawRuns, members: Any) -> IsoFlopBudget:
    """One budget's sizes and losses, with the parabola's floor or the reason why there is none."""
    params, losses = runs.columns["params"][members], runs.loss[members]
    sizes, cell = np.unique(params, return_inverse=True)
    counts = np.bincount(cell)
    means = np.bincount(cell, losses) / counts
    log_tokens = None
    if "tokens" in runs.columns and sizes.size > 1:
        slope, intercept = np.polyfit(np.log(params), np.log(runs.columns["tokens"][members]), 1)
        log_tokens = (float(slope), float(intercept))
    budget = IsoFlopBudget(
        name=name,
        flops=float(runs.columns["flops"][members].mean()),
        sizes=tuple(sizes.tolist()),
        losses=tuple(means.tolist()),
        runs=tuple(counts.tolist()),
        log_tokens=log_tokens,
        refused=None,
    )
    if sizes.size < FEWEST_SIZES:
        why = f"{sizes.size} model size{'s' if sizes.size > 1 else ''}; a valley needs at least {FEWEST_SIZES}"
        return replace(budget, refused=why)
    bend, tilt, level = np.polyfit(budget.x, means, 2)
    floor = -tilt / (2 * bend) if bend else np.nan
    lowest = int(np.argmin(means))
    if bend <= 0:
        return replace(budget, refused="the parabola opens downward: it has a maximum, not an optimum")
    if lowest in (0, sizes.size - 1) or not budget.x[0] < floor < budget.x[-1]:
        side = "smallest" if lowest == 0 or floor <= budget.x[0] else "largest"
        return replace(budget, refused=f"the optimum lies at the edge, at the {side} size; add sizes beyond it")
    params_best = float(np.exp(floor))
    tokens = None if log_tokens is None else float(np.exp(log_tokens[0] * floor + log_tokens[1]))
    return replace(budget, params=params_best, tokens=tokens, coefficients=(float(bend), float(tilt), float(level)))


def _noise(runs: LawRuns, groups: Any, accepted: list[IsoFlopBudget]) -> tuple[str, Array]:
    """Where the noise is read from, and its deviations in log-loss."""
    cells: dict[tuple[int, float], list[float]] = {}
    for group, size, loss in zip(groups, runs.columns["params"], np.log(runs.loss), strict=True):
        cells.setdefault((int(group), float(size)), []).append(float(loss))
    several = [np.array(values) for values in cells.values() if len(values) > 1]
    if several:
        widened = [(values - values.mean()) * np.sqrt(values.size / (values.size - 1)) for values in several]
        return "seeds", np.concatenate(widened)
    parts = []
    for budget in accepted:
        missed = np.log(np.array(budget.losses)) - np.log(np.polyval(budget.coefficients, budget.x))
        parts.append(missed * np.sqrt(missed.size / (missed.size - 3)))
    return "residuals", np.concatenate(parts) if parts else np.empty(0)


def _with_intervals(
    budget: IsoFlopBudget, noise: str, deviations: Array, bootstrap: int, rng: np.random.Generator
) -> tuple[IsoFlopBudget, Array]:
    """The budget with intervals, and the draws (bootstrap,) of the parabola's log params; nan where it has no floor."""
    x, means = budget.x, np.array(budget.losses)
    akima = _akima_floors(x, means[None])[0]
    budget = replace(budget, akima_params=None if np.isnan(akima) else float(np.exp(akima)))
    if bootstrap == 0:
        return budget, np.empty(0)
    base = means if noise == "seeds" else np.polyval(budget.coefficients, x)
    shifts = np.column_stack([rng.choice(deviations, size=(bootstrap, runs)).mean(axis=1) for runs in budget.runs])
    drawn = base * np.exp(shifts)
    floors = _parabola_floors(x, drawn)
    akima_ends = None if budget.akima_params is None else _interval(_akima_floors(x, drawn))
    return replace(budget, interval=_interval(floors), akima_interval=akima_ends), floors


def _interval(floors: Array) -> tuple[float, float] | None:
    finite = floors[np.isfinite(floors)]
    if finite.size < (1 - LOST_SHARE) * floors.size:
        return None
    low, high = percentile_ends(np.exp(finite))
    return float(low), float(high)


def _parabola_floors(x: Array, losses: Array) -> Array:
    """Floor of the parabola through each row of losses (rows, sizes); nan where it opens downward."""
    centre = x.mean()
    bend, tilt, _ = np.polyfit(x - centre, losses.T, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(bend > 0, centre - tilt / (2 * bend), np.nan))


def _akima_floors(x: Array, losses: Array) -> Array:
    """Lowest point of Akima's interpolation of each row (rows, sizes); nan where that is an edge."""
    from scipy.interpolate import Akima1DInterpolator

    grid = np.linspace(x[0], x[-1], _AKIMA_GRID)
    lowest = np.argmin(Akima1DInterpolator(x, losses.T)(grid), axis=0)
    return np.where((lowest == 0) | (lowest == grid.size - 1), np.nan, grid[lowest])


def _surface(table: pd.DataFrame) -> tuple[Any, str | None]:
    """The law fitted to the same runs, or None and why there is none."""
    from .parametric_law import fit_scaling_law

    try:
        return fit_scaling_law(table, bootstrap=0), None
    except AnalysisError as error:
        return None, f"no surface could be fitted ({error})"


def _with_bias(budget: IsoFlopBudget, surface: Any) -> IsoFlopBudget:
    """How far both methods miss the surface's own optimum at this budget, without noise."""
    if surface is None or budget.log_tokens is None:
        return budget
    from scipy.optimize import minimize_scalar

    slope, intercept = budget.log_tokens

    def loss(x: Any) -> Array:
        points = np.array([np.atleast_1d(x), slope * np.atleast_1d(x) + intercept])
        return np.asarray(np.exp(surface.problem.law.log_loss(surface.theta[None, :5], points)[0]))

    span = (budget.x[0] - 3.0, budget.x[-1] + 3.0)
    true = float(minimize_scalar(lambda x: float(loss(x)[0]), bounds=span, options={"xatol": 1e-9}).x)
    clean = loss(budget.x)[None]
    parabola, akima = float(_parabola_floors(budget.x, clean)[0]), float(_akima_floors(budget.x, clean)[0])
    return replace(budget, bias=_miss(parabola, true), akima_bias=_miss(akima, true))


def _miss(found: float, true: float) -> float | None:
    return None if np.isnan(found) else float(np.expm1(found - true))


def _exponent_bias(budgets: list[IsoFlopBudget]) -> float | None:
    """Growth of (1 + bias) with the budget: what the parabola adds to a."""
    biased = [(budget.flops, 1.0 + budget.bias) for budget in budgets if budget.bias is not None]
    return _growth(*zip(*biased, strict=True)) if len(biased) > 1 else None


def _what_the_growth_rests_on(budgets: list[IsoFlopBudget]) -> list[str]:
    """Which budgets carry the exponents, said plainly where they are too few or too close to carry much."""
    if len(budgets) < 2:
        return []
    factor = budgets[-1].flops / budgets[0].flops
    rests = f"the growth rests on {len(budgets)} budgets, which span a factor of {factor:.3g} in flops"
    weak = ["through two points any line fits, so nothing tests it"] if len(budgets) == 2 else []
    if factor < 0.98 * _DECADE:  # counted budgets miss their nominal ones a little
        weak.append(f"below a factor of {_DECADE:g} the optimum moves little, and the exponents follow its noise")
    return ["; ".join([rests, *weak])]


def _growth(flops: Any, values: Any) -> float:
    return float(slopes(np.log(np.array(flops)), np.log(np.array(values))[None], 0.0)[0, 1])


def _line(budgets: list[IsoFlopBudget], optima: list[Array]) -> AllocationLine:
    """The power law through the optima, with a draw of it for every draw of the noise."""
    flops = np.array([budget.flops for budget in budgets])
    has_tokens = all(budget.tokens is not None for budget in budgets)
    tokens = np.array([budget.tokens for budget in budgets]) if has_tokens else None
    line = fit_line(flops, np.array([budget.params for budget in budgets], dtype=float), tokens)
    drawn = np.column_stack(optima)
    whole = np.isfinite(drawn).all(axis=1)
    if not drawn.size:
        return line
    params_draws = slopes(np.log(flops), drawn[whole], line.centre)
    tokens_draws = None
    if has_tokens:
        along = np.array([budget.log_tokens for budget in budgets])
        tokens_draws = slopes(np.log(flops), drawn[whole] * along[:, 0] + along[:, 1], line.centre)
    lost = 1.0 - float(whole.mean())
    return replace(line, params_draws=params_draws, tokens_draws=tokens_draws, lost=lost)


def _listed(names: Sequence[str]) -> str:
    """The names, and how many there are beyond eight.

    >>> _listed([str(number) for number in range(10)])
    '0, 1, 2, 3, 4, 5, 6, 7 and 2 more'
    """
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"


def _percent(share: float | None) -> str:
    return "not computed" if share is None else f"{format_number(100 * share, 1, signed=True)}%"
