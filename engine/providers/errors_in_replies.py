"""What an error reply says: any server's body to a message, words and a wait, and with its status to a Failure.

Rules of this file:
1. Every shape is read: ``{"error": {...}}`` (OpenAI, Azure, Anthropic, vLLM with its integer code),
   ``{"error": "text"}`` (Ollama, vLLM's 401), a list around it (Gemini), flat (Mistral, SGLang, older vLLM),
   ``{"detail": ...}`` (FastAPI), HTML and plain text (proxies), and nothing at all.
2. What the words mean is the table's to say (``error_kinds``).
3. Nothing raises, whatever the bytes.
"""

from collections.abc import Iterator
from typing import Any

from engine.core.errors import ErrorKind
from engine.core.model import UNKNOWN_USAGE, Failure, Reply, Usage
from engine.providers.error_kinds import WORD_STATUS, Said, kind_of
from engine.providers.headers import duration_s, hint_in, wait_of
from engine.providers.replies import Unreadable, clean, dict_in, plain_text, read_json, text_in

BODY_BYTES_MAX = 256 * 1024  # an error body larger than this is not parsed, only quoted
_DETAILS_MAX = 50
# Kinds after which the same call is sent again, so that a server's wait means something.
_WAITING = frozenset(
    {ErrorKind.RATE_LIMITED, ErrorKind.OVERLOADED, ErrorKind.SERVER_ERROR, ErrorKind.TIMEOUT}
)


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


def _failure(kind: ErrorKind, text: str, said: Said, reply: Reply, usage: Usage = UNKNOWN_USAGE) -> Failure:
    wait_s = None
    if kind in _WAITING:
        hint_s = said.wait_s if said.wait_s is not None else hint_in(said.message)
        wait_s = wait_of(reply.headers, hint_s=hint_s, resets=kind is ErrorKind.RATE_LIMITED)
    return Failure(kind, clean(text), wait_s, usage, reply.status)
