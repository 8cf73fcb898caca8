"""What an error reply means: every server's shape of it, to one ErrorKind and one line of text.

Rules of this file:
1. Never raises, whatever the bytes. A table of words decides, so that a new wording is one line.
2. Shapes (sources: the vendors' documentation, and replies shown in public issue threads): an object under
   ``error``; a string there (vLLM's 401, Ollama); the same inside a list (Gemini); flat (Mistral, SGLang, older
   vLLM); HTML or nothing at all (proxies).
"""

import re
from typing import Any

import msgspec

from engine.core.errors import ErrorKind, kind_of_status
from engine.core.model import Failure, Reply
from engine.providers.headers import go_duration, server_wait_s

MESSAGE_CHARS_MAX = 400
_BODY_BYTES_MAX = 65_536  # of an error body are looked at

_CODES: dict[str, ErrorKind] = {
    "insufficient_quota": ErrorKind.QUOTA_EXHAUSTED,
    "credit_balance_exhausted": ErrorKind.QUOTA_EXHAUSTED,
    "organization_spend_limit_exceeded": ErrorKind.QUOTA_EXHAUSTED,
    "project_spend_limit_exceeded": ErrorKind.QUOTA_EXHAUSTED,
    "organization_usage_limit_exceeded": ErrorKind.QUOTA_EXHAUSTED,
    "enforced_spend_limit_reached": ErrorKind.QUOTA_EXHAUSTED,
    "billing_error": ErrorKind.QUOTA_EXHAUSTED,
    "billing_hard_limit_reached": ErrorKind.QUOTA_EXHAUSTED,
    "context_length_exceeded": ErrorKind.REQUEST_TOO_LARGE,
    "request_too_large": ErrorKind.REQUEST_TOO_LARGE,
    "content_filter": ErrorKind.CONTENT_REFUSED,
    "content_policy_violation": ErrorKind.CONTENT_REFUSED,
    "responsibleaipolicyviolation": ErrorKind.CONTENT_REFUSED,
    "model_not_found": ErrorKind.NOT_FOUND,
    "deploymentnotfound": ErrorKind.NOT_FOUND,
    "not_found_error": ErrorKind.NOT_FOUND,
    "invalid_api_key": ErrorKind.UNAUTHORISED,
    "authentication_error": ErrorKind.UNAUTHORISED,
    "permission_error": ErrorKind.UNAUTHORISED,
    "rate_limit_exceeded": ErrorKind.RATE_LIMITED,
    "rate_limit_error": ErrorKind.RATE_LIMITED,
    "rate_limited": ErrorKind.RATE_LIMITED,
    "slow_down": ErrorKind.RATE_LIMITED,
    "overloaded_error": ErrorKind.OVERLOADED,
    "server_is_overloaded": ErrorKind.OVERLOADED,
    "server_error": ErrorKind.SERVER_ERROR,
    "api_error": ErrorKind.SERVER_ERROR,
    "timeout_error": ErrorKind.TIMEOUT,
}
# Words in the message, for a status (0: any). The first line that fits decides before any code does.
_WORDS: tuple[tuple[int, str, ErrorKind], ...] = (
    (429, "extra usage is required for long context", ErrorKind.REQUEST_TOO_LARGE),
    (429, "exceeded your current quota, please check your plan", ErrorKind.QUOTA_EXHAUSTED),
    (429, "spend limit", ErrorKind.QUOTA_EXHAUSTED),
    (429, "per day", ErrorKind.QUOTA_EXHAUSTED),
    (400, "credit balance is too low", ErrorKind.QUOTA_EXHAUSTED),
    (400, "maximum context length", ErrorKind.REQUEST_TOO_LARGE),
    (400, "prompt is too long", ErrorKind.REQUEST_TOO_LARGE),
    (400, "content management policy", ErrorKind.CONTENT_REFUSED),
    (403, "context length", ErrorKind.REQUEST_TOO_LARGE),
)
_TOO_LARGE = re.compile(
    r"request too large.{0,400}?limit:? (\d{1,12}),? requested:? (\d{1,12})", re.IGNORECASE | re.DOTALL
)
_PER_DAY = re.compile(rb"per_?day", re.IGNORECASE)
_TAGS = re.compile(
    r"<(?:script|style).{0,20000}?</(?:script|style)>|<[^<>]{0,2000}>", re.IGNORECASE | re.DOTALL
)
_decode = msgspec.json.Decoder().decode


