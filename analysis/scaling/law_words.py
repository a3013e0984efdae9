"""What fitted laws say in one plain sentence, and what speaks against them. Called by their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stackwise_ray.core.quantities import format_count, format_number, format_significant

from ..paired.answer_words import as_sentence
from .certificate import Certificate
from .law_text import bias_share, show_ends, show_value

_GROWS = {"a": "the best number of parameters grows", "b": "its tokens grow"}


def law_sentence(formula: str, runs: int, certificate: Certificate, quantity: str = "loss") -> str:
    """The law, and whether it can be relied on."""
    if certificate.failures:
        return (
            f"No law can be relied on: {quantity} = {formula}, fitted to {runs} runs, does not hold "
            f"({'; '.join(certificate.failures)})."
        )
    rest = f" as far as it was checked (not: {', '.join(certificate.unchecked)})" if certificate.unchecked else ""
    return f"{quantity} = {formula} holds on {runs} runs: it passes the checks of its certificate{rest}."


def law_caveats(certificate: Certificate) -> tuple[str, ...]:
    """Checks that failed or were not made, and where the runs end."""
    failed = tuple(f"The law's certificate does not hold: {failure}." for failure in certificate.failures)
    unchecked = tuple(f"The law's {check} was not checked." for check in certificate.unchecked)
    spans = (certificate.ranges or {}).items()
    inside = ", ".join(f"{format_count(low)} to {format_count(high)} {name}" for name, (low, high) in spans)
    reach = (f"The law is fitted on {inside}: a prediction beyond is an extrapolation.",) if inside else ()
    return (*failed, *unchecked, *reach)


def valley_sentence(
    exponents: Mapping[str, float], accepted: int, refused: Sequence[str], only: float | None, bias: float | None
) -> str:
    """The growth of the best size with the budget.

    Args:
        accepted: Budgets with a best size.
        refused: Why each other budget has none.
        only: That size, where there is one such budget.
        bias: Of the first exponent, where it is known.
    """
    budgets = accepted + len(refused)
    if not accepted:
        why = f": {refused[0]}" if len(set(refused)) == 1 else ""
        return f"No best size was found at {'the only budget' if budgets == 1 else f'any of {budgets} budgets'}{why}."
    if not exponents:
        best = "" if only is None else f", {format_count(only)} parameters"
        return f"{accepted} of {budgets} budgets has a best size{best}: how it grows cannot be said."
    grown = " and ".join(
        f"{words} as FLOPs^{show_value(exponents[key])}" for key, words in _GROWS.items() if key in exponents
    )
    known = "" if bias is None else f"; the method's bias in the first exponent is {_signed(bias)}"
    return f"With the budget {grown} ({accepted} of {budgets} budgets have a best size{known})."


def valley_caveats(refusals: Sequence[str], accepted: int, misfit: float, outliers: int) -> tuple[str, ...]:
    """Budgets without a best size, how little a line through few of them shows, misfit and outliers."""
    found = [as_sentence(refusal) for refusal in refusals]
    if accepted == 2:
        found.append("The growth is a line through two budgets: nothing checks its shape.")
    if misfit:
        found.append(f"The curves miss the runs by {_share(misfit)} of the loss beyond their noise.")
    if outliers:
        found.append(f"{outliers} size{'s' if outliers > 1 else ''} far off the valley took no part.")
    return tuple(found)


def method_notes(
    window: float, widths: Sequence[float], misfit: float, noise: str, deviations: Sequence[float], draws: int
) -> list[str]:
    """How the best sizes were found: the curves, the sizes that took part, the noise and the draws.

    Args:
        window: Loss over the lowest of its budget up to which a size took part.
        widths: The values that it may have.
        misfit: Standard deviation of what the shape misses, in log-loss; 0 for nothing.
        deviations: Standard deviation of one run's log-loss at each budget; none where it is not known.
    """
    source = "between seeds" if noise == "seeds" else "of the runs about their curves"
    lines = [
        "method: one shape of the valley for all budgets, with a level and a tilt of each budget's own",
        f"width: sizes up to {window:.2f} times the lowest loss of their budget, the wider of two widths "
        f"({', '.join(f'{width:.2f}' for width in widths)}) if the shape misses the runs by less than half of their "
        f"noise there, else the narrower",
    ]
    if not deviations:
        reason = "the curves have about as many coordinates as there are sizes"
        return [*lines, f"no intervals: {reason}, so nothing tells the noise; add sizes, budgets or seeds"]
    spread = " to ".join(dict.fromkeys(_share(value) for value in (min(deviations), max(deviations))))
    lines.append(f"noise {source}: {spread} of the loss")
    if misfit:
        lines.append(f"the shape misses the runs by {_share(misfit)} of the loss beyond their noise")
    if draws:
        what = "noise and of the misfit" if misfit else "noise"
        lines.append(
            f"intervals: {draws} draws of the {what}; a draw goes without a budget that has no lowest point in it"
        )
    return lines


def outlier_note(one: Mapping[str, Any]) -> str:
    """A size that took no part, because it is no part of its valley."""
    far = format_number(abs(one["deviations"]), 0)
    return (
        f"took no part: {show_value(one['params'])} params at {one['budget']}, loss {show_value(one['loss'])}: "
        f"{far} standard deviations off its valley"
    )


def bias_note(exponent: float, sizes: Sequence[float | None]) -> str:
    """The method's bias, where a law that holds tells it."""
    shares = [bias_share(size) for size in sizes if size is not None]
    spread = " to ".join(dict.fromkeys((shares[0], shares[-1])))
    return (
        f"bias of the method, if the losses were those of the fitted law without noise: {_signed(exponent)} in a, "
        f"{spread} in params from the smallest budget to the largest"
    )


def _share(value: float) -> str:
    """A standard deviation in log-loss as a share of the loss.

    >>> _share(0.0021), _share(2e-7)
    ('0.21%', 'less than 0.01%')
    """
    return f"{format_significant(100 * value, 2)}%" if value >= 1e-4 else "less than 0.01%"


def _signed(value: float) -> str:
    """A bias of an exponent with four decimals, never a signed zero.

    >>> _signed(0.00123), _signed(-1e-7)
    ('+0.0012', 'below 0.0001')
    """
    return format_number(value, 4, signed=True) if abs(value) >= 5e-5 else "below 0.0001"


def exponent_notes(exponents: Mapping[str, float], intervals: Mapping[str, tuple[float, float]] | None) -> list[str]:
    """The exponents with their intervals, a line each."""
    return [
        f"{'params' if key == 'a' else 'tokens'} ∝ flops^{show_value(value)} "
        f"[{show_ends(intervals[key]) if intervals else 'no interval'}]"
        for key, value in exponents.items()
    ]
