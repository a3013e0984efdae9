"""The tables of a sweep's answer: verdicts, costs by arm, the best points of a search.

Called by `summary`, for the page and for the terminal. Columns stand in the order in which a narrow screen shows them.
"""

from __future__ import annotations

from collections.abc import Sequence

from stackwise_ray.core.metric_catalogue import format_metric
from stackwise_ray.core.quantities import ABSENT, format_bytes, format_count

from ..anytime.verdict import SequentialComparison
from ..paired.answer_words import decision_name
from ..paired.comparison import Comparison
from ..render import Grid
from ..table.sweep_directory import Sweep
from .arm_summary import ArmSummary, point_text, short_value

MOST_SEARCH_ROWS = 10


def verdict_grid(arms: Sequence[ArmSummary], metric: str, found: Comparison | SequentialComparison | None) -> Grid:
    """One row per arm: its difference and verdict where there is a comparison, and its mean; the baseline first."""
    if isinstance(found, Comparison):
        grid = found.verdict_grid
        rows = {row[0]: row for row in grid.rows}
        absent = (ABSENT, "undecided (no run)", ABSENT, "0", ABSENT)
        shown = tuple(rows.get(arm.arm, (arm.arm, *absent)) for arm in arms)
        return Grid(grid.columns, shown, grid.title, (), grid.numeric)
    if found is not None:
        return _anytime_grid(arms, found)
    columns = ("arm", f"{metric}, mean", "its 95% interval", "n")
    plain = []
    for arm in arms:
        interval = "n < 2" if arm.mean is not None else ABSENT
        if arm.interval is not None:
            interval = f"[{format_metric(metric, arm.interval.low)}, {format_metric(metric, arm.interval.high)}]"
        plain.append((arm.arm, format_metric(metric, arm.mean), interval, str(arm.n)))
    return Grid(columns, tuple(plain), numeric=(1, 2, 3))


def _anytime_grid(arms: Sequence[ArmSummary], found: SequentialComparison) -> Grid:
    columns = ("arm", found.grid.columns[1], "verdict", "decided after", "n", "mean")
    rows = []
    for arm in arms:
        mean = (str(arm.n), format_metric(found.metric, arm.mean))
        verdict = found.verdicts.get(arm.arm)
        if arm.arm == found.baseline:
            rows.append((arm.arm, "", "baseline", "", *mean))
        elif verdict is None:
            rows.append((arm.arm, ABSENT, "undecided (no run)", ABSENT, *mean))
        else:
            decided = f"{verdict.decided_at} of {verdict.n}" if verdict.decided_at else "–"
            rows.append((arm.arm, verdict.difference_text, decision_name(verdict.decision), decided, *mean))
    return Grid(columns, tuple(rows), found.grid.title, (), (1, 3, 4, 5))


def cost_grid(sweep: Sweep, arms: Sequence[ArmSummary], *, narrow: bool = False) -> Grid:
    """What a run of each arm costs; which values were tuned or searched, where some were.

    Args:
        narrow: For a terminal: without the points of a search and without the FLOPs of tuning.
    """
    tuned = any(arm.tuned or arm.tuning_flops for arm in arms)
    values = tuned or (any(arm.point for arm in arms) and not narrow)
    paths = {path for arm in arms for path in arm.tuned}
    one = next(iter(paths)) if len(paths) == 1 and not sweep.search_trials else None
    heading = f"{one.rpartition('.')[2]}, tuned" if one else "parameters" if sweep.search_trials else "tuned"
    columns = ["arm", "tokens/s", "FLOPs", "memory", "params", "non-emb."]
    columns += ([heading] if values else []) + (["tuning FLOPs"] if tuned and not narrow else [])
    rows = []
    for arm in arms:
        row = [
            arm.arm,
            format_count(arm.tokens_per_s),
            format_count(arm.flops),
            format_bytes(arm.peak_bytes),
            format_count(arm.params_total),
            format_count(arm.params),
        ]
        chosen = short_value(arm.tuned[one]) if one is not None and one in arm.tuned else _tuned_to(arm)
        row += [point_text(arm.point) or chosen or "not tuned"] if values else []
        row += [format_count(arm.tuning_flops)] if tuned and not narrow else []
        rows.append(tuple(row))
    numeric = tuple(index for index, name in enumerate(columns) if name not in ("arm", "tuned", "parameters"))
    return Grid(tuple(columns), tuple(rows), "cost of a run (means over seeds)", numeric=numeric)


def _tuned_to(arm: ArmSummary) -> str:
    return ", ".join(f"{path.rpartition('.')[2]} = {short_value(value)}" for path, value in arm.tuned.items())


def search_grid(sweep: Sweep, most: int | None = MOST_SEARCH_ROWS, *, narrow: bool = False) -> Grid:
    """The best finished trials of a search, the best first.

    Args:
        most: Rows; None: all of them.
        narrow: For a terminal: the points by their names, parameters by the last part of their paths.
    """
    goal = sweep.questions.first_goal
    metric = goal.metric
    points = sweep.search_trials
    done = [trial for trial in points if trial.status == "finished" and metric in trial.metrics]
    done.sort(key=lambda trial: goal.badness(trial.metrics[metric]))
    paths = list(dict.fromkeys(path for trial in points for path in trial.parameters))
    named = len({trial.arm for trial in points}) > 1  # each point has a name of its own
    replicated = {trial.arm for trial in sweep.trials if trial.role == "replicate"}
    rows = []
    for trial in done[:most]:
        row = [trial.arm] if narrow and named else [trial.trial_id]
        row.append(format_metric(metric, trial.metrics[metric]))
        row += [short_value(trial.parameters[path]) if path in trial.parameters else "not set" for path in paths]
        row += [trial.arm] if named and not narrow else []
        row += ["yes" if trial.arm in replicated else ""] if replicated else []
        rows.append(tuple(row))
    ends = [path.rpartition(".")[2] for path in paths]
    shown = ends if narrow and len(set(ends)) == len(ends) else paths
    first = "point" if narrow and named else "trial"
    columns = [first, metric, *shown]
    columns += (["point"] if named and not narrow else []) + (["winner"] if replicated else [])
    title = f"the best {len(rows)} of {len(done)} finished search trials, one seed each"
    return Grid(tuple(columns), tuple(rows), title, numeric=(1,))
