"""Which arm ranks first over several tasks: Friedman, Nemenyi's critical difference, pairwise Wilcoxon with Holm.

`rank` is the public face. Each task is one observation; the runs of a task are averaged first. It answers "is one arm
ranked above another over such tasks", not "on this task": that is `compare`.

Source: Friedman (1937); Iman and Davenport (1980); Nemenyi (1963); Demšar (2006), "Statistical comparisons of
classifiers over multiple data sets", JMLR 7; Benavoli, Corani and Mangili (2016), JMLR 17, for the pairwise tests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.metric import Direction
from stackwise_ray.core.metric_catalogue import badness, format_metric, good_direction
from stackwise_ray.core.quantities import format_number

from ..paired.answer_words import MOST_NAMES, listed
from ..paired.deciding_tests import adjust_p, wilcoxon_p
from ..render import Grid, GridView, equals_p, format_p
from ..table.blocks import check_goal, check_level, resolve
from .task_scores import ScoreTable, as_tasks, task_scores

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

FEW_TASKS = 10
"""Below it Friedman's χ² is a rough approximation, and it is said (Demšar 2006, §3.2.2)."""


@dataclass(frozen=True, kw_only=True)
class RankPair:
    """Two arms over the same tasks.

    Attributes:
        p: Two-sided Wilcoxon signed-rank test of the tasks' means; `p_adjusted` by Holm over all pairs. None where the
            arms agree on every task.
        rank_difference: Mean rank of `first` − mean rank of `second`; negative: `first` is better.
        nemenyi: Whether it exceeds the critical difference.
    """

    first: str
    second: str
    p: float | None
    p_adjusted: float | None
    rank_difference: float
    nemenyi: bool


@dataclass(frozen=True, kw_only=True, repr=False)
class Ranking(GridView):
    """Arms by mean rank, best first.

    Attributes:
        mean_ranks: Arm to its mean rank over the tasks (1 is best; ties share the mean of their ranks).
        means: Arm to the mean of its task means; empty where the tasks are several metrics, which share no scale.
        tasks: The tasks that count: those on which every arm was measured.
        chi_square, p: Friedman's test that all arms rank alike, corrected for ties.
        f_statistic, p_f: Iman and Davenport's form of it, which is less conservative; both None where every task ranks
            the arms alike: F is infinite there, and its p of 0 less than any order of so many tasks allows.
        critical_difference: Nemenyi's, of mean ranks, at `alpha`.
        groups: Maximal sets of arms that lie closer than the critical difference.
        pairs: Every two arms.
        lost: Tasks left out, with the reason.
    """

    metric: str
    direction: Direction
    assumed: bool
    alpha: float
    mean_ranks: Mapping[str, float]
    means: Mapping[str, float]
    tasks: tuple[str, ...]
    chi_square: float
    p: float
    f_statistic: float | None
    p_f: float | None
    critical_difference: float
    groups: tuple[tuple[str, ...], ...]
    pairs: tuple[RankPair, ...]
    lost: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What the ranks say, in one sentence."""
        order = ", ".join(f"{arm} {format_number(rank, 2)}" for arm, rank in self.mean_ranks.items())
        head = f"On {self.metric} ({self._good}) over {len(self.tasks)} tasks the mean ranks are {order}"
        p = f"Friedman {equals_p(self.p)}"
        if self.p > self.alpha:
            return f"{head}; nothing says that they differ ({p})."
        apart = [f"{pair.first} and {pair.second}" for pair in self.pairs if pair.nemenyi]
        critical = f"the critical difference {format_number(self.critical_difference, 2)}"
        found = f"apart by more than {critical}: {', '.join(apart)}"
        if not apart:
            found = f"no two lie further apart than {critical}"
        return f"{head}; they differ ({p}), {found}."

    @property
    def _good(self) -> str:
        return good_direction(self.direction, assumed=self.assumed)

    @property
    def grid(self) -> Grid:
        """One row per arm; against the best one the pairwise p."""
        best = next(iter(self.mean_ranks))
        against = {pair.second: pair for pair in self.pairs if pair.first == best}
        rows = tuple(
            (
                arm,
                format_number(rank, 3),
                *([format_metric(self.metric, self.means[arm])] if self.means else []),
                "" if arm == best else format_p(against[arm].p_adjusted),
                "" if arm == best else "yes" if against[arm].nemenyi else "no",
            )
            for arm, rank in self.mean_ranks.items()
        )
        title = f"{self.metric} ({self._good}), ranks over {len(self.tasks)} tasks"
        mean = ("mean",) if self.means else ()
        columns = ("arm", "mean rank", *mean, f"p against {best} (Wilcoxon, Holm)", f"beyond CD from {best}")
        f_text = "no Iman–Davenport F: every task ranks the arms alike, so that F is infinite and its p would be 0"
        if self.f_statistic is not None:
            f_text = f"Iman–Davenport F = {format_number(self.f_statistic, 3)}, {equals_p(self.p_f)}"
        notes = [
            f"Friedman χ² = {format_number(self.chi_square, 3)}, {equals_p(self.p)}; {f_text}",
            f"Nemenyi's critical difference at {self.alpha:g}: {format_number(self.critical_difference, 3)}",
            *(f"not told apart: {', '.join(group)}" for group in self.groups if len(group) > 1),
            *self.notes,
            *(f"task {task} left out: {why}" for task, why in self.lost.items()),
        ]
        return Grid(columns, rows, title, tuple(notes), tuple(range(1, len(columns) - 1)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, `sentence` included."""
        return {**asdict(self), "sentence": self.sentence}


