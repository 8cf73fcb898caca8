"""How a request of a load test can fail: a closed set, each with what it means.

Rules of this file:
1. The first that fits counts. Every failure has exactly one of them; nothing is left as "other" that has a name.
2. Unlike a run's kinds (``errors.py``) these decide nothing: a load test never tries again.
"""

from enum import StrEnum

from engine.core.errors import ErrorKind


class LoadError(StrEnum):
    """The value is what stands in the results under ``errors``."""

    DNS = "dns"
    CONNECT_REFUSED = "connect_refused"
    CONNECT_TIMEOUT = "connect_timeout"
    TLS = "tls"
    RESET = "reset"
    TIMEOUT_FIRST_TOKEN = "timeout_first_token"  # noqa: S105 - of an answer; with no stream, no byte of a reply
    TIMEOUT_TOTAL = "timeout_total"
    HTTP_3XX = "http_3xx"
    HTTP_4XX = "http_4xx"
    HTTP_429 = "http_429"
    HTTP_5XX = "http_5xx"
    SSE_ERROR_EVENT = "sse_error_event"
    TRUNCATED_STREAM = "truncated_stream"
    BAD_JSON = "bad_json"
    BAD_REPLY = "bad_reply"  # JSON, where a stream was asked for
    EMPTY_RESPONSE = "empty_response"
    REFUSED = "refused"  # the model or a filter would not answer
    TOO_LARGE = "too_large"  # the reply was over the cap
    PROTOCOL = "protocol"  # the reply broke the rules of HTTP
    CANCELLED = "cancelled"  # the test ended first
    CLIENT_INTERNAL = "client_internal"  # the request could not be sent, and that is not the server's fault


# The reply did not end by itself, or not in time.
CUT_OFF = frozenset({LoadError.TIMEOUT_FIRST_TOKEN, LoadError.TIMEOUT_TOTAL, LoadError.TOO_LARGE})

_OF_KIND: dict[ErrorKind, LoadError] = {
    ErrorKind.DNS: LoadError.DNS,
    ErrorKind.CONNECT_REFUSED: LoadError.CONNECT_REFUSED,
    ErrorKind.TLS: LoadError.TLS,
    ErrorKind.CONNECTION_RESET: LoadError.RESET,
    ErrorKind.STALE_KEEPALIVE: LoadError.RESET,
    ErrorKind.PROTOCOL_ERROR: LoadError.PROTOCOL,
    ErrorKind.BODY_TOO_LARGE: LoadError.TOO_LARGE,
    ErrorKind.CONTENT_REFUSED: LoadError.REFUSED,
}


def error_of_status(status: int) -> LoadError | None:
    """What an HTTP status is; None for success."""
    if 200 <= status < 300:
        return None
    if status == 429:
        return LoadError.HTTP_429
    if status >= 500:
        return LoadError.HTTP_5XX
    return LoadError.HTTP_4XX if status >= 400 else LoadError.HTTP_3XX


def error_of(kind: ErrorKind, status: int, *, is_sent: bool, has_begun: bool) -> LoadError:
    """What a failure is. ``is_sent``: the request went out; ``has_begun``: content (or, unstreamed, a byte) had come."""
    if kind is ErrorKind.TIMEOUT and not status:
        if not is_sent:
            return LoadError.CONNECT_TIMEOUT
        return LoadError.TIMEOUT_TOTAL if has_begun else LoadError.TIMEOUT_FIRST_TOKEN
    if kind in _OF_KIND:
        return _OF_KIND[kind]
    by_status = error_of_status(status) if status else LoadError.CLIENT_INTERNAL
    return by_status or LoadError.BAD_JSON  # a success that holds no answer