def failure_of(reply: Reply) -> Failure:
    """The failure that a reply of status 300 and above, or one with an ``error`` in it, stands for."""
    body = reply.body[:_BODY_BYTES_MAX] if len(reply.body) > _BODY_BYTES_MAX else reply.body
    error = error_in(body)
    message, codes = _words_of(error) if error is not None else (_plain(body), [])
    kind = _kind(reply.status, message, codes, body)
    if reply.headers.get("x-should-retry", "") == "false" and kind is ErrorKind.RATE_LIMITED:
        kind = ErrorKind.QUOTA_EXHAUSTED
    hint = _retry_info(error)
    said = one_line(message) or "no explanation given"
    return Failure(
        kind,
        f"{reply.status}: {said}" if reply.status >= 300 else said,
        wait_s=server_wait_s(reply.headers, message, hint),
        status=reply.status,
    )


def error_in(body: bytes) -> Any:
    """The error object (or string) of a body, out of whatever wraps it; None where there is none."""
    try:
        value = _decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    if isinstance(value, list):
        value = next((item for item in value if isinstance(item, dict)), None)
    if not isinstance(value, dict):
        return value if isinstance(value, str) else None
    inner = value.get("error")
    if isinstance(inner, (dict, str)) and inner:
        return inner
    return value if {"message", "detail", "object"} & value.keys() else None


def _words_of(error: Any) -> tuple[str, list[str]]:
    """The message and all codes of an error, lower case."""
    if isinstance(error, str):
        return error, []
    message = error.get("message", error.get("detail", ""))
    codes = [error.get(name) for name in ("code", "type", "status", "error_type")]
    inner = error.get("innererror")
    if isinstance(inner, dict):
        codes.append(inner.get("code"))
    text = message if isinstance(message, str) else msgspec.json.encode(message).decode(errors="replace")
    return text, [str(code).lower() for code in codes if isinstance(code, (str, int))]


def _kind(status: int, message: str, codes: list[str], body: bytes) -> ErrorKind:
    too_large = _TOO_LARGE.search(message[:4000])
    if too_large is not None and int(too_large.group(2)) > int(too_large.group(1)):
        return ErrorKind.REQUEST_TOO_LARGE
    lowered = message[:4000].lower()
    for at, words, kind in _WORDS:
        if at in (0, status) and words in lowered:
            return kind
    if status == 429 and "resource_exhausted" in codes and _PER_DAY.search(body):
        return ErrorKind.QUOTA_EXHAUSTED
    known = [_CODES[code] for code in codes if code in _CODES]
    if status in (401, 402, 404, 413):
        return kind_of_status(status)
    if status >= 500 or status in (408, 409, 498, 499):
        return kind_of_status(status)
    if known:
        return known[0]
    return kind_of_status(status) if status >= 300 else ErrorKind.SERVER_ERROR


def _retry_info(error: Any) -> float | None:
    """Google's RetryInfo in ``details``, in seconds."""
    details = error.get("details") if isinstance(error, dict) else None
    if not isinstance(details, list):
        return None
    for detail in details[:20]:
        if isinstance(detail, dict) and isinstance(detail.get("retryDelay"), str):
            return go_duration(detail["retryDelay"])
    return None


def _plain(body: bytes) -> str:
    """The words of an HTML or plain-text error page."""
    text = body[:20_000].decode("utf-8", "replace")
    return _TAGS.sub(" ", text) if "<" in text else text


def one_line(text: str) -> str:
    """``text`` on one line, printable, cut to MESSAGE_CHARS_MAX."""
    head = text[: 4 * MESSAGE_CHARS_MAX]
    if not head.isprintable():
        head = "".join(c if c.isprintable() else " " for c in head)
    return " ".join(head.split())[:MESSAGE_CHARS_MAX]
