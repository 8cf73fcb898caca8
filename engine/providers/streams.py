"""What the events of a streamed answer say, in each API's dialect: content, its end, what it cost, a failure.

Rules of this file:
1. Content is text that is not empty, or a piece of a tool call. A chunk that names the role, is empty, or only counts
   tokens is none: the first token has not come with it.
2. Nothing raises, whatever the bytes. An event that cannot be read is a failure; one that is not known says nothing.
3. A new dialect is one function and one line in each table.
4. A piece that differs from an earlier one in nothing but the text of its answer is not read again: see ``Alike``.

Shapes: OpenAI's, Anthropic's and Ollama's streaming references; ``reasoning_content`` of DeepSeek, vLLM and SGLang,
``reasoning`` of OpenRouter and Groq.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final, NamedTuple

import msgspec

from engine.core.model import UNKNOWN_USAGE, Usage
from engine.core.sse import Event, Events, JsonLines
from engine.providers.openai_replies import usage_in
from engine.providers.replies import JSON_ERRORS, count, dict_in, text_in

PROBLEM_CHARS_MAX: Final = 300
ALIKE_TRIES: Final = 4  # of a stream's pieces; where each is new in more than its text, more would be in vain
_MARK: Final = b"\xef"  # how a byte order mark begins, which stands before a first piece only
_PLAIN: Final = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')


class Content(IntEnum):
    """What of the answer an event brings."""

    NONE = 0
    REASONING = 1
    ANSWER = 2


class Said(NamedTuple):
    """What one event says."""

    content: Content = Content.NONE
    is_end: bool = False  # the answer is whole
    usage: Usage = UNKNOWN_USAGE
    failure: str = ""


Reader = Callable[[Event], Said]
_NOTHING: Final = Said()
_ANSWER: Final = Said(Content.ANSWER)
_REASONING: Final = Said(Content.REASONING)
_END: Final = Said(is_end=True)


class _Delta(msgspec.Struct, gc=False):
    content: Any = None  # text; parts, from some
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    tool_calls: Any = None
    function_call: Any = None  # what tool calls were called before
    refusal: Any = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    text: Any = None
    finish_reason: Any = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode = msgspec.json.Decoder().decode


def read_chunk(event: Event) -> Said:
    """Chat completions and completions, of OpenAI and of every server that speaks as it does."""
    if event.data == b"[DONE]":
        return _END
    if not event.data:
        return _NOTHING
    try:
        chunk = _decode_chunk(event.data)
    except JSON_ERRORS:
        return _failed(event, "the event cannot be read")
    if chunk.error or event.name == b"error":
        return Said(failure=_says(chunk.error or "the server reports an error"))
    content, is_end = Content.NONE, False
    for choice in chunk.choices or ():
        delta = choice.delta
        if delta is not None:
            if delta.content or delta.tool_calls or delta.refusal or delta.function_call:
                content = Content.ANSWER
            elif (delta.reasoning_content or delta.reasoning or delta.reasoning_details) and not content:
                content = Content.REASONING
        elif choice.text:
            content = Content.ANSWER
        if choice.finish_reason:
            is_end = True
    if chunk.usage is None:
        if not is_end:
            return _ANSWER if content is Content.ANSWER else _REASONING if content else _NOTHING
        return Said(content, is_end)
    return Said(content, is_end, usage_in(chunk.usage))


def read_response(event: Event) -> Said:
    """OpenAI's Responses."""
    body = _object(event)
    if isinstance(body, Said):
        return body
    kind = text_in(body.get("type")) or event.name.decode(errors="replace")
    if kind == "error" or kind == "response.failed":
        return Said(failure=_says(dict_in(body.get("response")).get("error") or body.get("error") or body))
    if kind.endswith(".delta"):
        if not body.get("delta"):
            return _NOTHING
        return _REASONING if "reasoning" in kind else _ANSWER
    if kind in ("response.completed", "response.incomplete"):
        return Said(is_end=True, usage=usage_in(dict_in(body.get("response")).get("usage")))
    return _NOTHING


def read_message(event: Event) -> Said:
    """Anthropic's Messages. Input tokens come with the first event, output tokens grow with later ones."""
    body = _object(event)
    if isinstance(body, Said):
        return body
    kind = body.get("type")
    if kind == "content_block_delta":
        delta = dict_in(body.get("delta"))
        if delta.get("text") or delta.get("partial_json"):
            return _ANSWER
        return _REASONING if delta.get("thinking") else _NOTHING
    if kind == "message_start":
        return Said(usage=_counted(dict_in(body.get("message")).get("usage"), "input_tokens", ""))
    if kind == "message_delta":
        return Said(usage=_counted(body.get("usage"), "", "output_tokens"))
    if kind == "message_stop":
        return _END
    if kind == "error":
        return Said(failure=_says(body.get("error") or body))
    return _NOTHING


