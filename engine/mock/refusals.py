"""Replies that are no answer: error bodies, limit headers and 429s, in each provider's own shape.

Rules of this file:
1. Shapes and message templates follow the providers' documentation, or replies their users have published.
2. The wall-clock time is an argument, for the one provider that states reset times as dates.
"""

import math
from datetime import UTC, datetime

from engine.mock.quota import Level, Refusal
from engine.mock.replies import JSON, Reply, encode_json, head

# Status -> type and code, as each family names them.
_OPENAI_WORDS: dict[int, tuple[str, str | None]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
    500: ("server_error", None),
    503: ("service_unavailable_error", "server_is_overloaded"),
}
_ANTHROPIC_WORDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_VLLM_WORDS = {400: "BadRequestError", 404: "NotFoundError", 422: "UnprocessableEntityError"}
_GEMINI_WORDS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
MESSAGES = {
    400: "Invalid request",
    401: "Incorrect API key provided",
    404: "The model does not exist or you do not have access to it",
    429: "Rate limit reached",
    500: "The server had an error while processing your request",
    503: "The server is currently overloaded with other requests",
    529: "Overloaded",
}
_UNIT_NAMES = {
    "requests": "requests per min (RPM)",
    "tokens": "tokens per min (TPM)",
    "input_tokens": "input tokens per min (ITPM)",
    "output_tokens": "output tokens per min (OTPM)",
}


def error_body(shape: str, status: int, message: str, *, kind: str = "", code: str | None = None) -> bytes:
    """An error as the family of ``shape`` words it; ``kind`` and ``code`` are OpenAI's where given."""
    if shape == "anthropic":
        word = _ANTHROPIC_WORDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
        error: object = {"type": word, "message": message}
        return encode_json({"type": "error", "error": error, "request_id": "req_mock"})
    if shape == "ollama":
        return encode_json({"error": message})
    if shape == "azure":
        return encode_json({"error": {"code": code or str(status), "message": message}})
    if shape == "gemini":
        word = _GEMINI_WORDS.get(status, "UNAVAILABLE" if status == 503 else "INTERNAL")
        return encode_json([{"error": {"code": status, "message": message, "status": word}}])
    if shape == "mistral":
        word = "rate_limited" if status == 429 else "invalid_request_error"
        flat = {"object": "error", "message": message, "type": word, "param": None, "code": str(status)}
        return encode_json(flat)
    if shape == "vllm":
        word = _VLLM_WORDS.get(status, "InternalServerError" if status >= 500 else "BadRequestError")
        return encode_json({"error": {"message": message, "type": word, "param": None, "code": status}})
    default = ("server_error", None) if status >= 500 else ("invalid_request_error", None)
    known_kind, known_code = _OPENAI_WORDS.get(status, default)
    return encode_json(
        {"error": {"message": message, "type": kind or known_kind, "param": None, "code": code or known_code}}
    )


def error_reply(shape: str, status: int, message: str = "", extra: bytes = b"", **words: str) -> Reply:
    """A whole error reply. ``words`` are ``kind`` and ``code`` of ``error_body``."""
    body = error_body(shape, status, message or MESSAGES.get(status, f"Status {status}"), **words)
    return Reply(status, head(status, JSON, len(body), extra) + body)


def retry_after_line(value: str) -> bytes:
    """The ``retry-after`` header line for a value as given; none for ``""`` and ``none``."""
    return b"" if value in ("", "none") else b"retry-after: %b\r\n" % value.encode("latin-1", "replace")


def go_duration(seconds: float) -> str:
    """A duration as OpenAI's reset headers write it: ``12ms``, ``18.642s``, ``6m0s``."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{int(minutes)}m{text}" if minutes else text


def limit_headers(style: str, levels: dict[str, Level], wall_s: float) -> bytes:
    """Header lines that state limits, what is left of them and when they are whole again.

    OpenAI: six ``x-ratelimit`` headers with Go durations. Azure: the same names with whole seconds.
    Anthropic: RFC 3339 times, tokens left rounded to thousands. Ollama states nothing.
    """
    if style == "ollama":
        return b""
    if style == "anthropic":
        return "".join(_anthropic_lines(unit, level, wall_s) for unit, level in levels.items()).encode()
    lines = []
    for unit in ("requests", "tokens"):
        level = levels.get(unit)
        if level is not None:
            reset = str(math.ceil(level.full_in_s)) if style == "azure" else go_duration(level.full_in_s)
            lines.append(
                f"x-ratelimit-limit-{unit}: {level.limit}\r\n"
                f"x-ratelimit-remaining-{unit}: {level.remaining}\r\n"
                f"x-ratelimit-reset-{unit}: {reset}\r\n"
            )
    return "".join(lines).encode()


def _anthropic_lines(unit: str, level: Level, wall_s: float) -> str:
    name = unit.replace("_", "-")
    remaining = level.remaining if unit == "requests" else round(level.remaining, -3)
    reset = datetime.fromtimestamp(math.ceil(wall_s + level.full_in_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    front = f"anthropic-ratelimit-{name}"
    return f"{front}-limit: {level.limit}\r\n{front}-remaining: {remaining}\r\n{front}-reset: {reset}\r\n"


def quota_refused(
    shape: str, style: str, refusal: Refusal, model: str, levels: bytes, *, with_ms: bool
) -> Reply:
    """The 429 of a limit: with the provider's message, limits and wait; without a wait if it can never pass."""
    limit, used, requested = refusal.limit, refusal.used, refusal.requested
    unit, kind = _UNIT_NAMES[refusal.unit], "requests" if refusal.unit == "requests" else "tokens"
    if math.isinf(refusal.wait_s):
        message = (
            f"Request too large for {model} in organization org-mock on {unit}: Limit {limit}, "
            f"Requested {requested}. The input or output tokens must be reduced in order to run successfully."
        )
        return error_reply(shape, 429, message, levels, kind=kind)
    seconds = max(1, math.ceil(refusal.wait_s))
    extra = levels + b"retry-after: %d\r\n" % seconds
    if style == "azure" or with_ms:
        extra += b"retry-after-ms: %d\r\n" % math.ceil(refusal.wait_s * 1000)
    if style == "azure":
        message = (
            f"Requests to {model} have exceeded the {kind[:-1]} rate limit of your current pricing tier. "
            f"Please retry after {seconds} seconds."
        )
    elif style == "anthropic":
        message = f"This request would exceed the rate limit for your organization of {limit} {unit}."
    else:
        message = (
            f"Rate limit reached for {model} in organization org-mock on {unit}: Limit {limit}, Used {used}, "
            f"Requested {requested}. Please try again in {go_duration(refusal.wait_s)}."
        )
    return error_reply(shape, 429, message, extra, kind=kind)
