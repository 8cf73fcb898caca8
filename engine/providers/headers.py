"""How long a server asks to be left alone, from its headers and from what its error says. Pure functions.

Rules of this file:
1. Every value is a stranger's: negative, not finite, past, absurd or meaningless ones give None, large ones are cut
   at WAIT_S_MAX. Nothing here raises.
2. There is no clock. A point in time (HTTP-date, RFC 3339, seconds since 1970) is measured from the reply's own
   ``date`` header, which also cancels the difference between the two clocks; without one it is ignored.
3. Zero is no wait. A refusal that says "at once" would otherwise be repeated in a tight loop; without a wait the
   retry policy's own back-off counts.

Formats seen: OpenAI's guide to rate limits (Go durations such as ``6m0s``), Azure's quota documentation
(``retry-after-ms``, whole seconds), Anthropic's documentation (RFC 3339 reset times, ``retry-after`` in seconds),
Together's documentation (``x-ratelimit-reset``), RFC 9110 (``Retry-After`` as seconds or HTTP-date).
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

WAIT_S_MAX = 120.0
VALUE_CHARS_MAX = 64  # a header value longer than this is no time
MOMENT_S_MIN = (
    10**9
)  # a reset of this many "seconds" is a point in time (seconds since 1970), as GitHub writes it

_NUMBER = re.compile(r"[0-9]{1,20}(?:\.[0-9]{0,20})?")
_PART = r"[0-9]{1,12}(?:\.[0-9]{1,12})?(?:h|ms|us|µs|ns|m|s)"
_DURATION = re.compile(rf"(?:{_PART}){{1,6}}")
_DURATION_PART = re.compile(r"([0-9.]+)(h|ms|us|µs|ns|m|s)")
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{8,20}(?:[Zz]|[+-][0-9]{2}:[0-9]{2})")
# "Please try again in 644ms", "try again in 6m0s", "Please retry in 38.2s", "Please retry after 33 seconds".
_HINT = re.compile(
    rf"(?:try again|retry)\s{{1,3}}(?:in|after)\s{{1,3}}(?:((?:{_PART}){{1,6}})(?![a-z0-9])"
    r"|([0-9]{1,12}(?:\.[0-9]{1,12})?)\s{0,3}(milliseconds?|seconds?|secs?|minutes?|mins?|hours?)\b)",
    re.IGNORECASE,
)
_WORD_S = {"mi": 60.0, "se": 1.0, "ho": 3600.0}


def _pairs() -> tuple[tuple[str, str], ...]:
    """(remaining, reset) header names of every bucket that a provider is known to report."""
    openai = ("requests", "tokens", "tokens_usage_based", "project-requests", "project-tokens")
    pairs = [(f"x-ratelimit-remaining-{unit}", f"x-ratelimit-reset-{unit}") for unit in openai]
    pairs.append(("x-ratelimit-remaining", "x-ratelimit-reset"))  # Together, GitHub and many others
    # Azure, in older replies, writes one hyphen more.
    pairs += [
        (f"x-rate-limit-remaining-{unit}", f"x-rate-limit-reset-{unit}") for unit in ("requests", "tokens")
    ]
    for front in ("anthropic-ratelimit", "anthropic-priority", "anthropic-fast"):
        pairs += [
            (f"{front}-{unit}-remaining", f"{front}-{unit}-reset")
            for unit in ("requests", "tokens", "input-tokens", "output-tokens")
        ]
    return tuple(pairs)


RESET_HEADERS = _pairs()


def wait_of(headers: Mapping[str, str], *, hint_s: float | None = None, resets: bool = True) -> float | None:
    """Seconds to wait before the next attempt, over 0 and at most WAIT_S_MAX; None where the reply names no wait.

    In order: ``retry-after-ms``, ``retry-after``, ``hint_s`` (what the error body says), and with ``resets`` the
    latest reset among the buckets that have nothing left. Such a reset is when the bucket is *full* again, hence
    the last resort. Header names in lower case.
    """
    millis = _number(headers.get("retry-after-ms", ""))
    if millis is not None and (wait := _bounded(millis / 1000.0)) is not None:
        return wait
    said = headers.get("retry-after", "")
    if said and (wait := _bounded(_period(said, headers))) is not None:
        return wait
    if (wait := _bounded(hint_s)) is not None:
        return wait
    return _latest_reset(headers) if resets else None


def hint_in(text: str) -> float | None:
    """Seconds that an error message asks to wait ("Please try again in 6m0s"), not capped; None without such words."""
    found = _HINT.search(text)
    if found is None:
        return None
    duration, number, word = found.groups()
    if duration is not None:
        return duration_s(duration.lower())
    unit = 1e-3 if word.lower().startswith("mil") else _WORD_S[word[:2].lower()]
    return float(number) * unit


def duration_s(text: str) -> float | None:
    """Seconds of a Go duration (``12ms``, ``1m30.5s``, ``1h2m3s``; also ``38s`` of Google's RetryInfo), else None."""
    if len(text) > VALUE_CHARS_MAX or _DURATION.fullmatch(text) is None:
        return None
    return sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(text))


def _latest_reset(headers: Mapping[str, str]) -> float | None:
    waits = []
    for remaining, reset in RESET_HEADERS:
        said = headers.get(reset)
        # A bucket that does not say what is left counts: this is asked of refusals only.
        if said is not None and _number(headers.get(remaining, "0")) == 0.0:
            wait = _bounded(_period(said, headers))
            if wait is not None:
                waits.append(wait)
    return max(waits, default=None)


def _period(text: str, headers: Mapping[str, str]) -> float | None:
    """Seconds until what ``text`` names: a number, a Go duration, or a point in time."""
    text = text.strip()
    if not text or len(text) > VALUE_CHARS_MAX:
        return None
    number = _number(text)
    if number is not None:
        if number < MOMENT_S_MIN:
            return number
        moment: float | None = number
    else:
        duration = duration_s(text.lower())
        if duration is not None:
            return duration
        moment = _moment(text)
    now = _moment(headers.get("date", "").strip())
    return None if moment is None or now is None else moment - now


def _moment(text: str) -> float | None:
    """Seconds since 1970 of an RFC 3339 time or an HTTP-date, else None."""
    if not text or len(text) > VALUE_CHARS_MAX:
        return None
    try:
        is_rfc3339 = _RFC3339.fullmatch(text) is not None
        found = datetime.fromisoformat(text.upper()) if is_rfc3339 else parsedate_to_datetime(text)
        if found.tzinfo is None:  # an HTTP-date is UTC even where it does not say so
            found = found.replace(tzinfo=UTC)
        return found.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):  # whatever a date parser makes of noise
        return None


def _number(text: str) -> float | None:
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def _bounded(wait_s: float | None) -> float | None:
    if wait_s is None or not wait_s > 0.0:  # also refuses nan
        return None
    return min(wait_s, WAIT_S_MAX)
