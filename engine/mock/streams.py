"""Streamed answers: the pieces of server-sent events, or of JSON lines, for each API.

Rules of this file:
1. A stream is a list of pieces; the first ``LEAD`` of them carry no text and go out with the headers.
   When they are sent is the server's business.
2. Event order and names follow the providers' streaming references.
"""

import re
from collections.abc import Callable

from engine.mock.answers import prompt_id
from engine.mock.questions import Question
from engine.mock.replies import (
    CREATED,
    FINISH_CHAT,
    FINISH_MESSAGES,
    Spoken,
    encode_json,
    model_json,
    ollama_end,
    ollama_piece,
    responses,
    responses_item,
    usage_chat,
)

DONE = b"data: [DONE]\n\n"
_TOKEN = re.compile(r"\S+\s*|\s+")
_WORD_CHARS = 4  # a piece holds about one token


def text_pieces(text: str) -> list[str]:
    """The text cut at words, long ones further, so that a piece is about a token."""
    pieces: list[str] = []
    for word in _TOKEN.findall(text):
        pieces.extend(word[at : at + 2 * _WORD_CHARS] for at in range(0, len(word), 2 * _WORD_CHARS))
    return pieces


def chat(question: Question, said: Spoken) -> list[bytes]:
    """Chunks of a chat completion; usage in a chunk of its own, without choices, where it was asked for."""
    usage_field = b',"usage":null' if question.stream_usage else b""
    front = b'data: {"id":"chatcmpl-%b","object":"chat.completion.chunk","created":%d,"model":%b,' % (
        prompt_id(question.text).encode(),
        CREATED,
        model_json(question.model),
    )
    name = b"refusal" if said.finish == "refusal" else b"content"
    frames = [_choice(front, b'{"role":"assistant","content":"","refusal":null}', b"null", usage_field)]
    for piece in text_pieces(said.text):
        frames.append(_choice(front, b'{"%b":%b}' % (name, encode_json(piece)), b"null", usage_field))
    frames.append(_choice(front, b"{}", b'"%b"' % FINISH_CHAT[said.finish], usage_field))
    if question.stream_usage:
        frames.append(b'%b"choices":[],"usage":%b}\n\n' % (front, usage_chat(said)))
    frames.append(DONE)
    return frames


def _choice(front: bytes, delta: bytes, finish: bytes, usage_field: bytes) -> bytes:
    return b'%b"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]%b}\n\n' % (
        front,
        delta,
        finish,
        usage_field,
    )


def responses_events(question: Question, said: Spoken) -> list[bytes]:
    """Named events of a response with sequence numbers; usage stands in the last one."""
    whole = responses(question, said)
    begun = (
        b'{"id":"resp_%b","object":"response","created_at":%d,"status":"in_progress","model":%b,"output":[]}'
        % (
            prompt_id(question.text).encode(),
            CREATED,
            model_json(question.model),
        )
    )
    item = responses_item(question, said)
    item_id = b"msg_" + prompt_id(question.text).encode()
    place = b'"item_id":"%b","output_index":0,"content_index":0' % item_id
    kind, field = (b"refusal", b"refusal") if said.finish == "refusal" else (b"output_text", b"text")
    part = b'{"type":"%b","%b":%b}' % (kind, field, encode_json(said.text))
    empty = b'{"type":"%b","%b":""}' % (kind, field)
    opened = b'{"type":"message","id":"%b","role":"assistant","status":"in_progress","content":[]}' % item_id
    events = [
        (b"response.created", b'"response":%b' % begun),
        (b"response.in_progress", b'"response":%b' % begun),
        (b"response.output_item.added", b'"output_index":0,"item":%b' % opened),
        (b"response.content_part.added", b'%b,"part":%b' % (place, empty)),
    ]
    for piece in text_pieces(said.text):
        events.append((b"response.%b.delta" % kind, b'%b,"delta":%b' % (place, encode_json(piece))))
    events += [
        (b"response.%b.done" % kind, b'%b,"%b":%b' % (place, field, encode_json(said.text))),
        (b"response.content_part.done", b'%b,"part":%b' % (place, part)),
        (b"response.output_item.done", b'"output_index":0,"item":%b' % item),
    ]
    last = b"response.incomplete" if said.finish in ("length", "filter") else b"response.completed"
    events.append((last, b'"response":%b' % whole))
    return [
        b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b}\n\n' % (name, name, number, fields)
        for number, (name, fields) in enumerate(events)
    ]


def messages(question: Question, said: Spoken) -> list[bytes]:
    """Anthropic's events; the usage in ``message_delta`` is cumulative, and there is no ``[DONE]``."""
    started = (
        b'"message":{"id":"msg_%b","type":"message","role":"assistant","model":%b,"content":[],"stop_reason":null,'
        b'"stop_sequence":null,"usage":{"input_tokens":%d,"cache_creation_input_tokens":0,'
        b'"cache_read_input_tokens":0,"output_tokens":1}}'
    ) % (prompt_id(question.text).encode(), model_json(question.model), said.tokens_in)
    events = [(b"message_start", started)]
    if said.finish not in ("refusal", "filter"):
        events.append((b"content_block_start", b'"index":0,"content_block":{"type":"text","text":""}'))
        events.append((b"ping", b""))
        for piece in text_pieces(said.text):
            delta = b'"index":0,"delta":{"type":"text_delta","text":%b}' % encode_json(piece)
            events.append((b"content_block_delta", delta))
        events.append((b"content_block_stop", b'"index":0'))
    stopped = b'"delta":{"stop_reason":"%b","stop_sequence":null},"usage":{"output_tokens":%d}' % (
        FINISH_MESSAGES[said.finish],
        said.tokens_out,
    )
    events += [(b"message_delta", stopped), (b"message_stop", b"")]
    return [_event(name, fields) for name, fields in events]


def _event(name: bytes, fields: bytes) -> bytes:
    return b'event: %b\ndata: {"type":"%b"%b}\n\n' % (name, name, b"," + fields if fields else b"")


def _ollama(api: str) -> Callable[[Question, Spoken], list[bytes]]:
    def lines(question: Question, said: Spoken) -> list[bytes]:
        front = b'{"model":%b,"created_at":"2026-01-01T00:00:00Z",' % model_json(question.model)
        pieces = [
            b'%b%b,"done":false}\n' % (front, ollama_piece(api, piece)) for piece in text_pieces(said.text)
        ]
        return [*pieces, b"%b%b,%b}\n" % (front, ollama_piece(api, ""), ollama_end(said))]

    return lines


# API -> its pieces, how many of the first carry no text, and the piece that reports an error in mid-stream.
STREAMS: dict[str, Callable[[Question, Spoken], list[bytes]]] = {
    "chat": chat,
    "responses": responses_events,
    "messages": messages,
    "ollama_chat": _ollama("ollama_chat"),
    "ollama_generate": _ollama("ollama_generate"),
}
LEAD: dict[str, int] = {"chat": 1, "responses": 4, "messages": 3, "ollama_chat": 0, "ollama_generate": 0}
ERROR_PIECE: dict[str, bytes] = {
    "chat": b'data: {"error":{"message":"The server had an error","type":"server_error","code":null}}\n\n',
    "responses": b'event: error\ndata: {"type":"error","code":"server_error","message":"The server had an error",'
    b'"param":null,"sequence_number":5}\n\n',
    "messages": _event(b"error", b'"error":{"type":"overloaded_error","message":"Overloaded"}'),
    "ollama_chat": b'{"error":"an error was encountered while running the model"}\n',
    "ollama_generate": b'{"error":"an error was encountered while running the model"}\n',
}
