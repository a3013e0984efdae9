"""What a comparison found: frozen results, and how they print.

Made by `significance.compare`; read by the report, the sweep command and notebooks. Nothing is computed here beyond
choosing words and digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.metric_catalogue import format_difference, format_metric, format_size, good_direction
from stackwise_ray.core.quantities import ABSENT, format_number, format_share

from ..render import Grid, TextView, equals_p, format_p, printed_lines
from ..table.blocks import Missing
from ..table.outliers import Outlier, outlier_lines
from .answer_words import MOST_NAMES, AnsweredView, Decision, Standing, decision_name, first_names
from .deciding_tests import Alternative
from .intervals import FEWEST_BCA_BLOCKS, Interval

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions

FEWEST_BLOCKS = 2
"""With one there is a difference and no noise to weigh it against, so no plan for more either."""
YET_DIFFERENT = "smaller than the margin, yet different"
"""The note on an arm that is equivalent and whose difference is found all the same."""
YET_WORSE = "within the margin, yet worse"
"""The note on an arm that is not inferior and is found to be worse all the same."""


@dataclass(frozen=True, kw_only=True)
class ClaimTest:
    """A one-sided claim on the mean difference, and how it was tested.

    Attributes:
        decision: What the arm is called where the claim holds.
        threshold: The mean difference of the null, arm − baseline, in the metric's unit.
        alternative: "less": the claim is that the mean is below the threshold; "greater": above it.
        p, p_adjusted: Of the deciding test; the second corrected over the claims of this kind on all arms.
    """

    decision: Decision
    threshold: float
    alternative: Alternative
    p: float
    p_adjusted: float | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class ArmComparison(TextView):
    """One arm against the baseline; None is "could not be computed", with the reason in `notes`.

    Attributes:
        metric: What was compared.
        n: Complete blocks.
        values: The arm's value by block, incomplete blocks included.
        differences: arm − baseline (or − target) in the order of `blocks`.
        mean: Mean of the arm's values over all its blocks.
        difference: Mean paired difference, arm − baseline, in the metric's unit.
        interval: 1 − α interval of the deciding test, not widened for the number of arms; with one side it has one
            finite end, and for non-inferiority it is the 1 − 2α interval, whose ends are one-sided 1 − α bounds.
        equivalence_interval: 1 − 2α interval of the deciding test where two sides are tested.
        bca: 1 − α BCa bootstrap interval of the mean difference; None below 20 blocks, where it covers too little, and
            for one-sided questions.
        claims: The one-sided claims that were tested, the strongest first; (): two sides were.
        p: Of the deciding test (of non-inferiority, or of the side); `p_adjusted` after the correction over the arms.
        p_equivalence: Of the two one-sided t tests.
        p_sign_flip: Sign-flip permutation p, and the least that n allows.
        hedges_g: Mean difference in standard deviations of the differences, corrected for small n.
        cliffs_delta: P(arm > baseline) − P(arm < baseline) over all pairs of runs.
        probability_of_improvement: Share of blocks in which the arm is better.
        minimum_detectable_effect: True difference that this n and this noise find with 80 % power; of non-inferiority
            the smallest margin that they show with 80 % power for an arm that is as good as the baseline.
        yet_different: Whether the arm is equivalent, and the deciding test finds a difference all the same (of
            non-inferiority: finds it worse).
        more_seeds: Blocks beyond these until a verdict has 80 % power, if what was observed is the truth; None
            below 2 blocks, which show no noise.
    """

    metric: str
    arm: str
    n: int
    blocks: tuple[str, ...]
    values: Mapping[str, float]
    differences: tuple[float, ...]
    mean: float | None
    difference: float | None
    missing: tuple[Missing, ...] = ()
    sd_difference: float | None = None
    interval: Interval | None = None
    equivalence_interval: Interval | None = None
    bca: Interval | None = None
    claims: tuple[ClaimTest, ...] = ()
    p: float | None = None
    p_adjusted: float | None = None
    p_equivalence: float | None = None
    p_sign_flip: float | None = None
    smallest_p_sign_flip: float | None = None
    hedges_g: float | None = None
    cliffs_delta: float | None = None
    probability_of_improvement: float | None = None
    minimum_detectable_effect: float | None = None
    more_seeds: int | None = None
    yet_different: bool = False
    verdict: Decision = "undecided"
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        p = f", {equals_p(self.p_adjusted)}" if self.p_adjusted is not None else ""
        return f"{self.arm}: {decision_name(self.verdict)} ({self.metric} {self.difference_text}{p}, n = {self.n})"

    def __repr__(self) -> str:
        return f"<ArmComparison {self}>"

    def with_values(self, **values: Any) -> ArmComparison:
        """A copy with some attributes set."""
        return replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @property
    def difference_text(self) -> str:
        """Difference with its interval, or what there is of it."""
        if self.difference is None:
            return ABSENT
        ends = None if self.interval is None else (self.interval.low, self.interval.high)
        return format_difference(self.metric, self.difference, ends)


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(AnsweredView):
    """Every arm against the baseline on one metric.

    Attributes:
        arms: One result per arm, in the order of the table.
        baseline_values: The baseline's value by block.
        missing: Blocks that an arm or the baseline lacks, with the reason.
        exclusions: What loading left out, with the reason.
        notes: What a reader must know beside the verdicts.
        outliers: Runs far from the others of their arm; they count.
    """

    test: str
    alpha: float
    correction: str
    equal: str | None
    tolerance: float
    block: str
    arms: tuple[ArmComparison, ...]
    baseline_values: Mapping[str, float]
    missing: tuple[Missing, ...] = ()
    exclusions: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()
    outliers: tuple[Outlier, ...] = ()

    def __getitem__(self, arm: str) -> ArmComparison:
        """The result of one arm."""
        for result in self.arms:
            if result.arm == arm:
                return result
        raise KeyError(arm)

    @property
    def verdicts(self) -> dict[str, Decision]:
        """Verdict by arm."""
        return {result.arm: result.verdict for result in self.arms}

    @property
    def table(self) -> pd.DataFrame:
        """One row per arm, with every number."""
        import pandas as pd

        rows = []
        for result in self.arms:
            row = {
                k: v for k, v in vars(result).items() if not isinstance(v, (tuple, Mapping, Interval)) and v is not None
            }
            if result.interval is not None:
                row |= {"low": result.interval.low, "high": result.interval.high}
            rows.append(row | {"missing": len(result.missing), "notes": "; ".join(result.notes)})
        order = [
            "arm",
            "n",
            "mean",
            "difference",
            "low",
            "high",
            "p",
            "p_adjusted",
            "p_sign_flip",
            "smallest_p_sign_flip",
            "hedges_g",
            "cliffs_delta",
            "probability_of_improvement",
            "minimum_detectable_effect",
            "sd_difference",
            "p_equivalence",
            "verdict",
            "more_seeds",
            "missing",
            "notes",
        ]
        return pd.DataFrame(rows, columns=order)

    @property
    def standings(self) -> list[Standing]:
        """Each arm with the verdict of the deciding test."""
        return [Standing(result.arm, result.verdict, result.difference) for result in self.arms]

    @property
    def grid(self) -> Grid:
        """The whole table as finished text."""
        verdicts, details = self.verdict_grid, self.detail_grid
        columns = (*verdicts.columns, *details.columns[1:])
        rows = tuple((*head, *tail[1:]) for head, tail in zip(verdicts.rows, (("",) * 6, *details.rows), strict=True))
        numeric = tuple(index for index in range(1, len(columns)) if columns[index] != "verdict")
        return Grid(columns, rows, verdicts.title, tuple(self.remarks()), numeric, verdicts.above)

    @property
    def verdict_grid(self) -> Grid:
        """What decides: differences, verdicts, p, means; what a narrow screen shows comes first."""
        adjusted = "p" if self.correction == "none" else f"p ({CORRECTION_NAMES.get(self.correction, self.correction)})"
        columns = ("arm", f"difference [{self.interval_level}]", "verdict", adjusted, "n", "mean")
        rows = [self._reference_row()]
        rows += [
            (
                result.arm,
                result.difference_text,
                verdict_text(result),
                format_p(result.p_adjusted),
                str(result.n),
                format_metric(self.metric, result.mean),
            )
            for result in self.arms
        ]
        good = good_direction(self.direction, assumed=self.assumed)
        test = f"{test_name(self.test, self.target)}{'' if self.side == 'both' else f', one-sided ({self.side})'}"
        question = ", non-inferiority" if self.hypothesis == "non_inferior" else ""
        count = len(self.baseline_values) + sum(len(result.values) for result in self.arms)
        above = outlier_lines(self.outliers, count)
        return Grid(columns, tuple(rows), f"{self.metric} ({good}), {test}{question}", (), (1, 3, 4, 5), above)

    def _reference_row(self) -> tuple[str, ...]:
        if self.target is not None:
            return ("target", "", "target", "", "", format_metric(self.metric, self.target))
        values = self.baseline_values
        mean = sum(values.values()) / len(values) if values else None
        return (str(self.baseline), "", "baseline", "", str(len(values)), format_metric(self.metric, mean))

    @property
    def interval_level(self) -> str:
        """The level of the interval of a difference, as a column's head has it."""
        if self.hypothesis == "non_inferior":
            return format_share(1 - 2 * self.alpha)
        return f"{format_share(1 - self.alpha)}{'' if self.side == 'both' else ', one-sided'}"

    @property
    def dots(self) -> str:
        """What a single difference is of."""
        return "paired differences" if self.target is None else "runs less the target"

    @property
    def detail_grid(self) -> Grid:
        """What stands beside the verdicts and decides nothing."""
        detectable = "margin shown" if self.hypothesis == "non_inferior" else "detectable"
        columns = ("arm", "p (sign flip)", "Hedges g", "Cliff's δ", "P(better)", detectable)
        rows = []
        for result in self.arms:
            least = result.smallest_p_sign_flip
            flips = f"{format_p(result.p_sign_flip)} (least {format_p(least)})" if least is not None else ABSENT
            small = "n < 3" if result.n < 3 else "no variance"
            g = small if result.hedges_g is None else _value(result.hedges_g, 2)
            shares = (_value(share, 2) for share in (result.cliffs_delta, result.probability_of_improvement))
            rows.append((result.arm, flips, g, *shares, _detectable(result)))
        found = "difference found at power .8"
        if self.hypothesis == "non_inferior":
            found = "margin shown at power .8 by an arm that is as good"
        title = f"beside the verdicts: permutation p (and the least at this n), effect sizes, {found}"
        return Grid(columns, tuple(rows), title, (), (1, 2, 3, 4, 5))

    def notes_of_arms(self) -> dict[str, tuple[str, ...]]:
        """What was found in single arms: each note with the arms that it was found in."""
        notes = dict.fromkeys(note for result in self.arms for note in result.notes)
        return {note: tuple(result.arm for result in self.arms if note in result.notes) for note in notes}

    def remarks(self) -> list[str]:
        """Everything that must stand beside the verdicts: budgets, missing blocks, notes."""
        return [line for line, _ in self.remarks_of_arms()]

    def remarks_of_arms(self) -> list[tuple[str, tuple[str, ...]]]:
        """Every remark with the arms whose runs it was found in; () where it says what was declared or how to read."""
        every = (*((self.baseline,) if self.baseline is not None else ()), *(result.arm for result in self.arms))
        lines: list[tuple[str, tuple[str, ...]]] = []
        if self.budgets:
            lines.append((f"equal {self.budgets}: every pair within {format_share(self.tolerance)}", every))
        lines += [(text, ()) for text in self._how_to_read()]
        lines += [(note, every) for note in self.notes]
        lines += folded([(missing_text(item, self.block), (item.arm,)) for item in self.missing])
        lines += folded([(f"{first_names(arms)}: {note}", arms) for note, arms in self.notes_of_arms().items()])
        if any(result.verdict == "equivalent" for result in self.arms):
            lines.append(("equivalent: by its interval and the margin; the p beside it is for a difference", ()))
        if any(result.verdict == "undecided" and result.more_seeds for result in self.arms):
            how = "(+k seeds): about so many more decide with power .8, if difference and noise are as observed; "
            plan = "plan a new sweep with that number: seeds added to this one count as a second look"
            lines.append((how + plan, ()))
        return lines + self._bootstrap_remarks()

    def _how_to_read(self) -> list[str]:
        """What was declared, and what interval and p are where one side was tested."""
        lines = []
        if self.hypothesis == "non_inferior":
            lines.append(
                f"non-inferiority margin {self.margin:g}: p is for being worse by less than "
                f"that (one-sided); each end of the interval is a one-sided {format_share(1 - self.alpha)} bound; "
                f"better and inferior have one-sided tests of their own at the same level"
            )
        elif self.margin is not None:
            lines.append(f"equivalence margin ±{self.margin:g}")
        if self.side != "both":
            lines.append(f"one-sided: p and interval are for {self.side} alone")
        return lines

    def _bootstrap_remarks(self) -> list[tuple[str, tuple[str, ...]]]:
        """The BCa intervals where they hold what they say, and why there is none elsewhere."""
        lines = folded(
            [
                (f"{result.arm}: BCa bootstrap interval {_difference_text(result.metric, result.bca)}", (result.arm,))
                for result in self.arms
                if result.bca is not None
            ]
        )
        if any(result.interval is not None and result.n < FEWEST_BCA_BLOCKS for result in self.arms):
            why = (
                f"no bootstrap interval below {FEWEST_BCA_BLOCKS} blocks: BCa at 95 % covers .73 with 3 blocks and .90 "
                f"with 10, the t interval .95"
            )
            lines.append((why, ()))
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, `sentence` included."""
        return {**asdict(self), "sentence": self.sentence}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        from rich.text import Text

        if options.max_width >= _WIDE:
            yield from printed_lines(console, options, self.to_rich())
            return
        remarks = Text("\n".join(self.remarks()))
        yield from printed_lines(console, options, self.verdict_grid.to_rich(), self.detail_grid.to_rich(), remarks)


MOST_LINES = 8
"""Remarks of one kind that are shown one by one."""
_WIDE = 150
"""Columns of a terminal from which the whole table stands in one piece."""
TEST_NAMES = {"t": "paired t test", "sign_flip": "sign-flip test", "wilcoxon": "Wilcoxon signed-rank test"}


def test_name(test: str, target: float | None) -> str:
    """A test in words; with a target it is of one sample.

    >>> test_name("t", None), test_name("t", 3.28)
    ('paired t test', 'one-sample t test')
    """
    return "one-sample t test" if test == "t" and target is not None else TEST_NAMES[test]


CORRECTION_NAMES = {"holm": "Holm", "bonferroni": "Bonferroni", "benjamini_hochberg": "Benjamini–Hochberg"}


def folded(lines: Sequence[tuple[str, tuple[str, ...]]]) -> list[tuple[str, tuple[str, ...]]]:
    """Remarks of one kind: many of them are the first few and a count, with all of their arms."""
    if len(lines) <= MOST_LINES:
        return list(lines)
    rest = lines[MOST_NAMES:]
    arms = tuple(dict.fromkeys(arm for _, names in rest for arm in names))
    return [*lines[:MOST_NAMES], (f"and {len(rest)} more lines like these (--json has all)", arms)]


def missing_text(item: Missing, block: str) -> str:
    """A block that an arm lacks, and why, as a remark."""
    return f"missing: {item.arm}, {block} {item.block}: {item.reason}"


def verdict_text(result: ArmComparison) -> str:
    """The verdict with what would decide it."""
    if result.n < FEWEST_BLOCKS:
        return f"undecided (n < {FEWEST_BLOCKS})"
    if result.verdict == "undecided" and result.more_seeds is not None:
        return f"undecided (+{_seeds(result.more_seeds)})"
    if result.yet_different:
        return f"{decision_name(result.verdict)} (yet {'different' if result.verdict == 'equivalent' else 'worse'})"
    return decision_name(result.verdict)


def _seeds(count: int) -> str:
    return f"{count:,} seed{'s' if count != 1 else ''}"


def _value(value: float | None, decimals: int = 4) -> str:
    return format_number(value, decimals)


def _difference_text(metric: str, found: Interval) -> str:
    return format_difference(metric, found.estimate, (found.low, found.high))


def _detectable(result: ArmComparison) -> str:
    value = result.minimum_detectable_effect
    if value is None:
        return "n < 2" if result.n < 2 else "no variance"
    return f"{'' if result.claims else '±'}{format_size(result.metric, value)}"
