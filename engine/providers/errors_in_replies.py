"""What an error reply means: any server's body and status to a Failure of one kind.

Rules of this file:
1. Which words mean which kind is data: ``RULES``, the first line that fits counts; then the status speaks.
2. Every shape is read: ``{"error": {...}}`` (OpenAI, Azure, Anthropic, vLLM with its integer code),
   ``{"error": "text"}`` (Ollama, vLLM's 401), a list around it (Gemini), flat (Mistral, SGLang, older vLLM),
   ``{"detail": ...}`` (FastAPI), HTML and plain text (proxies), and nothing at all.
3. A body may call an error permanent or temporary only within what its status allows: a 500 that says
   "rate limit" is a failing server, not a pause for all workers.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from engine.core.errors import ErrorKind, kind_of_status
from engine.core.model import UNKNOWN_USAGE, Failure, Reply, Usage
from engine.providers.headers import duration_s, hint_in, wait_of
from engine.providers.replies import Unreadable, clean, dict_in, plain_text, read_json, text_in

BODY_BYTES_MAX = 256 * 1024  # an error body larger than this is not parsed, only quoted
_DETAILS_MAX = 50
_OVER_LIMIT = re.compile(
    r"limit:?\s{1,3}([0-9,]{1,20})\b.{0,80}?\brequested:?\s{1,3}([0-9,]{1,20})\b", re.IGNORECASE
)
# Kinds after which the same call is sent again, so that a server's wait means something.
_WAITING = frozenset(
    {ErrorKind.RATE_LIMITED, ErrorKind.OVERLOADED, ErrorKind.SERVER_ERROR, ErrorKind.TIMEOUT}
)


class Said(NamedTuple):
    """What an error body says, whatever its shape."""

    message: str = ""
    words: frozenset[str] = frozenset()  # its types, codes and reasons, in lower case
    code: int = 0  # a numeric code that is an HTTP status, else 0
    wait_s: float | None = None  # Google's RetryInfo


class Rule(NamedTuple):
    """One line of the table: fits if the status is among ``statuses`` and a word or the message fits."""

    kind: ErrorKind
    statuses: frozenset[int]
    words: frozenset[str] = frozenset()
    message: re.Pattern[str] | None = None


def _words(text: str) -> frozenset[str]:
    return frozenset(text.lower().split())


def _message(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_REFUSALS: Final = frozenset({400, 401, 402, 403, 404, 413, 422, 429})
_THROTTLES: Final = frozenset({429})
_SERVERS: Final = frozenset(range(500, 600))

RULES: Final[tuple[Rule, ...]] = (
    # Money. OpenAI's error codes; Anthropic's billing_error and spend limit; Gemini's per-day quota.
    Rule(
        ErrorKind.QUOTA_EXHAUSTED,
        _REFUSALS,
        _words(
            "insufficient_quota credit_balance_exhausted organization_spend_limit_exceeded "
            "project_spend_limit_exceeded organization_usage_limit_exceeded billing_hard_limit_reached "
            "billing_not_active billing_error enforced_spend_limit_reached insufficient_credits per_day"
        ),
    ),
    # Gemini words its per-minute limit like an exhausted account ("check your plan and billing"): before the next.
    Rule(ErrorKind.RATE_LIMITED, _THROTTLES, _words("resource_exhausted")),
    Rule(
        ErrorKind.QUOTA_EXHAUSTED,
        _REFUSALS,
        message=_message(
            r"credit balance is too low",
            r"exceeded your current quota",
            r"\b(?:spend|spending|billing) (?:hard )?limit\b",
            r"insufficient (?:credits?|balance|funds)\b",
        ),
    ),
    # One call too large for the minute or for the model. Anthropic: a 429 for long contexts without extra usage.
    Rule(
        ErrorKind.REQUEST_TOO_LARGE,
        _REFUSALS,
        _words("context_length_exceeded request_too_large string_above_max_length tokens_limit_reached"),
        _message(
            r"extra usage is required for long context",
            r"(?:maximum|model'?s?|exceeds? the) (?:maximum )?context (?:length|window|size)",
            r"context[ _](?:length|window|size) (?:of|exceeded|is)\b",
            r"exceed\w* .{0,40}context (?:length|window|size)",
            r"prompt is too long",
            r"(?:input|prompt) (?:is )?(?:too (?:long|large)|length .{0,40}exceed)",
            r"too many (?:input |total )?tokens",
            r"please reduce the length of the (?:messages|prompt|input)",
        ),
    ),
    # Filters. Azure: code content_filter, inner ResponsibleAIPolicyViolation; OpenAI: content_policy_violation.
    Rule(
        ErrorKind.CONTENT_REFUSED,
        _REFUSALS,
        _words(
            "content_filter content_policy_violation responsibleaipolicyviolation content_filtered "
            "moderation_blocked invalid_prompt"
        ),
        _message(
            r"content management policy",
            r"content filter(?:ing)? policy",
            r"flagged as potentially violating",
            r"rejected as a result of (?:our|the) safety system",
        ),
    ),
    # A model that is not there, whatever the status around it (OpenAI 403, Mistral and Groq 400).
    Rule(
        ErrorKind.NOT_FOUND,
        frozenset({400, 403, 404, 422}),
        _words("model_not_found deploymentnotfound invalid_model model_not_available model_decommissioned"),
        _message(r"\bmodel .{1,120} (?:does not exist|not found)\b", r"\binvalid model: "),
    ),
    # Keys that are refused with a 400 (Gemini).
    Rule(
        ErrorKind.UNAUTHORISED,
        frozenset({400}),
        _words("api_key_invalid invalid_api_key unauthenticated authentication_error"),
        _message(r"api key not valid", r"(?:invalid|incorrect) api key"),
    ),
    Rule(
        ErrorKind.OVERLOADED,
        _SERVERS,
        _words(
            "overloaded_error server_is_overloaded service_unavailable_error capacity_exceeded unavailable"
        ),
        _message(r"service tier capacity exceeded"),
    ),
)

# The status that an error inside a 200 stands for, by its words; OpenAI Responses, Anthropic, Google.
WORD_STATUS: Final[dict[str, int]] = {
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "invalid_prompt": 400,
    "content_filter": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "unauthenticated": 401,
    "billing_error": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "notfounderror": 404,
    "not_found": 404,
    "request_too_large": 413,
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "rate_limited": 429,
    "resource_exhausted": 429,
    "slow_down": 429,
    "server_error": 500,
    "api_error": 500,
    "internal": 500,
    "internal_server_error": 500,
    "internalservererror": 500,
    "vector_store_timeout": 504,
    "timeout_error": 504,
    "deadline_exceeded": 504,
    "overloaded_error": 529,
    "server_is_overloaded": 503,
    "unavailable": 503,
}


def failure_of(reply: Reply) -> Failure:
    """The failure that a reply with a status outside 200..299 is. Never raises."""
    status = reply.status
    if status < 200:
        message = f"HTTP {status} is not the end of a reply"
        return Failure(ErrorKind.PROTOCOL_ERROR, message, status=status)
    said = said_in(reply.body)
    kind = kind_of(status, said)
    if kind is ErrorKind.RATE_LIMITED and reply.headers.get("x-should-retry") == "false":
        kind = ErrorKind.QUOTA_EXHAUSTED  # the header that official SDKs obey: waiting would not help
    return _failure(kind, f"HTTP {status}: {said.message or 'without a message'}", said, reply)


def failure_in_ok(reply: Reply, error: Any, usage: Usage = UNKNOWN_USAGE) -> Failure:
    """The failure that an error object inside a 2xx reply is: by its code or words, else a BAD_REPLY. Never raises."""
    said = read_error({"error": error})
    status = said.code or next((WORD_STATUS[word] for word in sorted(said.words) if word in WORD_STATUS), 0)
    kind = kind_of(status, said) if status else ErrorKind.BAD_REPLY
    text = f"HTTP {reply.status} with an error: {said.message or 'without a message'}"
    return _failure(kind, text, said, reply, usage)


def kind_of(status: int, said: Said) -> ErrorKind:
    """The kind of an error: a call larger than its limit; the first of RULES that fits; else the status alone."""
    if status == 429 and _larger_than_limit(said.message):
        return ErrorKind.REQUEST_TOO_LARGE
    for rule in RULES:
        if status in rule.statuses and (
            not rule.words.isdisjoint(said.words)
            or (rule.message is not None and rule.message.search(said.message) is not None)
        ):
            return rule.kind
    return kind_of_status(status)


def said_in(body: bytes) -> Said:
    """What an error body says. Never raises."""
    if not body.strip():
        return Said()
    value = read_json(body) if len(body) <= BODY_BYTES_MAX else Unreadable("")
    return Said(plain_text(body)) if isinstance(value, Unreadable) else read_error(value)


def read_error(value: Any) -> Said:
    """What an error says that is JSON of whatever shape."""
    if isinstance(value, list) and value:  # Gemini wraps it; FastAPI's detail is a list of mistakes
        value = value[0]
    if isinstance(value, str):
        return Said(clean(value))
    outer = dict_in(value)
    inner = outer.get("error") or outer.get("errors") or outer.get("detail") or outer
    if isinstance(inner, list) and inner:
        inner = inner[0]
    if isinstance(inner, str):  # e.g. {"error": "text"}, {"error": "Unauthorized", "message": ...}
        more = text_in(outer.get("message"))
        message = f"{inner}: {more}" if more and more != inner else inner
        inner = {}
    else:
        fields = dict_in(inner)
        texts = (
            text_in(fields.get(name)) for name in ("message", "msg", "detail", "error_description", "title")
        )
        message = next((text for text in texts if text.strip()), "")
    words, wait_s = set(), None
    for source in (outer, dict_in(inner)):
        for name in ("type", "code", "status", "error_type", "reason", "error_code"):
            word = source.get(name)
            if isinstance(word, str) and len(word) <= 100:
                words.add(word.lower())
        words.add(text_in(dict_in(source.get("innererror")).get("code"))[:100].lower())
        for detail in _details(source.get("details")):
            words.add(text_in(detail.get("reason"))[:100].lower())
            wait_s = duration_s(text_in(detail.get("retryDelay"))) or wait_s
            if any("perday" in name.lower() for name in _quota_names(detail)):
                words.add("per_day")
    words.discard("")
    return Said(
        _worded(message, words), frozenset(words), _status_in(dict_in(inner)) or _status_in(outer), wait_s
    )


def _details(value: Any) -> Iterator[dict[str, Any]]:
    """Google's list of error details, as far as it is one."""
    if isinstance(value, list):
        yield from (detail for detail in value[:_DETAILS_MAX] if isinstance(detail, dict))


