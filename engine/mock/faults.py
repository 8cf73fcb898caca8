"""How the mock provider misbehaves: which fault strikes a request, and what it does to the reply.

Rules of this file:
1. Pure but for the random generator it is given: time and counts are arguments.
2. Every fault strikes the reply that would have been sent, so that its bytes are right up to the fault.
"""

import gzip
import math
import random
from collections.abc import Iterator
from functools import lru_cache
from itertools import repeat

from engine.mock.refusals import error_reply, retry_after_line
from engine.mock.replies import HTML, JSON, End, Reply, chunk, head, whole
from engine.mock.settings import FaultRule
from engine.mock.streams import ERROR_PIECE

_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_TIMING = frozenset(("freeze", "brownout"))
FINISHES = {"refusal": "refusal", "content_filter": "filter"}  # fault -> how the answer ends
DECLINED = "I cannot help with that."
_USAGES = (b"-1000000", b"1000000000000000000", b'"many"', b"1e400", b"null", b"1.5")


class Faults:
    """All rules of a server."""

    def __init__(self, rules: tuple[FaultRule, ...], rng: random.Random) -> None:
        self._rules = rules
        self._rng = rng

    def __bool__(self) -> bool:
        return bool(self._rules)

    def pick(self, number: int, since_s: float, attempt: int, body: bytes) -> FaultRule | None:
        """The first rule that strikes request ``number``, the row's ``attempt``-th, ``since_s`` after the first."""
        for rule in self._rules:
            if rule.name in _TIMING:
                continue  # it strikes the clock, not a request
            if rule.nth and number not in rule.nth:
                continue
            if since_s < rule.start_s or (rule.end_s is not None and since_s >= rule.end_s):
                continue
            if rule.attempts and attempt > rule.attempts:
                continue
            if rule.match and rule.match.encode() not in body:
                continue
            if rule.probability < 1.0 and self._rng.random() >= rule.probability:
                continue
            return rule
        return None

    def frozen_until(self, since_s: float) -> float | None:
        """While a freeze lasts: when it ends, on the same clock; else None."""
        for rule in self._rules:
            if (
                rule.name == "freeze"
                and rule.start_s <= since_s
                and rule.end_s is not None
                and since_s < rule.end_s
            ):
                return rule.end_s
        return None

    def slowness(self, since_s: float) -> float:
        """What latencies are multiplied by."""
        for rule in self._rules:
            ends = float("inf") if rule.end_s is None else rule.end_s
            if rule.name == "brownout" and rule.start_s <= since_s < ends:
                return rule.factor
        return 1.0


def struck(rule: FaultRule, good: Reply, shape: str, draw: int, since_s: float = 0.0) -> Reply:
    """What is sent instead of ``good``. ``draw`` chooses where a fault takes turns."""
    name = rule.name
    shape = rule.shape or shape
    if name == "storm":
        # A provider says how long its limit stays shut, in whole seconds.
        left_s = 1.0 if rule.end_s is None else rule.end_s - since_s
        wait = rule.retry_after or str(max(1, math.ceil(left_s)))
        return error_reply(shape, 429, "", retry_after_line(wait))
    if name.isdigit():
        return error_reply(shape, int(name), "", retry_after_line(rule.retry_after))
    maker = _MAKERS.get(name)
    if maker is not None:
        reply = maker(rule, good, shape)
        if name in _NO_ANSWER:
            reply.full = False  # a 200 that answers nothing is not what a row was billed for
        return reply
    if name == "usage":
        return _with_usage(good, rule.value.encode() or _USAGES[draw % len(_USAGES)])
    return good  # refusal and content_filter: the model has declined already


def _split(good: Reply) -> tuple[bytes, bytes]:
    front, _, body = good.data.partition(b"\r\n\r\n")
    return front + b"\r\n\r\n", body


def _html502(rule: FaultRule, good: Reply, shape: str) -> Reply:
    return Reply(502, head(502, HTML, len(_PAGE)) + _PAGE)


def _reset(rule: FaultRule, good: Reply, shape: str) -> Reply:
    return Reply(0, b"", end=End.RESET)


