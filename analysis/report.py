"""The report of a sweep: `report/report.md` with its figures, and the JSON files beside it.

Called by the sweep command at its end and by `python -m analysis report`. Order: question, verdict, comparison table,
figures, budgets, plan against run, perplexities, the oracle where there is one, tuning, what failed and why,
provenance. It prints what the journal holds and what `compare` found; a number that nobody measured is "not measured".
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import figures
from .comparison import Comparison
from .files import write_text
from .planned import planned_grid
from .render import ABSENT, Grid, format_count, format_flops, format_number, format_seconds, format_significant
from .results_json import write_results
from .runs import EARLIER, load_curves
from .summary import MOST_SEARCH_ROWS, Summary, summarise, summary_table
from .sweep_directory import Sweep, read_sweep

__all__ = ["summary_table", "write_report"]

_ORACLE = "validation/oracle_loss"
_CURVES = ("train/loss", "validation/loss", "validation/perplexity")


def write_report(sweep_directory: str | Path) -> Path:
    """Write the report of a sweep and return the path of `report.md`.

    Every file is written whole or not at all; figures and JSON files come first, the text that links to them last.

    Raises:
        AnalysisError: There is no journal in `sweep_directory`, or no trial in it.
    """
    sweep = read_sweep(sweep_directory)
    summary = summarise(sweep)
    folder = sweep.directory / "report"
    drawn = _draw(summary, folder / "figures")
    write_results(summary, folder)
    parts = [
        _head(summary),
        _comparison(summary),
        _search_points(summary),
        _figures(drawn, folder),
        _budgets(summary),
        _planned(sweep),
        _perplexities(summary),
        _oracle(sweep),
        _tuning(sweep),
        _failures(summary),
        _provenance(sweep),
    ]
    return write_text(folder / "report.md", "\n\n".join(part.strip() for part in parts if part) + "\n")


def _draw(summary: Summary, folder: Path) -> list[tuple[str, Path]]:
    sweep = summary.sweep
    drawn = []
    if summary.comparisons:
        path = figures.forest_plot(folder / "comparison_plots.png", summary.comparisons)
        drawn.append(("Paired differences with their intervals", path))
    if len(sweep.runs) and not sweep.is_search:
        curves = load_curves(sweep.directory, _CURVES)
        tuning = {arm: float(tuned.flops) for arm, tuned in sweep.tuning.items() if tuned.flops is not None}
        path = figures.training_curves(folder / "training_curves.png", curves, sweep.runs, sweep.arms, tuning)
        drawn.append(("Training curves, speed and FLOPs", path))
        path = figures.loss_curves(folder / "loss_curves.png", curves, sweep.arms)
        drawn.append(("Validation loss against tokens and against FLOPs", path))
    return drawn


def _head(summary: Summary) -> str:
    sweep = summary.sweep
    lines = [f"# {sweep.name}", ""]
    if sweep.question:
        lines += [f"**Question.** {sweep.question}", ""]
    lines += [f"> **{line}**\n" for line in summary.warnings]
    lines.append(f"**Verdict.** {summary.verdict}")
    return "\n".join(lines)


def _comparison(summary: Summary) -> str:
    if summary.sweep.is_search and not summary.comparisons:
        return "## The best trials\n\n" + summary.search_grid().to_markdown()
    if not summary.arms:
        return "## Comparison\n\nNothing to compare: no replicate has started."
    lines = ["## Comparison", "", summary.grid().to_markdown()]
    for index, comparison in enumerate(summary.comparisons):
        lines += [
            "",
            _method(comparison),
            "",
            "\n".join(f"- {line}" for line in comparison.remarks()).replace("\n-   ", "\n  "),
            "",
        ]
        if index:
            lines.append(comparison.verdict_grid.to_markdown())
        lines.append(comparison.detail_grid.to_markdown())
    lines += [f"- Refused: {reason}" for reason in summary.refused]
    return "\n".join(lines).rstrip()


def _search_points(summary: Summary) -> str:
    """All points of the search where the section on the best trials does not already show them."""
    grid = summary.search_grid(most=None)
    shown = summary.sweep.is_search and not summary.comparisons and len(grid.rows) <= MOST_SEARCH_ROWS
    if shown or not summary.sweep.search_trials:
        return ""
    text = "One run a point, on a seed that no replicate uses: these losses say which points were trained again."
    if not grid.rows:
        return "## Search points\n\nNo search trial has finished."
    return "## Search points\n\n" + (f"{text}\n\n" if not summary.sweep.is_search else "") + grid.to_markdown()


def _method(comparison: Comparison) -> str:
    tests = {"t": "paired t test", "sign_flip": "sign-flip test", "wilcoxon": "Wilcoxon signed-rank test"}
    correction = {"none": "no correction", "holm": "Holm's correction", "bonferroni": "Bonferroni's correction"}
    corrected = correction.get(comparison.correction, "Benjamini and Hochberg's correction")
    arms = "one arm" if len(comparison.arms) == 1 else f"{len(comparison.arms)} arms"
    text = (
        f"Every arm is compared with {comparison.baseline}, paired by {comparison.block}. The two-sided "
        f"{tests[comparison.test]} decides at level {comparison.alpha:g} after {corrected} over {arms}; the intervals "
        f"are of the same test and not widened for the number of arms."
    )
    if comparison.margin is not None:
        text += (
            f" Equivalent means: the {1 - 2 * comparison.alpha:.0%} interval lies inside ±{comparison.margin:g} (two "
            f"one-sided tests)."
        )
    return text


def _figures(drawn: list[tuple[str, Path]], folder: Path) -> str:
    if not drawn:
        return ""
    return "## Figures\n\n" + "\n\n".join(f"![{title}]({path.relative_to(folder).as_posix()})" for title, path in drawn)


def _budgets(summary: Summary) -> str:
    runs, sweep = summary.sweep.runs, summary.sweep
    if runs.empty or sweep.is_search:
        return ""
    rows = []
    for arm in sweep.arms:
        part = runs[runs["arm"] == arm]
        nominal = float(part["budget"].iloc[0]) if "budget" in part.columns and len(part) else None
        rows.append((
            arm, format_count(nominal).strip(),
            _range(part, "flops", format_flops), _range(part, "tokens", lambda v: format_count(v).strip()),
            _range(part, "flops/recomputed", format_flops), _range(part, "flops/evaluation", format_flops),
            _range(part, "attempt_seconds", format_seconds),
        ))  # fmt: skip
    kind = sweep.budget_kind or "mixed kinds"
    columns = (
        "arm", f"budget ({kind})", "training FLOPs", "training tokens", "recomputed", "evaluation", "wall time",
    )  # fmt: skip
    notes = "Ranges are over the seeds. Recomputation and evaluation are counted apart and stand outside the budget."
    return (
        "## Budgets achieved\n\n" + Grid(columns, tuple(rows), numeric=(1, 2, 3, 4, 5, 6)).to_markdown() + f"\n{notes}"
    )


def _range(part: Any, column: str, form: Any) -> str:
    if column not in part.columns or part[column].notna().sum() == 0:
        return ABSENT
    low, high = form(float(part[column].min())), form(float(part[column].max()))
    return low if low == high else f"{low} – {high}"


def _planned(sweep: Sweep) -> str:
    grid = planned_grid(sweep)
    if grid is None:
        return ""
    text = (
        "FLOPs of one trial are counted before the run and by it. Time and peak memory were predicted from what this "
        "machine had been measured to do before; beside them the means over the finished trials."
    )
    return f"## Plan against run\n\n{text}\n\n{grid.to_markdown()}"


def _perplexities(summary: Summary) -> str:
    runs = summary.sweep.runs
    names = sorted(name for name in runs.columns if "/perplexity" in name)
    if not names or summary.sweep.is_search:
        return ""
    rows = tuple(
        (arm, *(_geometric_mean(runs[runs["arm"] == arm], name) for name in names)) for arm in summary.sweep.arms
    )
    grid = Grid(("arm", *names), rows, numeric=tuple(range(1, len(names) + 1)))
    text = (
        "Geometric means over the seeds: exp of the mean loss. Those by token, word and byte are of whole splits, "
        "validation/perplexity is of the fixed windows; a first token has no prediction and counts only as a byte."
    )
    return f"## Perplexities\n\n{text}\n\n" + grid.to_markdown()


def _geometric_mean(part: Any, name: str) -> str:
    values = part[name].dropna()
    if values.empty:
        return ABSENT
    mean = math.exp(sum(map(math.log, values)) / len(values))
    return format_significant(mean) if mean < 1e6 else f"{mean:.3e}"


def _mean(part: Any, name: str) -> str:
    return format_significant(float(part[name].mean())) if part[name].notna().any() else ABSENT


def _signed(value: float) -> str:
    return format_number(float(value), 4, signed=True)


def _oracle(sweep: Sweep) -> str:
    runs = sweep.runs
    if _ORACLE not in runs.columns or "loss" not in runs.columns or sweep.is_search:
        return ""
    rows, below = [], []
    for arm in sweep.arms:
        part = runs[(runs["arm"] == arm)].dropna(subset=[_ORACLE, "loss"])
        if part.empty:
            rows.append((arm, ABSENT, ABSENT, ABSENT))
            continue
        excess = part["loss"] - part[_ORACLE]
        below += [
            f"{arm}, seed {seed} ({value:+.5f})" for seed, value in zip(part["seed"], excess, strict=True) if value < 0
        ]
        rows.append((
            arm, _mean(part, "loss"), _mean(part, _ORACLE),
            f"{_signed(excess.mean())} (least {_signed(excess.min())})",
        ))  # fmt: skip
    grid = Grid(("arm", "validation loss", "oracle's loss", "excess (nats a token)"), tuple(rows), numeric=(1, 2, 3))
    text = f"The oracle knows the source; its loss on the same windows is the floor.{_uniform(sweep)}\n\n"
    text += grid.to_markdown()
    if below:
        return f"## Against the oracle\n\n{text}\n**Below the floor: {', '.join(below)}. Something leaks.**"
    return f"## Against the oracle\n\n{text}\nNo run is below the floor."


def _uniform(sweep: Sweep) -> str:
    """The other end of the scale: what a model has that has learned nothing."""
    sources = (trial.config.get("data", {}).get("markov") for trial in sweep.trials)
    symbols = {source["n_symbols"] for source in sources if source}
    if len(symbols) != 1:
        return ""
    (n_symbols,) = symbols
    return f" A uniform guess over its {n_symbols} symbols would lose {math.log(n_symbols):.3f}."


def _tuning(sweep: Sweep) -> str:
    if not sweep.tuning:
        return ""
    rows = []
    for arm, tuning in sweep.tuning.items():
        for trial in tuning.trials:
            values = trial.get("values") or {}
            loss = trial.get("loss")
            chosen = "chosen" if dict(values) == dict(tuning.values) else ""
            shown = ", ".join(f"{path} = {_plain(value)}" for path, value in values.items())
            rows.append((arm, shown, format_number(loss, 4), chosen, str(trial.get("trial_id", ABSENT))))
    grid = Grid(("arm", "values", "loss at the end of its short budget", "", "trial"), tuple(rows), numeric=(2,))
    return "## Tuning\n\nEqual trials for every arm, on seeds that no replicate uses.\n\n" + grid.to_markdown()


def _failures(summary: Summary) -> str:
    sweep = summary.sweep
    rows = tuple(
        (trial.arm, str(trial.seed), trial.role, trial.status, trial.reason or "no reason recorded", trial.trial_id)
        for trial in sweep.trials
        if trial.status != "finished"
    )
    distinct = sweep.distinct_trials
    resumed = [f"{trial.trial_id} ({trial.attempts} attempts)" for trial in distinct if trial.attempts > 1]
    lines = ["## What failed and why", ""]
    if rows:
        lines.append(Grid(("arm", "seed", "role", "state", "reason", "trial"), rows, numeric=(1,)).to_markdown())
    else:
        lines.append(f"Nothing: all {len(distinct)} trials finished.")
    if resumed:
        lines.append(f"\nContinued after an interruption: {', '.join(resumed)}.")
    if sweep.earlier:
        lines.append(f"\nLeft out, {EARLIER}: {_trials(len(sweep.earlier))} of the journal.")
    return "\n".join(lines).rstrip()


def _provenance(sweep: Sweep) -> str:
    meta = sweep.meta
    rows = [("sweep hash", _plain(meta.get("sweep_hash"))), ("analysis plan", _plan_line(meta))]
    started = meta.get("started_at")
    if isinstance(started, (int, float)):
        rows.append(("started", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(started))))
    if sweep.earlier:
        rows.append(("left out", f"{_trials(len(sweep.earlier))} {EARLIER}"))
    facts: dict[str, dict[str, int]] = {}
    for trial in sweep.distinct_trials:
        if trial.status == "finished":
            for key, value in trial.environment.items():
                if not isinstance(value, (dict, list)):
                    counts = facts.setdefault(key, {})
                    counts[_plain(value)] = counts.get(_plain(value), 0) + 1
    driver = meta.get("environment")
    plain = driver.items() if isinstance(driver, Mapping) else ()
    own = {key: _plain(value) for key, value in plain if not isinstance(value, (dict, list))}
    for key in sorted({*own, *facts}):
        counts = facts.get(key, {})
        shown = ", ".join(f"{value} ({count} trials)" if len(counts) > 1 else value for value, count in counts.items())
        if len(counts) > 1:
            rows.append((f"{key} (trials)", f"mixed: {shown}"))
        elif counts and own.get(key, shown) != shown:
            rows += [(f"{key} (driver)", own[key]), (f"{key} (trials)", shown)]
        else:
            rows.append((key, shown or own[key]))
    return "## Provenance\n\n" + Grid(("what", "value"), tuple(rows)).to_markdown().rstrip()


def _plan_line(meta: Mapping[str, Any]) -> str:
    current, first = meta.get("analysis_plan_hash"), meta.get("analysis_plan_first_hash")
    if current is None:
        return "not recorded"
    after = meta.get("analysis_plan_amended_after")
    if after is not None or (first is not None and first != current):
        count = f"after {after} trials" if after is not None else "after the first trial"
        return f"{current}, amended {count} (in force at the first trial: {first or 'not recorded'})"
    return f"{current}, declared before the first trial" if first == current else f"{current}, first hash not recorded"


def _trials(count: int) -> str:
    return f"{count} trial{'s' if count != 1 else ''}"


def _plain(value: Any) -> str:
    if value is None:
        return "not recorded"
    return f"{value:g}" if isinstance(value, float) else str(value)
