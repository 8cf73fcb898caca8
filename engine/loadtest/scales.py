"""Where values lie on an axis, and which of them are written beside it.

Rules of this file:
1. Pure: a scale turns a value into a place from 0 to 1; what lies outside is put at the end it is beyond.
2. Ticks are numbers that people count in, and few enough not to touch each other.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from engine.loadtest.wording import NOTHING
from engine.observe.progress import duration

TICKS_MAX: Final = 6
LOG_FROM: Final = 30.0  # a range of more than this factor is drawn on a logarithmic axis
SECONDS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
NINES: Final = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)


class Scale(NamedTuple):
    """``place`` gives 0 to 1; ``ticks`` are (value, what is written)."""

    place: Callable[[float], float]
    ticks: list[tuple[float, str]]


def _between(low: float, high: float) -> Callable[[float], float]:
    return lambda value: min(1.0, max(0.0, (value - low) / (high - low)))


def linear(high: float, *, whole: bool = False) -> Scale:
    """From 0 to a little above ``high``, which may be 0. ``whole``: ticks are whole numbers."""
    high = high if high > 0 else 1.0
    step = max(_step(high), 1.0 if whole else 0.0)
    count = math.ceil(high / step - 1e-9)
    ticks = [(number * step, _written(number * step)) for number in range(count + 1)]
    return Scale(_between(0.0, count * step), ticks)


def _step(high: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten of which at most five fit."""
    power: float = 10.0 ** math.floor(math.log10(high / (TICKS_MAX - 1)))
    return next(times * power for times in (1, 2, 5, 10) if high / (times * power) <= TICKS_MAX - 1 + 1e-9)


def times_ms(values: Sequence[float]) -> Scale:
    """Milliseconds: linear from 0, or logarithmic where the values span more than ``LOG_FROM``."""
    low = min((value for value in values if value > 0), default=0.0)
    high = max(values, default=0.0)
    if not low or high / low <= LOG_FROM:
        return linear(high)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high) - 1e-9)
    every = -(-(last - first) // (TICKS_MAX - 1))
    ticks = [(10.0**power, _written(10.0**power)) for power in range(first, last + 1, every)]
    place = _between(first, last)
    return Scale(lambda value: place(math.log10(value)) if value > 0 else 0.0, ticks)


def clock(start_s: float, end_s: float) -> Scale:
    """Seconds of a test. Bounds: ``end_s > start_s``."""
    length = end_s - start_s
    step: float = next((one for one in SECONDS if length / one <= TICKS_MAX), SECONDS[-1])
    while length / step > TICKS_MAX:
        step *= 2
    first = math.ceil(start_s / step)
    marks = [number * step for number in range(first, math.floor(end_s / step) + 1)]
    return Scale(
        _between(start_s, end_s),
        [(at_s, f"{at_s:g} s" if end_s < 120 else duration(at_s)) for at_s in marks],
    )


def nines(count: int) -> Scale:
    """Shares of ``count`` values, each nine as wide as the one before. Bounds: ``count >= 1``."""
    end = max(1.0, math.log10(count))
    return Scale(
        lambda share: min(1.0, -math.log10(1 - share) / end) if share < 1 else 1.0,
        [(one, f"{one * 100:.6g}%") for one in NINES if -math.log10(1 - one) <= end + 1e-9],
    )


def _written(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:,.6g}M"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}" if math.isfinite(value) else NOTHING
