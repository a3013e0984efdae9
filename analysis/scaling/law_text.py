"""Numbers of laws as people read them: values that span twenty decades, and intervals that may be open."""

from __future__ import annotations

from stackwise_ray.core.quantities import format_number, format_significant


def show_value(value: float | None, absent: str = "not measured") -> str:
    """A parameter with five digits, in scientific notation where it would be long.

    >>> show_value(0.3473105), show_value(2143.417), show_value(1.2e21), show_value(8.6e-249)
    ('0.34731', '2,143.4', '1.2e+21', '0.0')
    """
    if value is None:
        return absent
    if abs(value) < 1e-30:  # a search in logarithms comes near to 0 and never there
        value = 0.0
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.4g}".replace("-", "−", 1) if value < 0 else f"{value:.4g}"
    return format_significant(value, 5) if value else format_number(value, 1)


def show_ends(ends: tuple[float | None, float | None] | None, absent: str = "not measured") -> str:
    """Both ends of an interval; one that is open says so.

    >>> show_ends((1.5, None))
    '1.5000 to not bounded'
    """
    return absent if ends is None else " to ".join(show_value(end, "not bounded") for end in ends)


def bias_share(share: float) -> str:
    """A bias of a size as a share of it.

    >>> bias_share(-0.0123), bias_share(-1e-5)
    ('−1.2%', 'below 0.1%')
    """
    return f"{format_number(100 * share, 1, signed=True)}%" if abs(share) >= 5e-4 else "below 0.1%"
