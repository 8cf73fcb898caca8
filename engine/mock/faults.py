"""Misbehaviour on request: which rule strikes which request, and what it does to the reply.

Rules of this file:
1. Whether a rule strikes depends on the request's number, its time, its row and a seeded generator only.
2. Faults that stand for a refusal come before the quota and are not charged; those that stand for a
   breakdown come after it, as at a real provider, and after the latency.
"""

import math
import random
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import repeat

from engine.mock.quota import Refusal
from engine.mock.refusals import error_body, error_reply, quota_refused, retry_after_line
from engine.mock.replies import HTML, JSON, End, Reply, chunk, head, stream_head, whole
from engine.mock.settings import FaultRule

PAUSE_S = 0.01  # so that the first half of a body arrives before the connection is torn down
_PIECE = 1024 * 1024
_HTML_PAGE = b"<html><head><title>%b</title></head><body><center><h1>%b</h1></center></body></html>"
_COUNTS = re.compile(rb'("(?:prompt_tokens|completion_tokens|total_tokens|input_tokens|output_tokens|\w*eval_count)":)\d+')
_USAGE_TURNS = ("-1000000", "1000000000000000000", "NaN", '"many"', "missing", "1e400", "0.5", "null")
_LENGTHS = ("short", "long", "negative", "duplicate", "chunked")
TIMING = ("freeze", "brownout")
SAYING = {"refusal": "refusal", "content_filter": "filter"}  # what the model does, not the transport


class FaultPlan:
    """The rules of a server, with what they remember: when the first request came, attempts of each row."""

    def __init__(self, rules: Sequence[FaultRule], seed: int) -> None:
        self._rules = [rule for rule in rules if rule.name not in TIMING]
        self._timing = [rule for rule in rules if rule.name in TIMING]
        self._counts_attempts = any(rule.attempts for rule in self._rules)
        self._attempts: dict[int | None, int] = {}
        self._rng = random.Random(seed)
        self._origin_s: float | None = None
        self._number = 0

    def __bool__(self) -> bool:
        return bool(self._rules or self._timing)

    def struck_by(self, now: float, row: int | None, body: bytes) -> FaultRule | None:
        """The first rule that strikes this request. Must be asked once for each, in order of arrival."""
        if self._origin_s is None:
            self._origin_s = now
        self._number += 1
        if self._counts_attempts:
            self._attempts[row] = self._attempts.get(row, 0) + 1
        since_s = now - self._origin_s
        for rule in self._rules:
            if since_s < rule.start_s or (rule.end_s is not None and since_s >= rule.end_s):
                continue
            if rule.nth and self._number not in rule.nth:
                continue
            if rule.attempts and self._attempts[row] > rule.attempts:
                continue
            if rule.match and rule.match.encode() not in body:
                continue
            if rule.probability >= 1 or self._rng.random() < rule.probability:
                return rule
        return None

    def due_s(self, now: float, delay_s: float) -> float:
        """When a reply that is wanted ``delay_s`` from now really goes out."""
        origin_s = self._origin_s if self._origin_s is not None else now
        for rule in self._timing:
            end_s = math.inf if rule.end_s is None else origin_s + rule.end_s
            start_s = origin_s + rule.start_s
            if rule.name == "brownout" and start_s <= now < end_s:
                delay_s *= rule.factor
            elif rule.name == "freeze" and start_s <= now + delay_s < end_s:
                delay_s = min(end_s - now, 86_400.0)
        return now + delay_s


def refusing(rule: FaultRule, *, shape: str, style: str, model: str, levels: bytes) -> Reply | None:
    """The reply of a fault that stands for a refusal, or None for any other fault."""
    shape = rule.shape or shape
    wait = retry_after_line(rule.retry_after)
    if rule.name == "storm" or rule.name == "429":
        return error_reply(shape, 429, "", levels + (wait if rule.retry_after else b"retry-after: 1\r\n"))
    if rule.name == "insufficient_quota":
        if style == "anthropic":
            return error_reply(shape, 402, "Your credit balance is too low to access the API.")
        message = "You exceeded your current quota, please check your plan and billing details."
        return error_reply(shape, 429, message, wait, kind="insufficient_quota", code="insufficient_quota")
    if rule.name == "too_large":
        refusal = Refusal("tokens", math.inf, 30_000, 0, 60_000)
        return quota_refused(shape, style, refusal, model, levels, with_ms=False)
    if rule.name == "content_filter_400":
        message = "The response was filtered due to the prompt triggering the content management policy."
        return error_reply(shape, 400, message, code="content_filter")
    if rule.name == "redirect":
        return Reply(307, head(307, JSON, 0, b"location: %b\r\n" % rule.url.encode("latin-1", "replace")))
    if rule.name.isdigit() and int(rule.name) < 500:
        return error_reply(shape, int(rule.name), "", wait)
    return None


def breaking(rule: FaultRule, shape: str) -> Reply | None:
    """The reply of a fault that comes instead of an answer, or None for one that spoils the answer."""
    if rule.name.isdigit():
        return error_reply(rule.shape or shape, int(rule.name), "", retry_after_line(rule.retry_after))
    maker = _INSTEAD.get(rule.name)
    return maker(rule) if maker else None


def spoiled(rule: FaultRule, good: Reply, turn: int) -> Reply:
    """A good reply in one piece, spoiled as the rule says; ``turn`` chooses among variants."""
    front, _, body = good.data.partition(b"\r\n\r\n")
    return _SPOILERS[rule.name](rule, good, front + b"\r\n\r\n", body, turn)


