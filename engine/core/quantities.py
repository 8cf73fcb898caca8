"""Durations, rates and shares as people write them: ``30s``, ``1.5h``, ``600/m``, ``1%``.

Rules of this file:
1. Decimal text is turned into the nearest float once; nothing is multiplied up in floating point.
2. Whatever is not understood is refused with a sentence that says what is allowed and gives an example.
"""

import re
from fractions import Fraction

from engine.core.errors import UsageError

_NUMBER = r"(\d{1,15}(?:\.\d{1,15})?|\.\d{1,15})"
_QUANTITY = re.compile(rf"\s*{_NUMBER}\s*([a-zµ%/]*)\s*", re.ASCII | re.IGNORECASE)
SECONDS = {
    "us": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "min": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86400),
}
RATES = {"": Fraction(1), "/s": Fraction(1), "/m": Fraction(60), "/min": Fraction(60), "/h": Fraction(3600)}
RATE_PER_S_MAX = 10_000_000.0
DURATION_S_MAX = 366 * 86400.0


def split(text: str) -> tuple[Fraction, str] | None:
    """A number as it is written, exactly, and its unit in lower case; None when the text is not like that."""
    found = _QUANTITY.fullmatch(text.replace("µ", "u").replace("μ", "u"))
    return None if found is None else (Fraction(found[1]), found[2].lower())


def duration_s(text: str, what: str = "The duration") -> float:
    """Seconds of ``30s``, ``5m``, ``1.5h``, ``250ms``; a bare number is seconds. Bounds: above 0, to 366 days.

    Raises UsageError, whose sentence begins with ``what``.
    """
    parts = split(text)
    factor = None if parts is None else SECONDS.get(parts[1] or "s")
    if parts is None or factor is None:
        raise UsageError(f"{what} {text!r} is not like 30s, 5m or 1.5h (units: ms, s, m, h, d).")
    seconds = float(parts[0] * factor)
    if not 0 < seconds <= DURATION_S_MAX:
        raise UsageError(f"{what} {text!r} must be above 0 and at most 366 days.")
    return seconds


def rate_per_s(text: str, what: str = "The rate", *, zero: bool = False) -> float:
    """Requests per second of ``100``, ``2.5/s``, ``600/m``, ``1/h``. Bounds: above 0 (or from it, with ``zero``).

    Raises UsageError, whose sentence begins with ``what``.
    """
    parts = split(text)
    divisor = None if parts is None else RATES.get(parts[1])
    if parts is None or divisor is None:
        raise UsageError(f"{what} {text!r} is not like 100 (a second), 2.5/s, 600/m or 90/h.")
    rate = float(parts[0] / divisor)
    if rate > RATE_PER_S_MAX or not (rate > 0 or zero):
        above = "at least" if zero else "above"
        raise UsageError(f"{what} {text!r} must be {above} 0 and at most {RATE_PER_S_MAX:,.0f} a second.")
    return rate
