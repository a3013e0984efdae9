"""`fit_isoflop`: the best model size at each budget, and how it grows with the budget (Chinchilla, approach 2).

At one budget the loss over log params is a valley. Its floor is found twice: on a curve whose shape all budgets share
(`valley_shape`, `valley_fit`, `valley_floors`) and by Akima's interpolation, which passes through every mean and
assumes no shape. Draws carry the noise through both. A budget whose lowest size is at an end is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stackwise_ray.core.errors import AnalysisError, did_you_mean, first_few

from ..paired.intervals import check_draws
from ..render import Grid, GridView
from ..table.outlier_search import outliers_of_grid
from ..table.outliers import Outlier, outlier_lines, plain_outliers
from .akima_floors import akima_floors
from .allocation import LOST_SHARE, AllocationLine, fit_line, slopes
from .law_table import FEWEST_SIZES, LawRuns, budget_groups, read_law_runs
from .law_text import show_ends, show_value
from .law_words import bias_note, exponent_notes, method_notes, outlier_note, valley_caveats, valley_sentence
from .laws import Array
from .resampling import percentile_ends
from .valley_bias import Biases, biases
from .valley_fit import WINDOWS, ValleyFit, fit_valleys
from .valley_floors import Floors, find_floors
from .valley_noise import ENOUGH_SEEDS, seeds_noise
from .valley_shape import ValleyCells

if TYPE_CHECKING:
    import pandas as pd

_DECADE = 10
"""Budgets closer together than this hardly move the optimum: their exponent is mostly noise (Hoffmann's span 500)."""
_NO_SEEDS = (
    "the runs of a size differ by less than sizes do from their neighbours, so they are no independent seeds, or sizes "
    "have a noise of their own: the runs of a size count as one"
)
_MOST_NAMES = 8


@dataclass(frozen=True, kw_only=True)
class IsoFlopBudget:
    """One budget's valley.

    Attributes:
        flops: Mean over its runs; `name`: the nominal budget, or the flops in words.
        sizes: Distinct params; `losses`: mean loss of each; `runs`: how many runs each has.
        refused: Why there is no optimum; None where there is one.
        params: Size at the floor of its curve; `interval`: 95 % of draws, None where too many draws have no floor.
        tokens: Tokens that go with it; None where not recorded.
        akima_params: Size at the floor of Akima's interpolation; None where that lies at an edge.
        bias: Optimum over the true one, less 1, on noise-free losses of the law that holds; None: see notes.
        akima_bias: The same for Akima's interpolation.
        noise: Standard deviation of one run's log-loss; None where the sizes are too few to know it.
        curve_params, curve_losses: Points of the curve.
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
    noise: float | None = None
    curve_params: tuple[float, ...] = ()
    curve_losses: tuple[float, ...] = ()

    @property
    def x(self) -> Array:
        """log params of the sizes."""
        return np.asarray(np.log(np.array(self.sizes)))


@dataclass(frozen=True, kw_only=True, repr=False)
class IsoFlopFit(GridView):
    """Optimal size by budget, and its growth.

    Attributes:
        budgets: Every budget, refused ones included, the smallest first.
        exponents: {a, b}: optimal params and tokens grow as flops^a and flops^b; empty below two accepted budgets; no b
            where tokens are not recorded.
        intervals: 95 % of draws by exponent; None with bootstrap=0 or where too many draws have fewer than two optima.
        akima_exponent: a by Akima's interpolation; None where fewer than two budgets have an optimum by it.
        exponent_bias: What the method adds to a on noise-free losses of the law that holds; None: see notes.
        noise: "seeds" (deviations from each size's mean) or "residuals" (from the curves).
        window: Loss over the lowest of its budget up to which a size takes part; None without an accepted budget.
        misfit: Standard deviation, in log-loss, of what the shared shape misses beyond the noise; 0 for nothing.
        set_aside: budget, params, loss of each size that is no part of its valley, and its distance in `deviations`.
        line: The power law through the optima; None below two. `outliers`: runs far outside their neighbours' losses.
    """

    budgets: tuple[IsoFlopBudget, ...]
    exponents: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] | None
    akima_exponent: float | None
    exponent_bias: float | None
    noise: str
    window: float | None
    misfit: float
    set_aside: tuple[Mapping[str, Any], ...]
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
            f"budget{'s' if len(names) > 1 else ''} {first_few(names, _MOST_NAMES)} refused: {reason}"
            for reason, names in by_reason.items()
        )

    @property
    def sentence(self) -> str:
        """The growth of the optimum in words."""
        only = self.accepted[0].params if len(self.accepted) == 1 else None
        refused = [budget.refused for budget in self.budgets if budget.refused is not None]
        return valley_sentence(self.exponents, len(self.accepted), refused, only, self.exponent_bias)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What speaks against the growth."""
        return valley_caveats(self.refusals, len(self.accepted), self.misfit, len(self.set_aside))

    @property
    def grid(self) -> Grid:
        """One row per budget; exponents, method, refusals and bias below."""
        rows = []
        for budget in self.budgets if self.accepted else ():  # without one the reasons below say it all
            head = (budget.name, str(sum(budget.runs)), str(len(budget.sizes)))
            if budget.refused:
                rows.append((*head, "refused", "", "", "", ""))
                continue
            curve = (show_value(budget.params), show_ends(budget.interval, "no interval"))
            akima = (show_value(budget.akima_params, "at an edge"), show_ends(budget.akima_interval, "no interval"))
            rows.append((*head, *curve, *akima, show_value(budget.tokens)))
        columns = ("budget", "runs", "sizes", "params", "95%", "params (Akima)", "95% (Akima)", "tokens")
        notes = [*exponent_notes(self.exponents, self.intervals), *self.refusals]
        if self.akima_exponent is not None:
            notes.append(f"a by Akima's interpolation: {show_value(self.akima_exponent)}")
        if self.window is not None:
            noise = [budget.noise for budget in self.accepted if budget.noise is not None]
            widths = np.exp(WINDOWS).tolist()
            notes += method_notes(self.window, widths, self.misfit, self.noise, noise, self.bootstrap)
        notes += [outlier_note(one) for one in self.set_aside]
        if self.exponent_bias is not None:
            notes.append(bias_note(self.exponent_bias, [budget.bias for budget in self.accepted]))
        above = outlier_lines(self.outliers, sum(sum(budget.runs) for budget in self.budgets))
        title = "IsoFLOP: the best size of each budget"
        return Grid(columns, tuple(rows), title, (*notes, *self.notes), (1, 2, 3, 4, 5, 6, 7), above)

    @property
    def short_grid(self) -> Grid:
        """What a terminal shows."""
        return self.grid.of_columns("budget", "sizes", "params", "95%", "tokens")

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
        AnalysisError: A missing column, or runs that no law may be fitted to (see `law_table`). A budget whose lowest
            size is the smallest or the largest, or one of fewer than 4 sizes, is no error: the result refuses it.

    Source: Hoffmann et al. (2022), arXiv 2203.15556, approach 2, with curves of one shape in the place of a parabola
    per budget, which misses valleys that are steep on one side; Akima (1970), J. ACM 17.
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
        notes.append(f"budgets: runs whose flops lie within 2 %: {first_few(sizes, _MOST_NAMES)}")
    found = [_valley(name, runs, groups == i) for i, name in enumerate(names)]
    if all(len(budget.sizes) < FEWEST_SIZES for budget in found):
        notes.append(
            f"isoflop needs the same flops at {FEWEST_SIZES} model sizes or more: name the column of the nominal "
            f"budget (--budgets) where the runs' flops scatter about it, or fit a law, which needs no budgets (fit)"
        )
    accepted = [i for i, budget in enumerate(found) if budget.refused is None]
    rng = np.random.default_rng(seed)
    fit, floors, seen = None, None, "residuals"
    if accepted:
        cells, between = _cells(runs, groups, accepted)
        fit = fit_valleys(cells, between)
        seen = "seeds" if fit.by_seeds else "residuals"
        notes += [_NO_SEEDS] if between is not None and not fit.by_seeds else []
        floors = find_floors(fit, bootstrap if fit.known else 0, rng)
        bias, why = biases(table, fit, [found[i].log_tokens for i in accepted])
        notes += [f"the method's bias is not computed: {why}"] if why else []
        for place, i in enumerate(accepted):
            found[i] = _with_floor(found[i], fit, floors, place, bias, rng)
        notes += _by_three([found[i].name for i, three in zip(accepted, floors.by_three, strict=True) if three])
    kept = [found[i] for i in accepted]
    notes += _what_the_growth_rests_on(kept)
    line = _line(kept, floors.draws) if floors is not None and len(kept) > 1 else None
    akima = [(budget.flops, budget.akima_params) for budget in kept if budget.akima_params is not None]
    return IsoFlopFit(
        budgets=tuple(found),
        exponents=line.exponents if line else {},
        intervals=line.intervals if line else None,
        akima_exponent=_growth(*zip(*akima, strict=True)) if len(akima) > 1 else None,
        exponent_bias=line.bias[1] if line and line.bias else None,
        noise=seen,
        window=None if fit is None else float(np.exp(fit.window)),
        misfit=0.0 if fit is None else fit.misfit,
        set_aside=() if fit is None else _set_aside(fit, kept),
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
    lowest = int(np.argmin(means))
    if lowest in (0, sizes.size - 1):
        side = "smallest" if lowest == 0 else "largest"
        return replace(budget, refused=f"the lowest loss is at the edge, at the {side} size; add sizes beyond it")
    return budget


def _cells(runs: LawRuns, groups: Any, accepted: list[int]) -> tuple[ValleyCells, tuple[Array, Array] | None]:
    """Sizes of the accepted budgets, and the noise between their seeds where it is known well enough."""
    number = np.full(int(groups.max()) + 1, -1)
    number[accepted] = np.arange(len(accepted))
    taken = number[groups] >= 0
    budget, y, params = number[groups][taken], np.log(runs.loss[taken]), runs.columns["params"][taken]
    size = np.unique(params, return_inverse=True)[1]
    keys, cell, counts = np.unique(np.column_stack([budget, size]), axis=0, return_inverse=True, return_counts=True)
    squares, freedom = seeds_noise(cell, y)
    flops = np.bincount(budget, runs.columns["flops"][taken]) / np.bincount(budget)
    cells = ValleyCells(
        x=np.log(np.unique(params))[keys[:, 1]],
        y=np.bincount(cell, y) / counts,
        runs=counts.astype(float),
        budget=keys[:, 0],
        z=np.log(flops),
    )
    return cells, (squares, freedom) if freedom.sum() >= ENOUGH_SEEDS else None


def _with_floor(
    budget: IsoFlopBudget, fit: ValleyFit, floors: Floors, place: int, bias: Biases | None, rng: np.random.Generator
) -> IsoFlopBudget:
    """The budget with its optimum by both methods, intervals, curve and bias."""
    floor, draws = float(floors.floors[place]), floors.draws[:, place]
    members = fit.cells.budget == place
    x, y = fit.cells.x[members], fit.cells.y[members]
    akima = float(akima_floors(x, np.exp(y)[None])[0])
    shaken = fit.noise[place] / np.sqrt(fit.cells.runs[members]) * rng.standard_normal((draws.size, x.size))
    along = budget.log_tokens
    curve = floors.curves[place]
    return replace(
        budget,
        params=float(np.exp(floor)),
        interval=_interval(draws),
        tokens=None if along is None else float(np.exp(along[0] * floor + along[1])),
        akima_params=None if np.isnan(akima) else float(np.exp(akima)),
        akima_interval=None if np.isnan(akima) else _interval(akima_floors(x, np.exp(y + shaken))),
        bias=None if bias is None else bias.curve[place],
        akima_bias=None if bias is None else bias.akima[place],
        noise=float(fit.noise[place]) if fit.known else None,
        curve_params=tuple(np.exp(curve[0]).tolist()),
        curve_losses=tuple(np.exp(curve[1]).tolist()),
    )


def _interval(floors: Array) -> tuple[float, float] | None:
    finite = floors[np.isfinite(floors)]
    if not finite.size or finite.size < (1 - LOST_SHARE) * floors.size:
        return None
    low, high = percentile_ends(np.exp(finite))
    return float(low), float(high)


def _set_aside(fit: ValleyFit, budgets: list[IsoFlopBudget]) -> tuple[Mapping[str, Any], ...]:
    """Sizes inside the window that are no part of their valley."""
    return tuple(
        {
            "budget": budgets[fit.cells.budget[i]].name,
            "params": float(np.exp(fit.cells.x[i])),
            "loss": float(np.exp(fit.cells.y[i])),
            "deviations": float(fit.misses[i]),
        }
        for i in np.flatnonzero(fit.near & ~fit.kept)
    )


def _by_three(names: list[str]) -> list[str]:
    if not names:
        return []
    return [
        f"the curve of {first_few(names, _MOST_NAMES)} has no floor among the sizes; the parabola "
        "through the lowest size and its neighbours gives one"
    ]


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


def _line(budgets: list[IsoFlopBudget], drawn: Array) -> AllocationLine:
    """The power law through the optima, with a draw of it for every draw that has two optima or more."""
    flops = np.array([budget.flops for budget in budgets])
    has_tokens = all(budget.tokens is not None for budget in budgets)
    tokens = np.array([budget.tokens for budget in budgets]) if has_tokens else None
    line = fit_line(flops, np.array([budget.params for budget in budgets], dtype=float), tokens)
    bias = [budget.bias for budget in budgets]
    if None not in bias:
        level, slope = slopes(np.log(flops), np.log1p(np.array(bias, dtype=float))[None], line.centre)[0]
        line = replace(line, bias=(float(level), float(slope)))
    if not drawn.size:
        return line
    whole = np.isfinite(drawn).sum(axis=1) >= 2
    params_draws = slopes(np.log(flops), drawn[whole], line.centre)
    tokens_draws = None
    if has_tokens:
        along = np.array([budget.log_tokens for budget in budgets])
        tokens_draws = slopes(np.log(flops), drawn[whole] * along[:, 0] + along[:, 1], line.centre)
    lost = 1.0 - float(whole.mean())
    return replace(line, params_draws=params_draws, tokens_draws=tokens_draws, lost=lost)
