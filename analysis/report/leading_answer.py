"""The answer of a sweep in one plain sentence, whatever it asks: a comparison, a law, the winner of a search, or none.

Called by `summary`; the page, the terminal, JSON and notebooks all show these phrases. No value of a single run is ever
the answer: a winner is its mean over seeds that its search did not use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from stackwise_ray.core.metric_catalogue import format_metric, metric_name, with_unit
from stackwise_ray.core.quantities import format_share

from ..paired.answer_words import AnsweredView, Phrase, counted
from ..table.sweep_directory import Sweep
from .arm_summary import ArmSummary, point_text
from .reported_steps import Answer


def failure(sweep: Sweep) -> str | None:
    """What must be said before everything else: that no trial gave a number; None where one did."""
    trials = sweep.distinct_trials
    reasons = Counter(trial.reason or "no reason recorded" for trial in trials if trial.status == "failed")
    if not trials or sum(reasons.values()) < len(trials):
        return None
    reason, count = reasons.most_common(1)[0]
    shared = "" if count == len(trials) else f" ({count} of them)"
    how = "Remove the cause and run the sweep again with --retry-failed."
    which = "The only trial" if len(trials) == 1 else f"All {len(trials)} trials"
    return f"{which} failed, so there is no result. The reason{shared}: {reason}. {how}"


def sweep_answer(
    sweep: Sweep, metric: str, arms: Sequence[ArmSummary], answers: Sequence[Answer]
) -> tuple[Phrase, ...]:
    """The sentence in pieces, each number with the arm that it comes from."""
    made = next((one for one in answers if one.compares and one.finding is not None), None)
    if made is not None and made.finding is not None:
        result = made.finding.result
        return result.phrases if isinstance(result, AnsweredView) else (Phrase(made.sentence),)
    if failure(sweep) is not None:
        return (Phrase("No answer: every trial failed."),)
    reached = [arm for arm in arms if arm.mean is not None]
    if not reached and not (sweep.is_search and metric in sweep.runs.columns and sweep.runs[metric].notna().any()):
        return (Phrase(f"No answer: {_nothing(sweep, metric)}."),)
    told = next((one for one in answers if not one.compares and not one.failed), None)
    if told is not None:
        return (Phrase(told.sentence),)
    refused = next((one.refused for one in answers if one.compares and one.refused is not None), None)
    if refused is not None:
        return (Phrase(f"No answer: {refused}."),)
    failed = next((one for one in answers if one.failed), None)
    if failed is not None:
        return (Phrase(failed.sentence),)
    if sweep.is_search:
        return (Phrase(_unconfirmed(sweep)),)
    goal = sweep.questions.goal_on(metric)
    best = min(reached, key=lambda arm: goal.badness(arm.mean or 0.0))
    return _winner(sweep, metric, reached, best) if sweep.search_trials else _best_mean(sweep, metric, reached, best)


def _nothing(sweep: Sweep, metric: str) -> str:
    """Why there is no best value."""
    if len(sweep.runs):
        return f"no finished trial has a {metric}"
    done = any(trial.status == "finished" for trial in sweep.trials)
    return "no replicate has finished" if done else "no trial has finished"


def _points(sweep: Sweep) -> int:
    return len({trial.trial_id for trial in sweep.search_trials})


def _unconfirmed(sweep: Sweep) -> str:
    """A search whose points were trained once each: the value that chose a point is no estimate of it."""
    return (
        f"No answer yet: the best of {counted(_points(sweep))} points was not trained on fresh seeds, and the value "
        f"that it was chosen by is optimistic; set search.winners to 1 and run the sweep again."
    )


def _winner(sweep: Sweep, metric: str, reached: Sequence[ArmSummary], best: ArmSummary) -> tuple[Phrase, ...]:
    """A point of a search by its runs on seeds that the search did not use."""
    which = "The winner" if len(reached) == 1 else f"The best of {counted(len(reached))} winners"
    rest = "" if len(reached) == 1 else "; whether it differs from the other winners was not tested"
    return (
        Phrase(f"{which} of a search over {counted(_points(sweep))} points, {point_text(best.point)}, reaches a mean "),
        Phrase(f"{metric_name(metric)} of "),
        Phrase(_mean(metric, best), best.arm),
        Phrase(f" on {_seeds(best.n)} that the search did not use{rest}."),
    )


def _best_mean(sweep: Sweep, metric: str, reached: Sequence[ArmSummary], best: ArmSummary) -> tuple[Phrase, ...]:
    """Arms that nobody compares: their best mean, and that this is no verdict."""
    name = metric_name(metric)
    mean = Phrase(_mean(metric, best), best.arm)
    if len(sweep.arms) == 1:
        return (
            Phrase(f"{best.arm} reaches a mean {name} of "),
            mean,
            Phrase(f" on {_seeds(best.n)}; there is no other arm."),
        )
    most = "lowest" if sweep.questions.goal_on(metric).direction == "minimize" else "highest"
    return (
        Phrase(f"No comparison was declared, so no arm is called better; {best.arm} has the {most} mean {name}, "),
        mean,
        Phrase(f" on {_seeds(best.n)}."),
    )


def _mean(metric: str, arm: ArmSummary) -> str:
    """The mean with its interval, where there is one."""
    shown = with_unit(metric, format_metric(metric, arm.mean))
    if arm.interval is None:
        return shown
    low, high = (format_metric(metric, end) for end in (arm.interval.low, arm.interval.high))
    return f"{shown} ({format_share(arm.interval.level)} interval {low} to {high})"


def _seeds(count: int) -> str:
    return f"{counted(count)} seed{'s' if count != 1 else ''}"