def _reset_body(rule: FaultRule, good: Reply, shape: str) -> Reply:
    return Reply(good.status, good.data[: len(good.data) - max(1, len(_split(good)[1]) // 2)], end=End.RESET)


def _truncate(rule: FaultRule, good: Reply, shape: str) -> Reply:
    return Reply(good.status, good.data[: len(good.data) - max(1, len(_split(good)[1]) // 2)], end=End.CLOSE)


def _hang(rule: FaultRule, good: Reply, shape: str) -> Reply:
    return Reply(0, b"", end=End.HANG)


def _slow(rule: FaultRule, good: Reply, shape: str) -> Reply:
    front, body = _split(good)
    pieces = (body[at : at + 1] for at in range(len(body)))
    return Reply(good.status, front, rest=pieces, step_s=rule.wait_s, full=good.full)


def _malformed(rule: FaultRule, good: Reply, shape: str) -> Reply:
    return whole(200, JSON, b'{"choices": [{"message": {"content": "half')


def _empty(rule: FaultRule, good: Reply, shape: str) -> Reply:
    return whole(200, JSON, b"")


def _wrong200(rule: FaultRule, good: Reply, shape: str) -> Reply:
    return whole(200, HTML, b"<html><body>Welcome to the captive portal</body></html>")


def _array200(rule: FaultRule, good: Reply, shape: str) -> Reply:
    return whole(200, JSON, b"[1, 2, 3]")


def _redirect(rule: FaultRule, good: Reply, shape: str) -> Reply:
    return whole(307, JSON, b"", b"location: %b\r\n" % rule.url.encode("latin-1", "replace"))


def _huge(rule: FaultRule, good: Reply, shape: str) -> Reply:
    return Reply(200, head(200, JSON, rule.size), rest=_zeros(rule.size), step_s=0.0)


def _zeros(size: int) -> Iterator[bytes]:
    piece = b"0" * 65_536
    while size > 0:
        yield piece[:size]
        size -= len(piece)


def _endless(rule: FaultRule, good: Reply, shape: str) -> Reply:
    front = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    return Reply(200, front, rest=repeat(b"10000\r\n" + b"0" * 65_536 + b"\r\n"), step_s=0.001)


@lru_cache(maxsize=4)
def _bomb(size: int) -> bytes:
    return gzip.compress(b"0" * size, 9)


def _gzip_bomb(rule: FaultRule, good: Reply, shape: str) -> Reply:
    return whole(200, JSON, _bomb(rule.size), b"content-encoding: gzip\r\n")


def _insufficient_quota(rule: FaultRule, good: Reply, shape: str) -> Reply:
    says = "You exceeded your current quota, please check your plan and billing details."
    return error_reply(shape, 429, says, kind="insufficient_quota", code="insufficient_quota")


def _too_large(rule: FaultRule, good: Reply, shape: str) -> Reply:
    says = "Request too large for mock in organization org-mock on tokens per min (TPM): Limit 100, Requested 200."
    return error_reply(shape, 429, says, kind="tokens")


def _content_filter_400(rule: FaultRule, good: Reply, shape: str) -> Reply:
    body = (
        b'{"error":{"message":"The response was filtered","code":"content_filter","innererror":'
        b'{"code":"ResponsibleAIPolicyViolation"}}}'
    )
    return whole(400, JSON, body)


def _stale(rule: FaultRule, good: Reply, shape: str) -> Reply:
    return Reply(good.status, good.data, end=End.CLOSE, full=good.full)


def _extra_reply(rule: FaultRule, good: Reply, shape: str) -> Reply:
    return Reply(good.status, good.data + whole(200, JSON, b'{"smuggled":true}').data, full=good.full)


def _wrong_length(rule: FaultRule, good: Reply, shape: str) -> Reply:
    """The stated length is longer than the body, whose end never comes; or (``value=short``) shorter."""
    front, body = _split(good)
    stated = len(body) + (-5 if rule.value == "short" else 50)
    front = front.replace(b"content-length: %d" % len(body), b"content-length: %d" % max(0, stated))
    return Reply(good.status, front + body, end=End.KEEP if rule.value == "short" else End.CLOSE)


def _many_headers(rule: FaultRule, good: Reply, shape: str) -> Reply:
    front, _, body = good.data.partition(b"\r\n\r\n")
    lines = b"".join(b"\r\nx-h-%d: %d" % (n, n) for n in range(10_000))
    return Reply(good.status, front + lines + b"\r\n\r\n" + body, end=End.CLOSE)


def _with_usage(good: Reply, value: bytes) -> Reply:
    import re

    front, body = _split(good)
    if value == b"missing":
        body = re.sub(rb',"usage":\{.*\}(?=\}$)', b"", body)
    else:
        body = re.sub(rb'("(?:prompt|completion|total|input|output)_tokens":)\d+', rb"\g<1>" + value, body)
    front = re.sub(rb"content-length: \d+", b"content-length: %d" % len(body), front)
    return Reply(good.status, front + body, full=good.full)


def _sse_cut(rule: FaultRule, good: Reply, shape: str) -> Reply:
    rest = good.rest
    kept = [piece for _, piece in zip(range(3), rest, strict=False)] if rest is not None else []
    return Reply(good.status, good.data, rest=iter(kept), step_s=good.step_s, end=End.CLOSE)


def _sse_error(rule: FaultRule, good: Reply, shape: str) -> Reply:
    """A stream that breaks off with its provider's own error event. A reply in one piece stays as it is."""
    if good.rest is None:
        return good
    kept = [piece for _, piece in zip(range(3), good.rest, strict=False)]
    rest = iter([*kept, chunk(ERROR_PIECE[good.api]), chunk(b"")])
    return Reply(good.status, good.data, rest=rest, step_s=good.step_s)


_NO_ANSWER = frozenset(("malformed", "empty", "wrong200", "array200"))
_MAKERS = {
    "html502": _html502,
    "reset": _reset,
    "reset_body": _reset_body,
    "truncate": _truncate,
    "hang": _hang,
    "slow": _slow,
    "malformed": _malformed,
    "empty": _empty,
    "wrong200": _wrong200,
    "array200": _array200,
    "redirect": _redirect,
    "huge": _huge,
    "endless": _endless,
    "gzip_bomb": _gzip_bomb,
    "insufficient_quota": _insufficient_quota,
    "too_large": _too_large,
    "content_filter_400": _content_filter_400,
    "stale": _stale,
    "extra_reply": _extra_reply,
    "wrong_length": _wrong_length,
    "many_headers": _many_headers,
    "sse_cut": _sse_cut,
    "sse_error": _sse_error,
}
