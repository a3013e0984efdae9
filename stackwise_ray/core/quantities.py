"""Numbers as people write and read them: counts, FLOPs, bytes, durations, measured values. One format each, everywhere.

Whatever shows a number asks here; what is known of a metric's own number is its record (`core.metric_catalogue`).
"""

from __future__ import annotations

import math

ABSENT = "not measured"
"""What is printed where a number is missing; never 0."""


def format_count(value: float | None) -> str:
    """A count or FLOPs, with three digits and a decimal suffix.

    >>> format_count(124_439_808), format_count(950), format_count(1e12), format_count(None)
    ('124M', '950', '1.00T', 'not measured')
    """
    if value is None or math.isnan(value):
        return ABSENT
    for suffix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale * 0.9995:
            scaled = value / scale
            return _signs(f"{scaled:.{max(0, 2 - int(math.log10(abs(scaled) * 1.0005)))}f}{suffix}")
    return _signs(f"{value:.0f}" if value == int(value) else f"{value:.3g}")


def format_tick(value: float) -> str:
    """A number on an axis: like a count, without trailing zeros.

    >>> format_tick(10_000), format_tick(1.5e6), format_tick(0.2)
    ('10k', '1.5M', '0.2')
    """
    for suffix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale * 0.9995:
            return _signs(f"{value / scale:g}{suffix}")
    return _signs(f"{value:g}")


def format_bytes(value: float | None) -> str:
    """Bytes in binary units.

    >>> format_bytes(3 * 2**20), format_bytes(512)
    ('3.0 MiB', '512 B')
    """
    if value is None or math.isnan(value):
        return ABSENT
    for suffix, scale in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(value) >= scale:
            return f"{value / scale:.1f} {suffix}"
    return f"{value:.0f} B"


def format_seconds(value: float | None) -> str:
    """A duration in the two largest units that matter.

    >>> format_seconds(3725), format_seconds(42.3), format_seconds(0.25)
    ('1 h 02 min', '42 s', '0.25 s')
    """
    if value is None or math.isnan(value):
        return ABSENT
    if value < 10:
        return f"{value:.2g} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def decimals_for(spread: float, digits: int = 2) -> int:
    """Decimal places that show `digits` digits of `spread`.

    >>> decimals_for(0.0123), decimals_for(12.0)
    (3, 0)
    """
    if not math.isfinite(spread) or spread == 0:
        return 4
    return min(12, max(0, digits - 1 - math.floor(math.log10(abs(spread)))))


def interval_spread(estimate: float, low: float, high: float) -> float:
    """Half the width of an interval, which its digits follow; of one with a single finite end, how far that is.

    >>> interval_spread(0.5, 0.0, 2.0), interval_spread(0.5, -math.inf, 2.0)
    (1.0, 1.5)
    """
    if math.isfinite(low) and math.isfinite(high):
        return (high - low) / 2
    return min(abs(end - estimate) for end in (low, high))


def format_number(value: float | None, decimals: int, *, signed: bool = False) -> str:
    """A number with a real minus sign and thousands apart; None is "not measured"."""
    if value is None:
        return ABSENT
    return _signs(f"{value:{'+' if signed else ''},.{decimals}f}")


def format_significant(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits, never in scientific notation.

    >>> format_significant(7.92412), format_significant(88412.37)
    ('7.924', '88,412')
    """
    if value is None or math.isnan(value):
        return ABSENT
    return format_number(value, decimals_for(value, digits))


def format_value(value: float | None, decimals: int = 4) -> str:
    """A measured number: so many decimal places, fewer beyond five digits, more where it would show as nothing.

    >>> format_value(2.33971), format_value(5621.0803), format_value(0.00031, 2), format_value(0)
    ('2.3397', '5,621.1', '0.00031', '0')
    """
    if value is None or math.isnan(value):
        return ABSENT
    if not math.isfinite(value) or value == 0:
        return format_number(value, 0)
    if abs(value) < 10.0 ** (1 - decimals):
        return format_number(value, decimals_for(value))
    return format_number(value, min(decimals, decimals_for(value, 5)))


def format_share(value: float) -> str:
    """A level or a tolerance as a percentage, with four digits, and with more where it would show as all or nothing.

    >>> format_share(1 - 0.05), format_share(0.001), format_share(1 - 0.05 / 3), format_share(1 - 1e-5)
    ('95%', '0.1%', '98.33%', '99.999%')
    """
    shown, digits = f"{100 * value:.4g}", 4
    while float(shown) == 100 and value != 1:  # 17 digits tell any two numbers apart
        digits += 1
        shown = f"{100 * value:.{digits}g}"
    return _signs(f"{shown}%")


def _signs(text: str) -> str:
    return text.replace("-", "−")


def near_divisors(number: int, wanted: int, *, most: int = 3) -> str:
    """The divisors of `number` nearest to `wanted` in ratio, as the end of a "choose …" message.

    >>> near_divisors(512, 7)
    '4, 8 or 16'
    """
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    nearest = sorted(sorted(divisors, key=lambda d: abs(math.log(d / wanted)))[:most])
    return " or ".join([", ".join(map(str, nearest[:-1])), str(nearest[-1])] if len(nearest) > 1 else [str(nearest[0])])
