"""The table of what errors mean: words and phrases of real servers, the statuses they count at, and the kind.

Rules of this file:
1. Data decides: the first line of ``RULES`` that fits, then the status alone (``core.errors.STATUS_KIND``).
2. A body may call an error permanent or temporary only within what its status allows: a 500 that says
   "rate limit" is a failing server, not a pause for all workers.
3. Phrases are looked for as they stand, in lower case: a storm of refusals has to be read cheaply.

Sources: OpenAI's, Azure's, Anthropic's, Google's, Groq's and Together's documentation of errors; vLLM's and Ollama's
sources; for wordings also replies that users have published.
"""

import re
from typing import Final, NamedTuple

from engine.core.errors import ErrorKind, kind_of_status

_OVER_LIMIT = re.compile(r"limit:?\s{1,3}([0-9,]{1,20})\b.{0,80}?\brequested:?\s{1,3}([0-9,]{1,20})\b")
_MODEL_MISSING = re.compile(r"\bmodel .{1,120} (?:does not exist|not found)\b")


class Said(NamedTuple):
    """What an error body says, whatever its shape."""

    message: str = ""
    words: frozenset[str] = frozenset()  # its types, codes and reasons, in lower case
    code: int = 0  # a numeric code that is an HTTP status, else 0
    wait_s: float | None = None  # Google's RetryInfo


class Rule(NamedTuple):
    """One line of the table: fits at ``statuses`` if a word is said, or a phrase or the pattern is in the message."""

    kind: ErrorKind
    statuses: frozenset[int]
    words: frozenset[str] = frozenset()
    phrases: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


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
        phrases=(
            "credit balance is too low",
            "exceeded your current quota",
            "spend limit",
            "spending limit",
            "billing limit",
            "billing hard limit",
            "insufficient credit",
            "insufficient balance",
            "insufficient funds",
        ),
    ),
    # One call too large for the model. Anthropic has a 429 for long contexts without extra usage, Together a 403.
    Rule(ErrorKind.REQUEST_TOO_LARGE, _THROTTLES, phrases=("extra usage is required for long context",)),
    Rule(
        ErrorKind.REQUEST_TOO_LARGE,
        _REFUSALS - _THROTTLES,
        _words("context_length_exceeded request_too_large string_above_max_length tokens_limit_reached"),
        (
            "context length",
            "context window",
            "context size",
            "prompt is too long",
            "input is too long",
            "too many tokens",
            "too many input tokens",
            "reduce the length of the",
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
        (
            "content management policy",
            "content filter policy",
            "content filtering policy",
            "flagged as potentially violating",
            "as a result of our safety system",
        ),
    ),
    # A model that is not there, whatever the status around it (OpenAI 403, Mistral and Groq 400).
    Rule(
        ErrorKind.NOT_FOUND,
        frozenset({400, 403, 404, 422}),
        _words("model_not_found deploymentnotfound invalid_model model_not_available model_decommissioned"),
        ("invalid model: ",),
        _MODEL_MISSING,
    ),
    # Keys that are refused with a 400 (Gemini).
    Rule(
        ErrorKind.UNAUTHORISED,
        frozenset({400}),
        _words("api_key_invalid invalid_api_key unauthenticated authentication_error"),
        ("api key not valid", "invalid api key", "incorrect api key"),
    ),
    Rule(
        ErrorKind.OVERLOADED,
        _SERVERS,
        _words(
            "overloaded_error server_is_overloaded service_unavailable_error capacity_exceeded unavailable"
        ),
        ("service tier capacity exceeded",),
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


def kind_of(status: int, said: Said) -> ErrorKind:
    """The kind of an error: a call larger than its limit; the first of RULES that fits; else the status alone."""
    message = said.message.lower()
    if status == 429 and _larger_than_limit(message):
        return ErrorKind.REQUEST_TOO_LARGE
    for rule in RULES:
        if status in rule.statuses and _fits(rule, said.words, message):
            return rule.kind
    return kind_of_status(status)


def _fits(rule: Rule, words: frozenset[str], message: str) -> bool:
    if not rule.words.isdisjoint(words):
        return True
    for phrase in rule.phrases:
        if phrase in message:
            return True
    return rule.pattern is not None and rule.pattern.search(message) is not None


def _larger_than_limit(message: str) -> bool:
    """Whether a rate limit's message says that this one call asks for more than the whole limit.

    OpenAI's wording (also Azure's and Groq's): "... Limit 30000, Requested 31000 ..."; with ``Used`` between them.
    """
    if "requested" not in message:
        return False
    found = _OVER_LIMIT.search(message)
    if found is None:
        return False
    limit, requested = (number.replace(",", "") for number in found.groups())
    return bool(limit) and bool(requested) and int(requested) > int(limit)