def cut_stream(rule: FaultRule, pieces: list[bytes], error_piece: bytes) -> list[bytes]:
    """The first half of a stream: ended in mid-event, or by the API's own error event."""
    half = pieces[: max(1, len(pieces) // 2)]
    if rule.name == "sse_error":
        return [*half, error_piece]
    return [*half[:-1], half[-1][: len(half[-1]) // 2]]


def _reset(rule: FaultRule) -> Reply:
    return Reply(0, b"", end=End.RESET)


def _hang(rule: FaultRule) -> Reply:
    return Reply(0, b"", end=End.HANG)


def _page(status: int, title: bytes) -> Reply:
    reply = whole(status, HTML, _HTML_PAGE % (title, title))
    reply.full = False
    return reply


def _huge(rule: FaultRule) -> Reply:
    def pieces() -> Iterator[bytes]:
        for start in range(0, rule.size, _PIECE):
            yield b" " * min(_PIECE, rule.size - start)

    return Reply(200, head(200, JSON, rule.size), pieces())


def _endless(rule: FaultRule) -> Reply:
    return Reply(200, stream_head(JSON), repeat(chunk(b" " * 65_536)))


def _gzip_bomb(rule: FaultRule) -> Reply:
    packed = _packed_spaces(rule.size)
    return Reply(200, head(200, JSON, len(packed), b"content-encoding: gzip\r\n") + packed)


@lru_cache(maxsize=4)
def _packed_spaces(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)  # 31: the gzip container
    packed = [packer.compress(b" " * min(_PIECE, size - start)) for start in range(0, size, _PIECE)]
    return b"".join([*packed, packer.flush()])


def _many_headers(rule: FaultRule) -> Reply:
    extra = b"".join(b"x-filler-%d: %d\r\n" % (number, number) for number in range(10_000))
    return Reply(200, head(200, JSON, 2, extra) + b"{}")


def _bare_200(body: bytes) -> Reply:
    return Reply(200, head(200, JSON, len(body)) + body)


_INSTEAD: dict[str, Callable[[FaultRule], Reply]] = {
    "html502": lambda rule: _page(502, b"502 Bad Gateway"),
    "wrong200": lambda rule: _page(200, b"Please sign in"),
    "array200": lambda rule: _bare_200(b"[1,2,3]"),
    "empty": lambda rule: _bare_200(b""),
    "reset": _reset,
    "hang": _hang,
    "huge": _huge,
    "endless": _endless,
    "gzip_bomb": _gzip_bomb,
    "many_headers": _many_headers,
}

_Spoiler = Callable[[FaultRule, Reply, bytes, bytes, int], Reply]


def _reset_body(rule: FaultRule, good: Reply, front: bytes, body: bytes, turn: int) -> Reply:
    return Reply(200, front + body[: len(body) // 2], iter((b"",)), PAUSE_S, End.RESET)


def _truncate(rule: FaultRule, good: Reply, front: bytes, body: bytes, turn: int) -> Reply:
    return Reply(200, front + body[: len(body) // 2], end=End.CLOSE)


def _slow(rule: FaultRule, good: Reply, front: bytes, body: bytes, turn: int) -> Reply:
    good.data, good.rest, good.step_s = front, (body[at : at + 1] for at in range(len(body))), rule.wait_s
    return good


def _malformed(rule: FaultRule, good: Reply, front: bytes, body: bytes, turn: int) -> Reply:
    return _bare_200(body[: len(body) // 2])


def _usage(rule: FaultRule, good: Reply, front: bytes, body: bytes, turn: int) -> Reply:
    value = rule.value or _USAGE_TURNS[turn % len(_USAGE_TURNS)]
    if value == "missing":
        body = _COUNTS.sub(rb'"unstated":0', body.replace(b'"usage":', b'"unused":'))
    else:
        body = _COUNTS.sub(lambda found: found.group(1) + value.encode(), body)
    return Reply(200, head(200, JSON, len(body)) + body, full=True, tokens_out=good.tokens_out)


def _stale(rule: FaultRule, good: Reply, front: bytes, body: bytes, turn: int) -> Reply:
    good.end = End.CLOSE  # without saying so: a client that keeps the connection finds it dead
    return good


def _extra_reply(rule: FaultRule, good: Reply, front: bytes, body: bytes, turn: int) -> Reply:
    good.data += front + body.replace(b"mock-", b"oops-")  # of equal length
    return good


def _wrong_length(rule: FaultRule, good: Reply, front: bytes, body: bytes, turn: int) -> Reply:
    variant = rule.value or _LENGTHS[turn % len(_LENGTHS)]
    right = b"content-length: %d\r\n" % len(body)
    wrong = {
        "short": b"content-length: %d\r\n" % (len(body) // 2),
        "long": b"content-length: %d\r\n" % (len(body) * 2 + 1),
        "negative": b"content-length: -%d\r\n" % (len(body) + 1),
        "duplicate": right + b"content-length: %d\r\n" % (len(body) // 2),
        "chunked": right + b"transfer-encoding: chunked\r\n",
    }.get(variant, right)
    return Reply(200, front.replace(right, wrong) + body, end=End.CLOSE if variant == "long" else End.KEEP)


_SPOILERS: dict[str, _Spoiler] = {
    "reset_body": _reset_body,
    "truncate": _truncate,
    "slow": _slow,
    "malformed": _malformed,
    "usage": _usage,
    "stale": _stale,
    "extra_reply": _extra_reply,
    "wrong_length": _wrong_length,
    "sse_cut": _malformed,  # asked of a request without a stream
    "sse_error": lambda rule, good, front, body, turn: _bare_200(
        error_body("openai", 500, "The server had an error")
    ),
}
