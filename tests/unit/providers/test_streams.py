"""What streamed answers say, in every dialect, wherever their bytes were cut."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.model import Usage
from engine.core.sse import Event
from engine.mock.questions import Question
from engine.mock.replies import Spoken
from engine.mock.streams import ERROR_PIECE, LEAD, STREAMS
from engine.providers.streams import READERS, Content, Stream

DIALECTS = {
    "chat": "chat",
    "responses": "responses",
    "messages": "messages",
    "ollama_chat": "ollama",
    "ollama_generate": "ollama",
}
SPOKEN = Spoken("Three words here", "stop", 12, 5)
QUESTION = Question(model="m", prompt="Say three words", stream=True, stream_usage=True)


def pieces(api: str) -> list[bytes]:
    return STREAMS[api](QUESTION, SPOKEN)


def chunk(delta: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta, **more}]}).encode()


@pytest.mark.parametrize("api", DIALECTS)
def test_a_whole_answer_is_content_an_end_and_its_cost(api: str) -> None:
    stream = Stream(DIALECTS[api])
    brought = [stream.feed(piece) for piece in pieces(api)]
    assert not any(brought[: LEAD[api]])  # a role, a ping, an empty block: no token has come yet
    assert Content.ANSWER in brought
    assert Content.REASONING not in brought
    assert (stream.is_whole, stream.failure) == (True, "")
    assert (stream.usage.tokens_in, stream.usage.tokens_out) == (12, 5)


@pytest.mark.parametrize("api", DIALECTS)
@given(places=st.lists(st.integers(0, 10_000), max_size=30))
def test_it_does_not_matter_where_a_stream_is_cut(api: str, places: list[int]) -> None:
    data = b"".join(pieces(api))
    edges = [0, *sorted(place % len(data) for place in places), len(data)]
    stream = Stream(DIALECTS[api])
    brought = [stream.feed(data[start:end]) for start, end in itertools.pairwise(edges)]
    assert max(brought) is Content.ANSWER
    assert (stream.is_whole, stream.failure, stream.usage) == (
        True,
        "",
        Usage(12, 5, stream.usage.tokens_cached),
    )


@pytest.mark.parametrize("api", DIALECTS)
def test_a_stream_that_breaks_off_is_not_whole(api: str) -> None:
    stream = Stream(DIALECTS[api])
    for piece in pieces(api)[:-3]:
        stream.feed(piece)
    assert not stream.is_whole


@pytest.mark.parametrize("api", DIALECTS)
def test_an_error_in_mid_stream_is_a_failure_in_the_servers_words(api: str) -> None:
    stream = Stream(DIALECTS[api])
    stream.feed(pieces(api)[0])
    stream.feed(ERROR_PIECE[api])
    assert "error" in stream.failure.lower() or "overloaded" in stream.failure.lower()


@pytest.mark.parametrize(
    ("delta", "content"),
    [
        ({"role": "assistant", "content": ""}, Content.NONE),
        ({"role": "assistant"}, Content.NONE),
        ({"content": None}, Content.NONE),
        ({}, Content.NONE),
        ({"content": "a"}, Content.ANSWER),
        ({"content": " "}, Content.ANSWER),
        ({"reasoning_content": "hm"}, Content.REASONING),
        ({"reasoning": "hm"}, Content.REASONING),
        ({"reasoning_content": "hm", "content": "a"}, Content.ANSWER),
        ({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}, Content.ANSWER),
        ({"tool_calls": []}, Content.NONE),
        ({"refusal": "No."}, Content.ANSWER),
    ],
)
def test_only_what_a_reader_would_see_is_content(delta: dict[str, Any], content: Content) -> None:
    assert READERS["chat"](Event(b"", chunk(delta))).content is content


def test_content_and_the_end_may_come_in_one_event() -> None:
    said = READERS["chat"](Event(b"", chunk({"content": "a"}, finish_reason="stop")))
    assert (said.content, said.is_end) == (Content.ANSWER, True)


def test_thinking_of_anthropic_and_ollama_is_reasoning() -> None:
    thinking = b'{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}'
    assert READERS["messages"](Event(b"content_block_delta", thinking)).content is Content.REASONING
    line = b'{"message":{"role":"assistant","content":"","thinking":"hm"},"done":false}'
    assert READERS["ollama"](Event(b"", line)).content is Content.REASONING


def test_a_count_that_comes_later_replaces_the_earlier_one() -> None:
    stream = Stream("messages")
    for tokens in (1, 9):
        data = json.dumps({"type": "message_delta", "usage": {"output_tokens": tokens}})
        stream.feed(b"event: message_delta\ndata: " + data.encode() + b"\n\n")
    assert stream.usage == Usage(-1, 9, -1)


@pytest.mark.parametrize("dialect", READERS)
@given(
    data=st.one_of(st.binary(max_size=80), st.sampled_from([b"[]", b"null", b'"a"', b"1e999", b"[" * 5_000]))
)
def test_whatever_the_bytes_a_reader_says_something_and_raises_nothing(dialect: str, data: bytes) -> None:
    READERS[dialect](Event(b"x", data))
    stream = Stream(dialect)
    stream.feed(b"data: " + data + b"\n\n")


@pytest.mark.parametrize("dialect", READERS)
def test_what_is_no_json_object_is_a_failure(dialect: str) -> None:
    for data in (b"<html>", b"[1]", b"{", b'{"a": \xff}'):
        assert READERS[dialect](Event(b"", data)).failure


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (b'{"choices": null}', Content.NONE),
        (b"", Content.NONE),
        (b'{"choices": [{"delta": {"content": [{"type": "text", "text": "a"}]}}]}', Content.ANSWER),
        (b'{"choices": [{"delta": {"function_call": {"name": "f"}}}]}', Content.ANSWER),
        (b'{"choices": [{"delta": {"reasoning_details": [{"text": "hm"}]}}]}', Content.REASONING),
        (b'{"choices": [{"delta": {"content": "a"}, "finish_reason": 0}]}', Content.ANSWER),
    ],
)
def test_shapes_that_only_some_servers_send_are_no_failures(data: bytes, content: Content) -> None:
    said = READERS["chat"](Event(b"", data))
    assert (said.content, said.failure) == (content, "")


# --- pieces that are known again ------------------------------------------------------------------------------

_TEXTS = st.sampled_from(
    ["a", " the", "", "\n", 'say "x"', "\\", "é", '"content":"b"', "}", "data: x", "\x7f", "[DONE]"]
)
_SHAPES = (
    lambda text: {"choices": [{"delta": {"content": text}}]},
    lambda text: {"choices": [{"delta": {"content": text}, "logprobs": {"content": text}}]},
    lambda text: {"choices": [{"delta": {"reasoning": text}}]},
    lambda text: {"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]},
    lambda text: {"choices": [{"delta": {"content": None, "tool_calls": [{"content": text}]}}]},
    lambda text: {"choices": [{"text": text}], "content": text},
    lambda text: {"choices": [], "usage": {"prompt_tokens": 7, "content": text}},
    lambda text: {"error": {"content": text}},
    lambda text: {"type": "response.output_text.delta", "delta": text},
    lambda text: {"type": "content_block_delta", "delta": {"text": text}},
    lambda text: {"message": {"content": text}, "done": False},
)


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """One event, in one of the ways in which servers write them."""
    body = draw(st.sampled_from(_SHAPES))(draw(_TEXTS))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    text = json.dumps(body, ensure_ascii=draw(st.booleans()), separators=separators).encode()
    line = (
        draw(st.sampled_from([b"data: %b", b"data:%b", b"event: x\ndata: %b", b': "content":"c"\ndata: %b']))
        % text
    )
    return line + draw(st.sampled_from([b"\n\n", b"\r\n\r\n"]))


@pytest.mark.parametrize("dialect", ["chat", "completions", "responses", "messages"])
@given(pieces=st.lists(events(), min_size=1, max_size=12).map(lambda few: few * 3))
def test_an_event_means_the_same_whatever_came_before_it(dialect: str, pieces: list[bytes]) -> None:
    stream, by_the_byte = Stream(dialect), Stream(dialect)
    for piece in pieces:
        assert stream.feed(piece) == Stream(dialect).feed(piece)
        for byte in piece:
            by_the_byte.feed(bytes([byte]))
    for name in ("is_whole", "failure", "usage"):
        assert getattr(stream, name) == getattr(by_the_byte, name)


@pytest.mark.parametrize("api", ["chat", "messages", "ollama_chat"])  # Responses number theirs
def test_events_that_bring_nothing_but_another_text_are_read_once(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect = DIALECTS[api]
    read, reader = list[Event](), READERS[dialect]

    def read_and_note(event: Event) -> Any:
        read.append(event)
        return reader(event)

    monkeypatch.setitem(READERS, dialect, read_and_note)
    spoken = SPOKEN._replace(text=" ".join(["word"] * 50))
    stream = Stream(dialect)
    brought = [stream.feed(piece) for piece in STREAMS[api](QUESTION, spoken)]
    assert brought.count(Content.ANSWER) >= 50
    assert len(read) < 15
    assert stream.is_whole


def test_a_stream_that_is_new_in_every_event_is_read_to_its_end() -> None:
    stream = Stream("chat")
    for number in range(20):
        piece = b'data: {"choices": [{"delta": {"content": "a"}}], "obfuscation": "%d"}\n\n' % number
        assert stream.feed(piece) is Content.ANSWER
    assert stream.feed(b"data: nonsense\n\n") is Content.NONE
    assert stream.failure


def test_a_piece_that_begins_and_ends_as_one_that_was_learned_is_read_all_the_same() -> None:
    one = b"data: " + chunk({"content": "a"}) + b"\n\n"
    stream = Stream("chat")
    stream.feed(one)
    stream.feed(one + b'data: {"error": {"message": "no"}}\n\n' + one)
    assert stream.failure == "no"


def test_a_piece_that_was_learned_is_no_event_of_its_own_within_another_one() -> None:
    one = b"data: " + chunk({"content": "a"}) + b"\n\n"
    stream = Stream("chat")
    for piece in (one, b"data: {", one):
        stream.feed(piece)
    assert stream.failure
