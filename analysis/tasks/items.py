"""Arms on the same test items, each right or wrong: McNemar's test, and a paired bootstrap over the items.

`compare_items` is the public face. What is estimated is the difference of accuracies of *these* trained models on items
like these; other training seeds are not in it. For several seeds per arm see `hierarchical`; for scores that are not
right or wrong, `compare` with the items as blocks.

Source: McNemar (1947), Psychometrika 12; Fagerland, Lydersen and Laake (2013), BMC Medical Research Methodology 13, for
the exact conditional and the mid-p form; Efron and Tibshirani (1993), §8.3, for the bootstrap of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from stackwise_ray.core.errors import AnalysisError, did_you_mean
from stackwise_ray.core.metric import Direction
from stackwise_ray.core.metric_catalogue import badness, good_direction
from stackwise_ray.core.quantities import format_number, format_share

from ..paired.answer_words import AnsweredView, Decision, Standing, decision_name
from ..paired.comparison import CORRECTION_NAMES
from ..paired.deciding_tests import adjust_p
from ..paired.intervals import Interval, format_interval
from ..paired.significance import CORRECTIONS
from ..render import Grid, format_p
from ..table.blocks import check_goal, check_level, pair
from ..table.typed_columns import names_of
from .aggregation import check_resampling, resampled_interval

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

ItemTest = Literal["mcnemar", "mid_p"]
ITEM_TESTS = {"mcnemar": "McNemar's exact test", "mid_p": "McNemar's test with mid-p"}
_FEWEST_DISCORDANT = 6
_TRUTHS = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True, kw_only=True)
class ItemArm:
    """One arm against the baseline on the items that both have.

    Attributes:
        n: Those items.
        only_arm, only_baseline: Items that are 1 for this one alone; the test looks at these two numbers.
        both, neither: Items that are 1 for both, or for none.
        share, baseline_share: Share of items that are 1.
        interval: Of the difference of shares, arm − baseline, by the paired bootstrap.
        p: Of McNemar's test, two-sided; `p_adjusted` after the correction over the arms.
    """

    arm: str
    n: int
    only_arm: int
    only_baseline: int
    both: int
    neither: int
    share: float
    baseline_share: float
    interval: Interval
    p: float
    p_adjusted: float | None = None
    verdict: Decision = "undecided"


@dataclass(frozen=True, kw_only=True, repr=False)
class ItemComparison(AnsweredView):
    """Every arm against the baseline over the same items.

    Attributes:
        column: The column of right and wrong.
        arms: One result per arm, in the order of the table.
        notes: What a reader must know beside the verdicts.
    """

    column: str
    test: ItemTest
    alpha: float
    correction: str
    arms: tuple[ItemArm, ...]
    exclusions: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()

    def __getitem__(self, arm: str) -> ItemArm:
        """The result of one arm."""
        for result in self.arms:
            if result.arm == arm:
                return result
        raise KeyError(arm)

    @property
    def standings(self) -> list[Standing]:
        """Each arm with its verdict."""
        return [Standing(result.arm, result.verdict, result.interval.estimate) for result in self.arms]

    @property
    def at(self) -> str:
        """The end of a clause: how many items there were."""
        counts = sorted({result.n for result in self.arms})
        return f" on {counts[0]:,} items" if len(counts) == 1 else f" on {counts[0]:,} to {counts[-1]:,} items"

    @property
    def grid(self) -> Grid:
        """One row per arm; the four numbers of pairs behind each test."""
        name = CORRECTION_NAMES.get(self.correction)
        columns = (
            "arm",
            f"difference [{format_share(1 - self.alpha)}]",
            "verdict",
            f"p ({name})" if name else "p",
            "items",
            "share",
            f"share of {self.baseline}",
            "only arm",
            f"only {self.baseline}",
            "both",
            "neither",
        )
        rows = tuple(
            (
                result.arm,
                format_interval(result.interval, signed=True),
                decision_name(result.verdict),
                format_p(result.p_adjusted),
                f"{result.n:,}",
                format_number(result.share, 4),
                format_number(result.baseline_share, 4),
                *(f"{count:,}" for count in (result.only_arm, result.only_baseline, result.both, result.neither)),
            )
            for result in self.arms
        )
        title = f"{self.metric} ({good_direction(self.direction)}), {ITEM_TESTS[self.test]}, against {self.baseline}"
        return Grid(columns, rows, title, self.notes, (1, *range(3, len(columns))))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, `sentence` included."""
        return {**asdict(self), "sentence": self.sentence}


