"""Counts, FLOPs, bytes and durations as people write and read them."""

from __future__ import annotations

import math
import re

_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12, "P": 10**15}
_QUANTITY = re.compile(r"\s*([0-9][0-9_]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?)\s*([kMGBTP]?)\s*")


def parse_quantity(text: str | int | float) -> float:
    """A non-negative quantity: a number, or text with a decimal suffix (k, M, G or B, T, P).

    >>> parse_quantity("1.5M"), parse_quantity("3e9"), parse_quantity(12)
    (1500000.0, 3000000000.0, 12.0)
    """
    if isinstance(text, (int, float)):
        return float(text)
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not a quantity; write it like 1500000, 1.5M or 1.5e6")
    return float(match[1].replace("_", "")) * _SUFFIXES[match[2]]


def format_count(value: float) -> str:
    """A count with three digits and a decimal suffix.

    >>> format_count(124_439_808), format_count(950), format_count(1e12)
    ('124M', '950', '1.00T')
    """
    for suffix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale * 0.9995:
            scaled = value / scale
            return f"{scaled:.{max(0, 2 - int(math.log10(abs(scaled) * 1.0005)))}f}{suffix}"
    return f"{value:.0f}" if value == int(value) else f"{value:.3g}"


def format_bytes(value: float) -> str:
    """Bytes in binary units.

    >>> format_bytes(3 * 2**20), format_bytes(512)
    ('3.0 MiB', '512 B')
    """
    for suffix, scale in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(value) >= scale:
            return f"{value / scale:.1f} {suffix}"
    return f"{value:.0f} B"


def format_seconds(value: float) -> str:
    """A duration in the two largest units that matter.

    >>> format_seconds(3725), format_seconds(42.3), format_seconds(0.25)
    ('1 h 02 min', '42 s', '0.25 s')
    """
    if value < 10:
        return f"{value:.2g} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def near_divisors(number: int, wanted: int, *, most: int = 3) -> str:
    """The divisors of `number` nearest to `wanted` in ratio, as the end of a "choose …" message.

    >>> near_divisors(512, 7)
    '4, 8 or 16'
    """
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    nearest = sorted(sorted(divisors, key=lambda d: abs(math.log(d / wanted)))[:most])
    return " or ".join([", ".join(map(str, nearest[:-1])), str(nearest[-1])] if len(nearest) > 1 else [str(nearest[0])])
