"""Replies of status 200, as bytes, in each provider's own shape.

Rules of this file:
1. Bodies are put together from ready pieces, not through a JSON encoder: this is the path that must carry
   ten thousand replies a second. Only texts from outside are encoded.
2. Shapes follow the providers' API references; fields that no client reads are left out.
"""

from array import array
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

import msgspec

from engine.mock.answers import expected_embedding, prompt_id
from engine.mock.questions import Question

CREATED = 1_767_225_600  # a fixed time, so that equal questions get equal bytes
JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"
LINES = b"application/x-ndjson"
TEXT = b"text/plain; charset=utf-8"
HTML = b"text/html; charset=utf-8"

_REASONS = {
    200: b"OK", 307: b"Temporary Redirect", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden",
    404: b"Not Found", 405: b"Method Not Allowed", 413: b"Content Too Large", 429: b"Too Many Requests",
    500: b"Internal Server Error", 502: b"Bad Gateway", 503: b"Service Unavailable",
}  # fmt: skip
encode_json = msgspec.json.encode


class End(Enum):
    """What happens to the connection when a reply is out."""

    KEEP = 0
    CLOSE = 1
    RESET = 2  # the TCP connection is torn down at once
    HANG = 3  # nothing more is ever sent


@dataclass(slots=True)
class Reply:
    """Bytes to write, and how. ``rest`` are further pieces, ``step_s`` apart; ``full`` is a good 200."""

    status: int
    data: bytes
    rest: Iterator[bytes] | None = None
    step_s: float = 0.0
    end: End = End.KEEP
    full: bool = False
    tokens_out: int = 0
    api: str = ""  # of a stream


class Spoken(NamedTuple):
    """One answer before it is put into a provider's shape. ``finish`` is stop, length, refusal or filter."""

    text: str
    finish: str
    tokens_in: int
    tokens_out: int


def head(status: int, content_type: bytes, length: int, extra: bytes = b"") -> bytes:
    """Status line and headers; ``extra`` are whole header lines."""
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n" % (
        status,
        _REASONS.get(status, b"Status"),
        content_type,
        length,
        extra,
    )


def stream_head(content_type: bytes, extra: bytes = b"") -> bytes:
    """Status line and headers of a chunked reply."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n%b\r\n" % (
        content_type,
        extra,
    )


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; an empty one ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(status: int, content_type: bytes, body: bytes, extra: bytes = b"") -> Reply:
    """A reply in one piece. ``full`` is set for status 200."""
    return Reply(status, head(status, content_type, len(body), extra) + body, full=status == 200)


def without_body(reply: Reply) -> Reply:
    """The same as the answer to HEAD: its head, and nothing of what the head tells of (RFC 9110, 9.3.2)."""
    head, end, _ = reply.data.partition(b"\r\n\r\n")
    return replace(reply, data=head + end, rest=None)


_models: dict[str, bytes] = {}


def model_json(name: str) -> bytes:
    """The model's name as JSON, remembered for the few names a run uses."""
    known = _models.get(name)
    if known is None:
        if len(_models) >= 1000:
            _models.clear()
        known = _models[name] = encode_json(name)
    return known


FINISH_CHAT = {"stop": b"stop", "length": b"length", "refusal": b"stop", "filter": b"content_filter"}
FINISH_MESSAGES = {"stop": b"end_turn", "length": b"max_tokens", "refusal": b"refusal", "filter": b"refusal"}
_CHAT_CHOICE = b'{"index":%d,"message":{"role":"assistant","content":%b,"refusal":%b},"logprobs":null,"finish_reason":"%b"}'
_CHAT = (
    b'{"id":"chatcmpl-%b","object":"chat.completion","created":%d,"model":%b,"service_tier":"default",'
    b'"system_fingerprint":"fp_mock","choices":[%b],"usage":%b}'
)
_USAGE = (
    b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":0},'
    b'"completion_tokens_details":{"reasoning_tokens":0}}'
)
_USAGE_RESPONSES = (
    b'{"input_tokens":%d,"input_tokens_details":{"cached_tokens":0},"output_tokens":%d,'
    b'"output_tokens_details":{"reasoning_tokens":0},"total_tokens":%d}'
)


def usage_chat(said: Spoken) -> bytes:
    """The usage object of chat and completions."""
    return _USAGE % (said.tokens_in, said.tokens_out, said.tokens_in + said.tokens_out)


def usage_responses(said: Spoken) -> bytes:
    """The usage object of the responses API."""
    return _USAGE_RESPONSES % (said.tokens_in, said.tokens_out, said.tokens_in + said.tokens_out)


def chat(question: Question, said: Spoken) -> bytes:
    """A chat completion. All ``n`` choices say the same."""
    content, refusal = encode_json(said.text), b"null"
    if said.finish == "refusal":
        content, refusal = b"null", content
    finish = FINISH_CHAT[said.finish]
    choices = [_CHAT_CHOICE % (index, content, refusal, finish) for index in range(question.choices)]
    answer_id = prompt_id(question.text).encode()
    return _CHAT % (answer_id, CREATED, model_json(question.model), b",".join(choices), usage_chat(said))


