"""Streamed answers and answers in one piece say the same, in every provider's shape."""

import json
from typing import Any

import pytest
from mockclient import post, served

from engine.mock.answers import expected_answer
from engine.mock.settings import MockSettings
from engine.mock.streams import text_pieces

TURNS = [{"role": "user", "content": "hi"}]
ANSWER = expected_answer("hi")


def streamed(path: str, body: dict[str, Any]) -> str:
    replies, _ = served(MockSettings(), post(path, {**body, "stream": True}))
    assert replies[0][0] == 200
    return replies[0][2].decode()


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for frame in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in frame.split("\n") if ": " in line)
        if lines.get("data", "[DONE]") != "[DONE]":
            found.append((lines.get("event", ""), json.loads(lines["data"])))
    return found


def test_responses_tell_their_text_in_numbered_events_and_their_usage_at_the_end() -> None:
    found = events(streamed("/v1/responses", {"model": "m", "input": "hi"}))
    assert [event["sequence_number"] for _, event in found] == list(range(len(found)))
    assert all(name == event["type"] for name, event in found)
    assert "".join(event["delta"] for name, event in found if name == "response.output_text.delta") == ANSWER
    assert found[-1][0] == "response.completed"
    assert found[-1][1]["response"]["usage"]["output_tokens"] > 0


def test_messages_begin_with_their_input_tokens_and_end_with_a_stop() -> None:
    found = events(streamed("/v1/messages", {"model": "m", "max_tokens": 99, "messages": TURNS}))
    names = [name for name, _ in found]
    assert (names[0], names[-1]) == ("message_start", "message_stop")
    assert found[0][1]["message"]["usage"]["input_tokens"] > 0
    assert "".join(e["delta"]["text"] for name, e in found if name == "content_block_delta") == ANSWER


@pytest.mark.parametrize(
    ("path", "body"),
    [("/api/chat", {"model": "m", "messages": TURNS}), ("/api/generate", {"model": "m", "prompt": "hi"})],
)
def test_ollama_streams_lines_and_only_the_last_is_done(path: str, body: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in streamed(path, body).splitlines()]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    said = "".join(line["message"]["content"] if "message" in line else line["response"] for line in lines)
    assert said == ANSWER


def test_chat_tells_its_usage_only_where_it_is_asked_for() -> None:
    body = {"model": "m", "messages": TURNS}
    assert all(not event.get("usage") for _, event in events(streamed("/v1/chat/completions", body)))
    asked = events(streamed("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}}))
    assert asked[-1][1]["choices"] == []
    assert asked[-1][1]["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("text", ["", "a", "one two  three\nfour", "x" * 100, "日本語 テキスト"])
def test_pieces_add_up_to_the_text(text: str) -> None:
    assert "".join(text_pieces(text)) == text
