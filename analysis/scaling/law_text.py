"""Numbers of laws as people read them: values that span twenty decades, and intervals that may be open."""

from __future__ import annotations

from math import inf

from stackwise_ray.core.quantities import format_number, format_significant

from .laws import Side

_AT_EDGE: dict[Side, str] = {"low": "0 (at the boundary)", "high": "without end (at the boundary)"}


def show_value(value: float | None, absent: str = "not measured") -> str:
    """A parameter with five digits, in scientific notation where it would be long.

    >>> show_value(0.3473105), show_value(2143.417), show_value(1.2e21), show_value(8.6e-249), show_value(inf)
    ('0.34731', '2,143.4', '1.2e+21', '0', 'without end')
    """
    if value is None:
        return absent
    if abs(value) < 1e-30:  # a search in logarithms comes near to 0 and never there
        return "0"
    if abs(value) == inf:
        return "without end" if value > 0 else "−without end"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.4g}".replace("-", "−", 1) if value < 0 else f"{value:.4g}"
    return format_significant(value, 5)


def show_estimate(value: float, edge: Side | None) -> str:
    """A parameter, or that it lies at the end of what it can be.

    >>> show_estimate(0.0, "low")
    '0 (at the boundary)'
    """
    return show_value(value) if edge is None else _AT_EDGE[edge]


def show_ends(
    ends: tuple[float | None, float | None] | None, absent: str = "not measured", *, edge: Side | None = None
) -> str:
    """Both ends of an interval; one that is open says so, and at a boundary there is only the other.

    >>> show_ends((1.5, None)), show_ends((0.0, 0.21), edge="low")
    ('1.5000 to not bounded', '≤ 0.21000')
    """
    if ends is None:
        return absent
    if edge is not None:
        inner = ends[1] if edge == "low" else ends[0]
        return "not bounded" if inner is None else f"{'≤' if edge == 'low' else '≥'} {show_value(inner)}"
    return " to ".join(show_value(end, "not bounded") for end in ends)


def bias_share(share: float) -> str:
    """A bias of a size as a share of it.

    >>> bias_share(-0.0123), bias_share(-1e-5)
    ('−1.2%', 'below 0.1%')
    """
    return f"{format_number(100 * share, 1, signed=True)}%" if abs(share) >= 5e-4 else "below 0.1%"
