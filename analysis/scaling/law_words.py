"""What fitted laws say in one plain sentence, and what speaks against them. Called by their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stackwise_ray.core.quantities import format_count

from ..paired.answer_words import as_sentence
from .certificate import Certificate
from .law_text import show_ends, show_value

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


def valley_sentence(exponents: Mapping[str, float], accepted: int, refused: Sequence[str], only: float | None) -> str:
    """The growth of the best size with the budget.

    Args:
        accepted: Budgets with a best size.
        refused: Why each other budget has none.
        only: That size, where there is one such budget.
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
    return f"With the budget {grown} ({accepted} of {budgets} budgets have a best size)."


def valley_caveats(refusals: Sequence[str], accepted: int) -> tuple[str, ...]:
    """Budgets without a best size, and how little a line through few of them shows."""
    refused = tuple(map(as_sentence, refusals))
    if accepted == 2:
        return (*refused, "The growth is a line through two budgets: nothing checks its shape.")
    return refused


def exponent_notes(exponents: Mapping[str, float], intervals: Mapping[str, tuple[float, float]] | None) -> list[str]:
    """The exponents with their intervals, a line each."""
    return [
        f"{'params' if key == 'a' else 'tokens'} ∝ flops^{show_value(value)} "
        f"[{show_ends(intervals[key]) if intervals else 'no interval'}]"
        for key, value in exponents.items()
    ]
