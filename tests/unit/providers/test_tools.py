"""A model that calls tools has answered: the calls are the answer, the same shape from every provider."""

import json
from typing import Any

import pytest

from engine.core.model import Answer, Reply, Target
from engine.providers import make_provider
from engine.providers.tools import from_functions

ASKED = [{"name": "weather", "arguments": {"city": "Rome"}}, {"name": "time", "arguments": {}}]
CHAT_CALLS = [
    {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
    {"id": "2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
]


def parsed(provider: str, body: dict[str, Any]) -> Any:
    made = make_provider(Target(provider, "http://127.0.0.1:9/v1", model="m"))
    return made.parse(Reply(200, {}, json.dumps(body).encode()))


def chat(message: dict[str, Any], finish: str = "tool_calls") -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish}], "model": "m"}


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        ("openai", chat({"content": None, "tool_calls": CHAT_CALLS})),
        ("openai", chat({"content": "I will look it up.", "tool_calls": CHAT_CALLS})),
        ("openai", chat({"tool_calls": CHAT_CALLS}, "stop")),
        (
            "openai",
            {
                "status": "completed",
                "output": [
                    {"type": "reasoning", "summary": []},
                    {"type": "function_call", "name": "weather", "arguments": '{"city": "Rome"}'},
                    {"type": "function_call", "name": "time", "arguments": "{}"},
                ],
            },
        ),
        (
            "anthropic",
            {
                "stop_reason": "tool_use",
                "content": [
                    {"type": "text", "text": "I will look it up."},
                    {"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "Rome"}},
                    {"type": "tool_use", "id": "2", "name": "time", "input": {}},
                ],
            },
        ),
        (
            "ollama",
            {
                "done": True,
                "done_reason": "stop",
                "message": {
                    "content": "",
                    "tool_calls": [
                        {"function": {"name": "weather", "arguments": {"city": "Rome"}}},
                        {"function": {"name": "time", "arguments": {}}},
                    ],
                },
            },
        ),
    ],
)
def test_tool_calls_are_the_answer(provider: str, body: dict[str, Any]) -> None:
    answer = parsed(provider, body)
    assert isinstance(answer, Answer), answer
    assert answer.value == ASKED


def test_an_older_function_call_is_a_tool_call_too() -> None:
    answer = parsed(
        "openai", chat({"content": None, "function_call": CHAT_CALLS[0]["function"]}, "function_call")
    )
    assert answer.value == ASKED[:1]


@pytest.mark.parametrize("arguments", ['{"city": "Ro', "", "not json"])
def test_arguments_that_are_no_json_are_kept_as_text(arguments: str) -> None:
    call = {"function": {"name": "weather", "arguments": arguments}}
    answer = parsed("openai", chat({"content": None, "tool_calls": [call]}, "length"))
    assert answer.value == [{"name": "weather", "arguments": arguments}]
    assert answer.finish == "length"


def test_arguments_nested_deeper_than_a_record_may_be_stay_text() -> None:
    for depth, kind in ((100, list), (400, str)):
        text = "[" * depth + "]" * depth
        (call,) = from_functions([{"function": {"name": "f", "arguments": text}}])
        assert type(call["arguments"]) is kind
