"""The limits that reply headers state, and what is left of them: one reader for every dialect seen. Pure functions.

Rules of this file:
1. Every value is a stranger's: what is no whole number of sensible size says nothing. Nothing here raises.
2. A limit is believed as one per minute only where the provider counts by the minute: Groq's requests are per day,
   Together's everything is per second, and a plain ``x-ratelimit-limit`` of others could be anything.
3. What is left is told as what is used, at least: rounding and doubt count for us.

Sources: OpenAI's guide to rate limits; Azure OpenAI's quota documentation (``-1`` and 0 mean nothing there, and a
request limit may be one of a ten-second window); Anthropic's rate-limit documentation (input and output apart, tokens left
rounded to thousands); Groq's and Together's documentation; Mistral's replies as seen.
"""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from engine.core.quota import Rates
from engine.providers.headers import duration_s

LIMIT_MAX = 10**12
DAY_S = 86_400.0
_REQUESTS, _TOKENS, _INPUT, _OUTPUT = range(4)


class Seen(NamedTuple):
    """What one reply's headers say. ``used``: of each limit, at least; 0 is nothing, or unknown."""

    limits: Rates
    used: Rates


class _Field(NamedTuple):
    """One limit of a dialect: which it is, its headers, how many of its periods a minute has, how far rounding goes."""

    kind: int
    limit: str
    remaining: str
    reset: str = ""
    times: int = 1
    rounding: int = 0


def _openai() -> list[_Field]:
    return [
        _Field(
            kind, f"x-ratelimit-limit-{unit}", f"x-ratelimit-remaining-{unit}", f"x-ratelimit-reset-{unit}"
        )
        for kind, unit in ((_REQUESTS, "requests"), (_TOKENS, "tokens"))
    ]


def _anthropic() -> list[_Field]:
    units = ((_REQUESTS, "requests", 0), (_INPUT, "input-tokens", 500), (_OUTPUT, "output-tokens", 500))
    return [
        _Field(kind, f"{front}-limit", f"{front}-remaining", f"{front}-reset", rounding=rounding)
        for kind, unit, rounding in units
        for front in (f"anthropic-ratelimit-{unit}",)
    ]


def _mistral() -> list[_Field]:
    return [
        _Field(_REQUESTS, "x-ratelimit-limit-req-minute", "x-ratelimit-remaining-req-minute"),
        _Field(_TOKENS, "x-ratelimit-limit-tokens-minute", "x-ratelimit-remaining-tokens-minute"),
    ]


def _together() -> list[_Field]:
    # What is left of a second says nothing about a minute.
    return [
        _Field(_REQUESTS, "x-ratelimit-limit", "", times=60),
        _Field(_TOKENS, "x-tokenlimit-limit", "", times=60),
    ]


class LimitReader:
    """Reads the reply headers of one endpoint.

    ``declares_rpm``: whether the user gave a request limit. Azure's own is then left alone: it may be one of ten seconds.
    """

    def __init__(self, origin: str, *, provider: str = "", declares_rpm: bool = False) -> None:
        host = urlsplit(origin).hostname or ""
        fields = [*_openai(), *_anthropic(), *_mistral()]
        if host.endswith(("together.ai", "together.xyz")):
            fields = _together()
        elif host.endswith("groq.com") or (provider == "azure" and declares_rpm):
            fields = [field for field in fields if field.kind != _REQUESTS]
        self._fields = fields
        self._is_minutely = False  # whether a request limit is known not to be one of a day

    def read(self, headers: Mapping[str, str]) -> Seen | None:
        """What a reply's headers (names in lower case) say; None where they say nothing."""
        limits, used = [0, 0, 0, 0], [0, 0, 0, 0]
        for field in self._fields:
            limit = _count(headers.get(field.limit, ""))
            if not limit:
                continue
            if field.reset and field.kind == _REQUESTS and not self._is_minutely:
                daily = _is_daily(field, headers)
                self._is_minutely = daily is False
                if daily:
                    self._fields = [other for other in self._fields if other.kind != _REQUESTS]
                    continue
            limits[field.kind] = limit * field.times
            remaining = headers.get(field.remaining, "")
            if remaining.isdecimal():
                left = _count(remaining) + field.rounding
                used[field.kind] = max(0, limit - left)
        return Seen(Rates(*limits), Rates(*used)) if any(limits) else None


def _is_daily(field: _Field, headers: Mapping[str, str]) -> bool | None:
    """Whether a request limit is one of a day: its reset tells how fast what was used comes back. None: not yet.

    With so much used of a limit, all of it is back after used / limit of the period (OpenAI's and Groq's replies).
    """
    limit, left = _count(headers.get(field.limit, "")), _count(headers.get(field.remaining, ""))
    reset_s = duration_s(headers.get(field.reset, "").strip().lower())
    if reset_s is None or not 0 <= left < limit:
        return None
    return 0.5 * DAY_S <= reset_s * limit / (limit - left) <= 2 * DAY_S


def _count(text: str) -> int:
    """A whole number of a header, 0 for anything else."""
    text = text.strip()
    if not text.isdecimal() or len(text) > 15:
        return 0
    return min(int(text), LIMIT_MAX)