def _quota_names(detail: dict[str, Any]) -> Iterator[str]:
    """Names of the quotas a Google error detail is about: ErrorInfo's metadata and QuotaFailure's violations."""
    yield text_in(dict_in(detail.get("metadata")).get("quota_limit"))
    for violation in _details(detail.get("violations")):
        yield text_in(violation.get("quotaId"))
        yield text_in(violation.get("subject"))


def _status_in(fields: Any) -> int:
    code = fields.get("code")
    if isinstance(code, str) and len(code) == 3 and code.isascii() and code.isdigit():
        code = int(code)
    return code if type(code) is int and 400 <= code <= 599 else 0


def _worded(message: str, words: set[str]) -> str:
    """The message, or the error's own names where it has none."""
    return clean(message) or clean(", ".join(sorted(words)))


def _larger_than_limit(message: str) -> bool:
    """Whether a rate limit's message says that this one call asks for more than the whole limit.

    OpenAI's wording (also Azure's and Groq's): "... Limit 30000, Requested 31000 ..."; with ``Used`` between them.
    """
    found = _OVER_LIMIT.search(message)
    if found is None:
        return False
    limit, requested = (number.replace(",", "") for number in found.groups())
    return bool(limit) and bool(requested) and int(requested) > int(limit)


def _failure(kind: ErrorKind, text: str, said: Said, reply: Reply, usage: Usage = UNKNOWN_USAGE) -> Failure:
    wait_s = None
    if kind in _WAITING:
        hint_s = said.wait_s if said.wait_s is not None else hint_in(said.message)
        wait_s = wait_of(reply.headers, hint_s=hint_s, resets=kind is ErrorKind.RATE_LIMITED)
    return Failure(kind, clean(text), wait_s, usage, reply.status)
