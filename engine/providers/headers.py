"""How long a server asks to wait, in every dialect: pure functions over headers and error text.

Rules of this file:
1. Order: ``retry-after-ms``, ``Retry-After``, hints in the error body, reset headers of a bucket that is empty.
2. Each is capped at WAIT_MAX_S; what is negative, not finite, in the past or no time at all is no wait.
3. No clock: an HTTP-date or RFC 3339 time is compared with the reply's own Date header, or not used.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

WAIT_MAX_S = 120.0
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|ms|us|µs|ns|m|s))+")
_HINT = re.compile(
    r"(?:try again in|retry after|retry in)\s+((?:\d{1,9}(?:\.\d{1,9})?\s*(?:ms|h|m|s)(?:econds?|inutes?)?)+|\d{1,9})",
    re.IGNORECASE,
)
_RESETS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
)


def capped(seconds: float | None) -> float | None:
    """A usable wait in seconds, at most WAIT_MAX_S; None for what is none."""
    if seconds is None or math.isnan(seconds) or seconds <= 0.0:
        return None
    return min(seconds, WAIT_MAX_S)


def number(text: str) -> float | None:
    """A finite or infinite number, None for anything else (nan too). Bounds: 32 characters."""
    try:
        value = float(text) if len(text) <= 32 else math.nan
    except ValueError:
        return None
    return None if math.isnan(value) else value


def go_duration(text: str) -> float | None:
    """``6m0s``, ``12ms``, ``1h2m3s`` in seconds (OpenAI's and Groq's reset headers)."""
    text = text.strip()
    if len(text) > 40 or _DURATION.fullmatch(text) is None:
        return None
    return sum(float(value) * _UNITS_S[unit] for value, unit in _PART.findall(text))


def moment(text: str, now: datetime | None) -> float | None:
    """Seconds from ``now`` to an HTTP-date or RFC 3339 time; None without a ``now``."""
    if now is None or len(text) > 64:
        return None
    try:
        when = datetime.fromisoformat(text) if text[:4].isdigit() else parsedate_to_datetime(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return (when - now).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def reply_time(headers: Mapping[str, str]) -> datetime | None:
    """The reply's own Date header."""
    try:
        when = parsedate_to_datetime(headers.get("date", "")[:64])
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def hint_in(message: str) -> float | None:
    """``… Please try again in 644ms.`` and the like, in seconds (OpenAI's and Azure's messages)."""
    found = _HINT.search(message[:4000])
    if found is None:
        return None
    said = re.sub(r"econds?|inutes?|\s", "", found.group(1).lower())
    return number(said) if said.isdigit() else go_duration(said)


def server_wait_s(
    headers: Mapping[str, str], message: str = "", body_hint_s: float | None = None
) -> float | None:
    """How long the server asks to wait, in seconds, or None."""
    now = reply_time(headers)
    milliseconds = number(headers.get("retry-after-ms", ""))
    if milliseconds is not None and (wait := capped(milliseconds / 1000.0)) is not None:
        return wait
    after = headers.get("retry-after", "").strip()
    if after:
        seconds = number(after)
        wait = capped(seconds if seconds is not None else moment(after, now))
        if wait is not None:
            return wait
    for hint in (body_hint_s, hint_in(message)):
        if (wait := capped(hint)) is not None:
            return wait
    waits: list[float] = []
    for remaining, reset in _RESETS:
        if headers.get(remaining, "").strip() != "0":
            continue
        text = headers.get(reset, "").strip()
        # Azure sends bare integers; -1 and 0 mean that it does not know.
        seconds = number(text)
        if seconds is None:
            seconds = go_duration(text)
        if seconds is None:
            seconds = moment(text, now)
        if (wait := capped(seconds)) is not None:
            waits.append(wait)
    return max(waits, default=None)
