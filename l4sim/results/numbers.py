"""Numbers and their changes as people read them."""

from __future__ import annotations

import math


def precise(value: float) -> str:
    """A number to three significant digits, thousands separated: 0.0123, 4.56, 789, 12,300; a dash for NaN."""
    if value != value:
        return "–"
    rounded = float(f"{value:.3g}")
    if rounded == 0:
        return "0"
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def change(value: float, base: float) -> str:
    """The relative change of ``value`` against ``base`` with its sign: ``+3 %``, ``-0.4 %``, ``±0 %``, ``x12``."""
    if not base > 0 or value != value:
        return "–"
    ratio = value / base
    percent = 100 * (ratio - 1)
    if ratio >= 10:
        return f"x{precise(ratio)}"
    if abs(percent) < 0.05:
        return "±0 %"
    return f"{percent:+.0f} %" if abs(percent) >= 9.5 else f"{percent:+.1f} %"
