"""How the figures of a load test read, on a terminal and on a page.

Rules of this file:
1. What is not known is a dash. What is not zero never reads as zero, and what is not all never as 100 %.
2. No more digits than were measured: times have three significant ones, as their histograms do.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

NOTHING: Final = "–"
# The figures of requests, in the order of a report, and what they are called there.
TIMES: Final = {
    "latency": "latency",
    "response_time": "response time",
    "send_lag": "send lag",
    "ttfb": "first byte",
    "ttft": "TTFT",
    "ttft_sched": "TTFT from schedule",
    "ttfo": "first answer token",
    "tpot": "TPOT",
    "chunk_gap": "gap of chunks",
    "stall": "longest stall",
    "tail": "tail of stream",
}
MEANINGS: Final = {
    "latency": "from sending to the end of the reply",
    "response_time": "from the moment the schedule asked for it: waiting in the client is in it",
    "send_lag": "how late requests were sent; failures are in it",
    "ttfb": "from sending to the first byte",
    "ttft": "from sending to the first content or reasoning; a role alone is none",
    "ttft_sched": "the same from the moment the schedule asked for it",
    "ttfo": "from sending to the first content that is no reasoning",
    "tpot": "(last content - first content) / (output tokens - 1)",
    "chunk_gap": "between two pieces of content of one answer",
    "stall": "the longest such gap of each answer",
    "tail": "from the last content to the end of the reply, which is in no other time",
}
# Kinds of errors whose names do not say all of it.
KINDS: Final = {
    "bad_reply": "the server answered with JSON instead of a stream",
    "bad_json": "a reply of 200 that holds no answer",
    "truncated_stream": "the stream ended before it said so",
    "empty_response": "an answer without content",
    "too_large": "a reply over the cap, which was cut off",
    "cancelled": "the test ended first",
    "client_internal": "of this client, not of the endpoint",
}
STATISTICS: Final = {
    "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p99_9": "p99.9", "max": "max", "mean": "mean",
}  # fmt: skip


def number(value: float | None) -> str:
    """A count: ``12,345``."""
    return NOTHING if value is None else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """Per second: ``0.025``, ``2.50``, ``99.7``, ``1,234.5``."""
    if value is None:
        return NOTHING
    if value >= 10 or value == 0:
        return f"{value:,.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def with_unit(value: float | None) -> str:
    """Milliseconds and their unit; a dash alone where there are none."""
    return NOTHING if value is None else f"{ms(value)} ms"


def ms(value: float | None) -> str:
    """Milliseconds, without the unit: ``0.123``, ``1.23``, ``12.3``, ``123``, ``1,234``."""
    if value is None:
        return NOTHING
    # The bounds are where rounding carries: 9.996 is 10.0.
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2 if value >= 0.9995 else 3
    return f"{value:,.{digits}f}" if value else "0"


def share(value: float | None) -> str:
    """``99.31%``; ``>99.99%`` and ``<0.01%`` where rounding would say all or nothing."""
    if value is None:
        return NOTHING
    if 0.99995 <= value < 1:
        return ">99.99%"
    if 0 < value < 0.00005:
        return "<0.01%"
    text = f"{value:.2%}"
    return text.removesuffix(".00%") + "%" if text.endswith(".00%") else text


def between(
    ends: tuple[float | None, float | None] | list[float | None], shown: Callable[[float], str] = ms
) -> str:
    """An interval as two ends that ``shown`` words; where one is open, only the other."""
    low, high = ends
    if low is None:
        return NOTHING if high is None else f"at most {shown(high)}"
    return f"at least {shown(low)}" if high is None else f"{shown(low)} – {shown(high)}"


def tried(probe: Mapping[str, Any]) -> str:
    """What a try of a search came to: ``held``, ``failed``, or ``repeated`` for one that decided nothing."""
    if not probe.get("counted", True):
        return "repeated"
    return "held" if probe["passed"] else "failed"


def reached(threshold: Mapping[str, Any]) -> str:
    """The figure that a threshold was held against, with its unit."""
    if threshold["value"] is None:
        return "nothing was measured"
    return str(threshold["says"]).rpartition(" at ")[2]


def moment(iso: str) -> str:
    """``2026-03-01 12:00:00 UTC`` of an ISO 8601 time in UTC."""
    return f"{iso[:10]} {iso[11:19]} UTC"


def seconds(value: float) -> str:
    """``0.4 s``, ``30 s``, ``12 min 30 s``, ``2 h 05 min``."""
    if value < 120:
        return f"{value:,.1f} s".replace(".0 s", " s")
    minutes, rest = divmod(round(value), 60)
    if minutes < 120:
        return f"{minutes} min {rest:02} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"