def rank(
    table: pd.DataFrame,
    metric: str | Sequence[str],
    task: str = "task",
    arm: str = "arm",
    seed: str = "seed",
    direction: Direction | None = None,
    alpha: float = 0.05,
) -> Ranking:
    """Rank the arms on every task and test whether the ranks differ.

    Hypothesis: on each task every order of the arms is equally likely. Tasks must be independent of each other; their
    scales may differ. Friedman's test comes first; where it does not reject, neither the critical difference nor the
    pairs are findings, and a note says so.

    Args:
        table: One row per run.
        metric, task, arm, seed: Columns; runs of one arm and task that differ in `seed` are averaged. Several metrics
            are the tasks themselves, in a table with one row per run and a column per score.
        direction: Whether small or large values are good (rank 1); None: as in `compare`.
        alpha: Level of Friedman's test, of the critical difference and of the pairwise tests after Holm.

    Raises:
        AnalysisError: A column that is not there, one arm, fewer than 2 complete tasks, the same value for every arm
            on every task, or anything that `compare` refuses as well.
    """
    names = [metric] if isinstance(metric, str) else list(metric)
    if len(names) > 1:
        table, read, task = as_tasks(table, names, direction), "score", "task"
    else:
        read = names[0]
    direction, assumed = resolve(table, names[0], direction)
    check_goal(direction, None)
    check_level(alpha)
    scores = task_scores(table, read, task, arm, seed)
    metric = listed(names) if len(names) <= MOST_NAMES else f"{len(names)} metrics"
    if len(scores.values) < 2:
        raise AnalysisError(f"there is only one arm, '{next(iter(scores.values))}': nothing to rank it with")
    lost = _lost(scores)
    tasks = tuple(name for name in scores.tasks if name not in lost)
    if len(tasks) < 2:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(lost.items())[:4])
        raise AnalysisError(f"{len(tasks)} complete tasks; ranks need at least 2" + (f" ({reasons})" if lost else ""))
    ranking = _ranking(scores, tasks, lost, metric, direction, alpha, assumed=assumed)
    return ranking if len(names) == 1 else replace(ranking, means={})


def friedman(ranks: NDArray[np.float64]) -> tuple[float, float, float | None, float | None]:
    """Friedman's χ² (corrected for ties) and its p, and Iman and Davenport's F and its p (None where F is infinite).

    Args:
        ranks: One row per task, one column per arm.
    """
    import numpy as np
    from scipy.stats import chi2, f

    n, k = ranks.shape
    spread = float(((ranks - (k + 1) / 2) ** 2).sum())
    if spread == 0:
        raise AnalysisError("every arm has the same value on every task: there is nothing to rank")
    statistic = float((k - 1) * n**2 * ((ranks.mean(axis=0) - (k + 1) / 2) ** 2).sum() / spread)
    p = float(chi2.sf(statistic, k - 1))
    room = n * (k - 1) - statistic
    if room <= 1e-9 * n * k:
        return statistic, p, None, None
    ratio = (n - 1) * statistic / room
    return statistic, p, float(ratio), float(np.asarray(f.sf(ratio, k - 1, (k - 1) * (n - 1))))