def completions(question: Question, said: Spoken) -> bytes:
    """A completion of the older API."""
    return (
        b'{"id":"cmpl-%b","object":"text_completion","created":%d,"model":%b,'
        b'"choices":[{"index":0,"text":%b,"logprobs":null,"finish_reason":"%b"}],"usage":%b}'
    ) % (
        prompt_id(question.text).encode(),
        CREATED,
        model_json(question.model),
        encode_json(said.text),
        FINISH_CHAT[said.finish],
        usage_chat(said),
    )


def responses_item(question: Question, said: Spoken) -> bytes:
    """The one output item of a response."""
    if said.finish == "refusal":
        content = b'{"type":"refusal","refusal":%b}' % encode_json(said.text)
    else:
        content = b'{"type":"output_text","text":%b,"annotations":[],"logprobs":[]}' % encode_json(said.text)
    status = b"incomplete" if said.finish in ("length", "filter") else b"completed"
    return b'{"type":"message","id":"msg_%b","role":"assistant","status":"%b","content":[%b]}' % (
        prompt_id(question.text).encode(),
        status,
        content,
    )


def responses(question: Question, said: Spoken) -> bytes:
    """A response object. One cut short or filtered has status ``incomplete``, still with HTTP status 200."""
    reason = {"length": b"max_output_tokens", "filter": b"content_filter"}.get(said.finish)
    details = b'{"reason":"%b"}' % reason if reason else b"null"
    return (
        b'{"id":"resp_%b","object":"response","created_at":%d,"status":"%b","error":null,'
        b'"incomplete_details":%b,"model":%b,"output":[%b],"usage":%b}'
    ) % (
        prompt_id(question.text).encode(),
        CREATED,
        b"incomplete" if reason else b"completed",
        details,
        model_json(question.model),
        responses_item(question, said),
        usage_responses(said),
    )


def messages(question: Question, said: Spoken) -> bytes:
    """An Anthropic message. A refusal has no content."""
    content = (
        b"" if said.finish in ("refusal", "filter") else b'{"type":"text","text":%b}' % encode_json(said.text)
    )
    return (
        b'{"id":"msg_%b","type":"message","role":"assistant","model":%b,"content":[%b],"stop_reason":"%b",'
        b'"stop_sequence":null,"usage":{"input_tokens":%d,"cache_creation_input_tokens":0,'
        b'"cache_read_input_tokens":0,"output_tokens":%d,"service_tier":"standard"}}'
    ) % (
        prompt_id(question.text).encode(),
        model_json(question.model),
        content,
        FINISH_MESSAGES[said.finish],
        said.tokens_in,
        said.tokens_out,
    )


def ollama_end(said: Spoken) -> bytes:
    """The closing fields of Ollama's native replies; times are in nanoseconds."""
    reason = b"length" if said.finish == "length" else b"stop"
    return (
        b'"done":true,"done_reason":"%b","total_duration":1000000,"load_duration":1000,'
        b'"prompt_eval_count":%d,"prompt_eval_duration":1000,"eval_count":%d,"eval_duration":1000'
    ) % (reason, said.tokens_in, said.tokens_out)


def ollama_piece(api: str, text: str) -> bytes:
    """The field that holds the text: a message for chat, the bare text for generate."""
    if api == "ollama_chat":
        return b'"message":{"role":"assistant","content":%b}' % encode_json(text)
    return b'"response":%b' % encode_json(text)


def ollama_chat(question: Question, said: Spoken) -> bytes:
    """Ollama's native chat reply in one piece."""
    return _ollama(question, said, "ollama_chat")


def ollama_generate(question: Question, said: Spoken) -> bytes:
    """Ollama's native generate reply in one piece."""
    return _ollama(question, said, "ollama_generate")


def _ollama(question: Question, said: Spoken, api: str) -> bytes:
    return b'{"model":%b,"created_at":"2026-01-01T00:00:00Z",%b,%b}' % (
        model_json(question.model),
        ollama_piece(api, said.text),
        ollama_end(said),
    )


def embeddings(question: Question, dims_default: int) -> bytes:
    """Embeddings as lists of floats, or as base64 of little-endian 32-bit floats."""
    items = []
    for index, text in enumerate(question.inputs or ()):
        vector = expected_embedding(text, question.dims or dims_default)
        value = b'"%b"' % b64encode(array("f", vector).tobytes()) if question.base64 else encode_json(vector)
        items.append(b'{"object":"embedding","index":%d,"embedding":%b}' % (index, value))
    tokens = question.prompt_tokens
    return b'{"object":"list","model":%b,"data":[%b],"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (
        model_json(question.model),
        b",".join(items),
        tokens,
        tokens,
    )


def ollama_embed(question: Question, dims_default: int) -> bytes:
    """Ollama's native embeddings."""
    vectors = [expected_embedding(text, question.dims or dims_default) for text in question.inputs or ()]
    return (
        b'{"model":%b,"embeddings":%b,"total_duration":1000000,"load_duration":1000,"prompt_eval_count":%d}'
        % (
            model_json(question.model),
            encode_json(vectors),
            question.prompt_tokens,
        )
    )


SPEAKERS = {
    "chat": chat,
    "completions": completions,
    "responses": responses,
    "messages": messages,
    "ollama_chat": ollama_chat,
    "ollama_generate": ollama_generate,
}
VECTORS = {"embeddings": embeddings, "ollama_embed": ollama_embed}