def read_line(event: Event) -> Said:
    """Ollama's chat and generate."""
    body = _object(event)
    if isinstance(body, Said):
        return body
    if body.get("error"):
        return Said(failure=_says(body["error"]))
    message = dict_in(body.get("message"))
    content = Content.NONE
    if message.get("content") or message.get("tool_calls") or body.get("response"):
        content = Content.ANSWER
    elif message.get("thinking") or body.get("thinking"):
        content = Content.REASONING
    if body.get("done") is True:
        return Said(content, True, _counted(body, "prompt_eval_count", "eval_count"))
    return Said(content)


# Each dialect's reader, and the name under which its events bring text.
READERS: Final[dict[str, Reader]] = {
    "chat": read_chunk,
    "completions": read_chunk,
    "responses": read_response,
    "messages": read_message,
    "ollama": read_line,
}

TEXTS: Final[dict[str, bytes]] = {
    "chat": b"content",
    "completions": b"text",
    "responses": b"delta",
    "messages": b"text",
    "ollama": b"content",
}

# What a body says to have its answer streamed, by dialect; OpenAI's tell what it cost only when they are asked to.
STREAM_FIELDS: Final[dict[str, dict[str, Any]]] = {
    "chat": {"stream": True, "stream_options": {"include_usage": True}},
    "completions": {"stream": True, "stream_options": {"include_usage": True}},
    "responses": {"stream": True},
    "messages": {"stream": True},
    "ollama": {"stream": True},
}


class Alike:
    """Knows pieces again that bring nothing but another text: what surrounds it is compared, byte for byte.

    Servers repeat everything but the text in each event. Only text whose meaning does not depend on what surrounds it is
    known: not empty, printable ASCII, neither quote nor backslash. Whatever else changes is read as if for the first time.
    """

    __slots__ = ("_back", "_front", "_length", "_name", "_tries")

    def __init__(self, name: bytes) -> None:
        self._name = b'"%b"' % name
        self._front = self._back = b""
        self._length = 0  # of both
        self._tries = ALIKE_TRIES

    def knows(self, piece: bytes) -> bool:
        """Whether it is as the one that was learned, with another text."""
        front, back = self._front, self._back
        if not front or not piece.startswith(front) or not piece.endswith(back) or len(piece) <= self._length:
            return False
        return not piece[len(front) : -len(back)].translate(None, _PLAIN)

    def learn(self, piece: bytes) -> None:
        """``piece``: one whole event, that brought text of the answer and said nothing else.

        Where its first text of that name is another one than the answer's, it says as much whatever stands there.
        """
        if not self._tries:
            return  # there is something new in every piece
        self._tries -= 1
        front, name, rest = piece.partition(self._name)
        opening = b':"' if rest[:2] == b':"' else b': "'
        if not rest.startswith(opening) or piece[:1] == _MARK:
            return
        text, quote, back = rest[len(opening) :].partition(b'"')
        if text and quote and not text.translate(None, _PLAIN):
            self._front, self._back = front + name + opening, quote + back
            self._length = len(self._front) + len(self._back)


class Stream:
    """One streamed answer, read as it comes. ``dialect``: a name in ``READERS``."""

    __slots__ = ("_alike", "_events", "_is_between", "_read", "failure", "is_whole", "usage")

    def __init__(self, dialect: str) -> None:
        self._events = JsonLines() if dialect == "ollama" else Events()
        self._read = READERS[dialect]
        self._alike = Alike(TEXTS[dialect])
        self._is_between = True  # two events: the next piece begins one
        self.is_whole = False
        self.failure = ""  # the first one
        self.usage = UNKNOWN_USAGE

    def feed(self, data: bytes) -> Content:
        """Read one piece. What it brought: the most of NONE, REASONING and ANSWER."""
        began_one = self._is_between
        if began_one and self._alike.knows(data):
            return Content.ANSWER
        most = Content.NONE
        events = self._events.feed(data)
        for event in events:
            said = self._read(event)
            if said.content > most:
                most = said.content
            if said.is_end:
                self.is_whole = True
            if said.usage is not UNKNOWN_USAGE:
                self.usage = _newer(self.usage, said.usage)
            if said.failure and not self.failure:
                self.failure = said.failure
        self._is_between = self._events.is_between
        if began_one and self._is_between and len(events) == 1 and said == _ANSWER:
            self._alike.learn(data)
        return most


def _newer(old: Usage, new: Usage) -> Usage:
    """Each count as it was last stated."""
    return Usage(*(late if late >= 0 else early for early, late in zip(old, new, strict=True)))


def _counted(value: Any, name_in: str, name_out: str) -> Usage:
    usage = dict_in(value)
    return Usage(count(usage.get(name_in)), count(usage.get(name_out)))


def _object(event: Event) -> dict[str, Any] | Said:
    try:
        body = _decode(event.data)
    except JSON_ERRORS:
        return _failed(event, "the event cannot be read")
    return body if isinstance(body, dict) else _failed(event, "the event is no JSON object")


def _failed(event: Event, why: str) -> Said:
    return Said(failure=f"{why}: {event.data[:80].decode(errors='replace')}")


def _says(error: Any) -> str:
    found = error if isinstance(error, str) else text_in(dict_in(error).get("message")) or str(error)
    return " ".join(found.split())[:PROBLEM_CHARS_MAX]