def compare_items(
    table: pd.DataFrame,
    metric: str = "correct",
    baseline: str | None = None,
    arm: str = "arm",
    item: str | Sequence[str] = "item",
    test: ItemTest = "mcnemar",
    correction: str | None = "holm",
    direction: Direction = "maximize",
    alpha: float = 0.05,
    bootstrap: int = 2000,
    rng: int = 0,
) -> ItemComparison:
    """Every arm against the baseline on the same items, each of them right (1) or wrong (0).

    Null: of the items that only one of the two gets right, each is as likely to be the one's as the other's. The test
    is exact given their number (binomial, one half); mid-p counts half of the observed outcome, which is less
    conservative, and its level is not guaranteed. The interval resamples items, with the answers of both arms.

    Args:
        table: One row per arm and item.
        metric: Column of 0 and 1 (or true and false).
        baseline: The arm that the others are compared with.
        arm, item: Columns; items of several tasks are told apart by both (`["task", "item"]`).
        test: "mcnemar" (exact) or "mid_p".
        correction: Over the arms, as in `compare`.
        direction: "maximize": 1 is right; "minimize": 1 is an error.
        bootstrap: Resamples of the items.
        rng: Seed of the resampling.

    Raises:
        AnalysisError: A column or arm that is not there, a value other than 0 and 1, several runs of an arm on one
            item, no item that both have, or an argument outside its range.
    """
    import numpy as np

    if test not in ITEM_TESTS:
        raise AnalysisError(f"test = '{test}' is not known; {did_you_mean(test, tuple(ITEM_TESTS))}")
    if (correction or "none") not in CORRECTIONS:
        raise AnalysisError(f"correction = '{correction}' is not known; {did_you_mean(str(correction), CORRECTIONS)}")
    check_goal(direction, None)
    check_level(alpha)
    check_resampling(bootstrap, 1 - alpha, rng)
    items = [item] if isinstance(item, str) else list(item)
    _refuse_seeds(table, arm, items)
    pairing = pair(_with_numbers(table, metric), metric, baseline, arm=arm, block=items, equal=None, tolerance=0.0)
    notes = [note for note in pairing.notes if not note.startswith("budgets not required")]
    results = []
    for name in pairing.arms:
        blocks, ours, theirs = pairing.pairs(name)
        if not blocks:
            raise AnalysisError(f"'{name}' and '{baseline}' have no item in common: nothing is paired")
        other = sorted({*ours, *theirs} - {0.0, 1.0})
        if other:
            raise AnalysisError(
                f"column '{metric}' holds {other[0]:g}, and McNemar's test is of 0 and 1 (right and wrong); compare "
                f"other scores item by item: compare --block {items[0]} --equal none --test wilcoxon"
            )
        lost = len(pairing.lost(name))
        notes += [f"{name}: {lost:,} items that it or {baseline} lacks are left out"] if lost else []
        results.append(_of_arm(name, np.array(ours), np.array(theirs), test, alpha, bootstrap, rng))
        notes += _few_differ(results[-1])
    adjusted = adjust_p([result.p for result in results], correction)
    scope = "these trained models on items like these: the spread over training seeds is not in the interval"
    return ItemComparison(
        metric="accuracy" if direction == "maximize" else f"share of {metric}",
        column=metric,
        baseline=baseline,
        direction=direction,
        assumed=False,
        budgets=None,
        margin=None,
        family=len(results),
        test=test,
        alpha=alpha,
        correction=correction or "none",
        arms=tuple(_decided(result, p, direction, alpha) for result, p in zip(results, adjusted, strict=True)),
        exclusions=tuple(dict(one) for one in table.attrs.get("exclusions", ())),
        notes=(scope, f"interval: {bootstrap:,} paired resamples of the items (percentiles)", *notes),
    )


