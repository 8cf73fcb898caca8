"""Anthropic's messages."""

import json
from typing import Any

import pytest

from engine.core.errors import ErrorKind, UsageError
from engine.core.model import Answer, Ask, Charge, Failure, Reply, Target, Usage
from engine.providers.anthropic import MAX_TOKENS_DEFAULT, Anthropic


def made(**fields: Any) -> Anthropic:
    return Anthropic(Target("anthropic", **{"model": "claude-x", **fields}))


def body_of(provider: Anthropic, ask: Ask) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(provider.build(ask).body or b"")
    return decoded


def reply(**changes: Any) -> Reply:
    message = {
        "type": "message",
        "model": "claude-x",
        "content": [{"type": "text", "text": "A"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }
    return Reply(200, {}, json.dumps({**message, **changes}).encode())


@pytest.mark.parametrize("base_url", ["", "https://api.anthropic.com", "https://api.anthropic.com/v1/"])
def test_a_call_has_the_url_the_version_and_a_limit(base_url: str) -> None:
    call = made(base_url=base_url).build(Ask(prompt="Q"))
    assert call.url == "https://api.anthropic.com/v1/messages"
    assert dict(call.headers) == {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    assert json.loads(call.body or b"") == {
        "model": "claude-x",
        "messages": [{"role": "user", "content": "Q"}],
        "max_tokens": MAX_TOKENS_DEFAULT,
    }


def test_system_prompts_are_a_field_also_those_of_a_conversation() -> None:
    assert body_of(made(), Ask(prompt="Q", system="S"))["system"] == "S"
    turns = [
        {"role": "system", "content": "A"},
        {"role": "user", "content": "Q"},
        {"role": "developer", "content": [{"type": "text", "text": "B"}]},
    ]
    body = body_of(made(), Ask(messages=turns, system="S"))
    assert body["system"] == "S\n\nA\n\nB"
    assert body["messages"] == [{"role": "user", "content": "Q"}]


def test_a_schema_is_sent_narrowed_beside_what_params_add() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}
    body = body_of(made(schema=schema, params={"output_config": {"effort": "low"}}), Ask(prompt="Q"))
    closed = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": closed}, "effort": "low"}
    assert "output_config" not in body_of(made(schema={"type": "object"}), Ask(prompt="Q"))


def test_the_limit_is_reserved_until_the_reply_tells_the_truth() -> None:
    assert Anthropic.settles
    assert made(max_tokens=100).build(Ask(prompt="x" * 40)).charge == Charge(10, 100, 110)
    assert made().build(Ask(prompt="x" * 40)).charge.tokens == 10 + MAX_TOKENS_DEFAULT


def test_all_input_is_the_sum_of_its_three_parts() -> None:
    usage = {
        "input_tokens": 1,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 300,
        "output_tokens": 5,
    }
    answer = made().parse(reply(usage=usage))
    assert isinstance(answer, Answer)
    assert answer.usage == Usage(321, 5, 300)


@pytest.mark.parametrize(
    "usage",
    [None, 5, {"input_tokens": -5, "output_tokens": "x"}, {"input_tokens": 10**18, "output_tokens": 1e300}],
)
def test_odd_usage_does_not_cost_the_answer(usage: Any) -> None:
    answer = made().parse(reply(usage=usage))
    assert isinstance(answer, Answer)
    assert all(-1 <= count <= 10**9 for count in answer.usage)


def test_thinking_is_left_out_and_texts_are_joined() -> None:
    content = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "A"},
        {"type": "text", "text": "B"},
    ]
    answer = made().parse(reply(content=content))
    assert isinstance(answer, Answer) and answer.value == "AB"


@pytest.mark.parametrize("stop", ["max_tokens", "stop_sequence", "model_context_window_exceeded"])
def test_an_answer_that_was_cut_says_so(stop: str) -> None:
    answer = made().parse(reply(stop_reason=stop))
    assert isinstance(answer, Answer) and answer.finish == stop


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"stop_reason": "refusal", "content": []}, ErrorKind.CONTENT_REFUSED, "refused"),
        ({"stop_reason": "refusal"}, ErrorKind.CONTENT_REFUSED, "refused: A"),
        ({"stop_reason": "tool_use", "content": [{"type": "tool_use"}]}, ErrorKind.BAD_REPLY, "tool"),
        ({"stop_reason": "max_tokens", "content": []}, ErrorKind.BAD_REPLY, "--max-tokens"),
        ({"stop_reason": "pause_turn"}, ErrorKind.BAD_REPLY, "paused"),
        ({"content": []}, ErrorKind.BAD_REPLY, "no text"),
        ({"content": "A"}, ErrorKind.BAD_REPLY, "no text"),
        ({"error": {"type": "overloaded_error", "message": "M"}}, ErrorKind.OVERLOADED, "M"),
    ],
)
def test_a_200_that_is_no_answer_says_why_and_keeps_its_usage(
    changes: Any, kind: ErrorKind, says: str
) -> None:
    failure = made().parse(reply(**changes))
    assert isinstance(failure, Failure)
    assert failure.kind is kind
    assert says in failure.message
    assert failure.usage == Usage(10, 5, -1)


def test_there_are_only_messages() -> None:
    with pytest.raises(UsageError, match="no endpoint"):
        made(endpoint="embeddings")