def nemenyi_critical_difference(arms: int, tasks: int, alpha: float = 0.05) -> float:
    """The difference of mean ranks beyond which two of so many arms differ at level `alpha`.

    q_α √(k (k + 1) / (6 N)), q_α from the studentised range with infinite degrees of freedom over √2.

    >>> round(nemenyi_critical_difference(4, 14), 2)
    1.25
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - alpha, arms, math.inf)) / math.sqrt(2)
    return q * math.sqrt(arms * (arms + 1) / (6 * tasks))


def _lost(scores: ScoreTable) -> dict[str, str]:
    """Tasks on which an arm has no usable value, with all reasons."""
    reasons: dict[str, list[str]] = {}
    for (arm, task), why in scores.lost.items():
        reasons.setdefault(task, []).append(f"{arm}: {why}")
    return {task: "; ".join(parts) for task, parts in reasons.items()}


def _ranking(
    scores: ScoreTable,
    tasks: Sequence[str],
    lost: Mapping[str, str],
    metric: str,
    direction: Direction,
    alpha: float,
    *,
    assumed: bool,
) -> Ranking:
    import numpy as np
    from scipy.stats import rankdata

    arms = list(scores.values)
    means = np.array([[np.mean(scores.values[arm][task]) for arm in arms] for task in tasks])
    ranks = rankdata(badness(direction) * means, axis=1)
    statistic, p, ratio, p_f = friedman(ranks)
    mean_ranks = ranks.mean(axis=0)
    order = np.argsort(mean_ranks, kind="stable")
    ranked = {arms[index]: float(mean_ranks[index]) for index in order}
    critical = nemenyi_critical_difference(len(arms), len(tasks), alpha)
    notes = list(scores.notes)
    counts = {len(scores.values[arm][task]) for arm in arms for task in tasks}
    if max(counts) > 1:
        notes.append(f"each value is the mean of {min(counts)}{f' to {max(counts)}' if len(counts) > 1 else ''} runs")
    if ratio is None:  # of all permutations of the ranks within the tasks, only the same one in each goes as far
        ties = np.unique(ranks[0], return_counts=True)[1]
        orders = math.factorial(len(arms)) / math.prod(math.factorial(int(count)) for count in ties)
        exact = equals_p(orders ** (1 - len(tasks)))
        notes.append(f"every task ranks the arms alike: exact permutation {exact}, the least of {len(tasks)} tasks")
    if len(tasks) < FEW_TASKS:
        notes.append(f"{len(tasks)} tasks: below {FEW_TASKS} the χ² approximation is rough")
    if p > alpha:
        notes.append("Friedman's test does not reject: neither the critical difference nor a pair is a finding")
    return Ranking(
        metric=metric,
        direction=direction,
        assumed=assumed,
        alpha=alpha,
        mean_ranks=ranked,
        means={arms[index]: float(means[:, index].mean()) for index in order},
        tasks=tuple(tasks),
        chi_square=statistic,
        p=p,
        f_statistic=ratio,
        p_f=p_f,
        critical_difference=critical,
        groups=_groups(ranked, critical),
        pairs=_pairs(means[:, order], ranked, critical),
        lost=lost,
        notes=tuple(notes),
    )


def _pairs(means: NDArray[np.float64], ranked: Mapping[str, float], critical: float) -> tuple[RankPair, ...]:
    """Every two arms, the better ranked first; the columns of `means` stand in the order of `ranked`."""
    both = list(combinations(range(len(ranked)), 2))
    differences = [means[:, first] - means[:, second] for first, second in both]
    values = [wilcoxon_p(difference) if difference.any() else None for difference in differences]
    adjusted = adjust_p(values, "holm")
    arms, levels = list(ranked), list(ranked.values())
    return tuple(
        RankPair(
            first=arms[first],
            second=arms[second],
            p=p,
            p_adjusted=p_adjusted,
            rank_difference=levels[first] - levels[second],
            nemenyi=abs(levels[first] - levels[second]) >= critical,
        )
        for (first, second), p, p_adjusted in zip(both, values, adjusted, strict=True)
    )


def _groups(ranked: Mapping[str, float], critical: float) -> tuple[tuple[str, ...], ...]:
    """Maximal runs of arms, in order of rank, whose ends lie closer than the critical difference."""
    arms, levels = list(ranked), list(ranked.values())
    groups: list[tuple[str, ...]] = []
    reached = 0
    for start in range(len(arms)):
        end = start + 1
        while end < len(arms) and levels[end] - levels[start] < critical:
            end += 1
        if end > reached:
            groups.append(tuple(arms[start:end]))
            reached = end
    return tuple(groups)