def mcnemar_p(only_first: int, only_second: int, *, mid: bool = False) -> float:
    """Two-sided p of McNemar's test from the two numbers of discordant pairs: exact (binomial), or mid-p.

    >>> mcnemar_p(1, 7), round(mcnemar_p(1, 7, mid=True), 6)
    (0.0703125, 0.039063)
    """
    from scipy.stats import binom

    few, count = min(only_first, only_second), only_first + only_second
    point = float(binom.pmf(few, count, 0.5))
    if only_first == only_second:
        return 1 - point / 2 if mid and count else 1.0
    exact = min(1.0, 2 * float(binom.cdf(few, count, 0.5)))
    return exact - point if mid else exact


def _of_arm(
    name: str,
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    test: ItemTest,
    alpha: float,
    draws: int,
    rng: int,
) -> ItemArm:
    import numpy as np

    n = ours.size
    counts = [int(((ours == mine) & (theirs == its)).sum()) for mine, its in ((1, 0), (0, 1), (1, 1), (0, 0))]
    # resampling items draws the four kinds of pairs from a multinomial distribution
    drawn = np.random.default_rng(rng).multinomial(n, np.array(counts) / n, size=draws)
    differences = (drawn[:, 0] - drawn[:, 1]) / n
    estimate = (counts[0] - counts[1]) / n
    if counts[0] + counts[1]:
        method = f"paired bootstrap over items ({draws} draws)"
        interval = resampled_interval(estimate, differences, 1 - alpha, method, n, ())
    else:
        most = 1 - (alpha / 2) ** (1 / n)
        interval = Interval(0.0, -most, most, 1 - alpha, "exact bound of a share of which 0 items were met", n)
    return ItemArm(
        arm=name,
        n=n,
        only_arm=counts[0],
        only_baseline=counts[1],
        both=counts[2],
        neither=counts[3],
        share=float(ours.mean()),
        baseline_share=float(theirs.mean()),
        interval=interval,
        p=mcnemar_p(counts[0], counts[1], mid=test == "mid_p"),
    )


def _few_differ(result: ItemArm) -> list[str]:
    """A note where so few items tell the arms apart that resampling them says little of how many there may be."""
    count = result.only_arm + result.only_baseline
    if count == 0:
        return [f"{result.arm}: no item tells the arms apart; the interval is the exact bound for so many items"]
    if count < _FEWEST_DISCORDANT:
        few = f"only {count} item{'s tell' if count > 1 else ' tells'} the arms apart"
        return [f"{result.arm}: {few}: a 95 % interval was measured to cover .77 to .95 below {_FEWEST_DISCORDANT}"]
    return []


def _decided(result: ItemArm, p: float | None, direction: Direction, alpha: float) -> ItemArm:
    verdict: Decision = "undecided"
    if p is not None and p <= alpha:
        verdict = "better" if badness(direction) * result.interval.estimate < 0 else "worse"
    return replace(result, p_adjusted=p, verdict=verdict)


def _refuse_seeds(table: pd.DataFrame, arm: str, items: Sequence[str]) -> None:
    """Several runs of one arm answer the same items again, and that is not independent."""
    if "seed" not in table.columns or arm not in table.columns or "seed" in items:
        return
    counts = table.groupby(names_of(table, arm), sort=False)["seed"].nunique()
    if (counts > 1).any():
        name = counts.index[counts > 1][0]
        raise AnalysisError(
            f"{arm} '{name}' has {counts[name]} seeds on the same items, and McNemar's test is of one run per arm; use "
            f"hierarchical --level seed --item {items[0]} --baseline ARM, which resamples seeds and items"
        )


def _with_numbers(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The table with true and false as 1 and 0."""
    if metric not in table.columns:
        return table
    cells = table[metric].map(lambda cell: _TRUTHS.get(str(cell).strip().lower(), cell))
    return table.assign(**{metric: cells})
