"""What OpenAI-shaped replies say."""

import json
from array import array
from base64 import b64encode
from typing import Any

import pytest

from engine.core.errors import ErrorKind
from engine.core.model import Answer, Failure, Reply, Target, Usage
from engine.providers.openai import OpenAI

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def parse(body: Any, endpoint: str = "chat") -> Answer | Failure:
    return OpenAI(Target("openai", model="m", endpoint=endpoint)).parse(
        Reply(200, {}, json.dumps(body).encode())
    )


def chat(message: Any = None, finish: Any = "stop", **changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "A"} if message is None else message}
    return {"model": "m-1", "choices": [{**choice, "finish_reason": finish}], "usage": USAGE, **changes}


def response(*content: Any, **changes: Any) -> dict[str, Any]:
    items = [{"type": "reasoning"}, {"type": "message", "content": list(content)}]
    usage = {"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 4}}
    return {
        "object": "response",
        "model": "m-1",
        "status": "completed",
        "output": items,
        "usage": usage,
        **changes,
    }


def test_an_answer_has_text_usage_model_and_end() -> None:
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 3}}
    assert parse(chat(usage=usage)) == Answer("A", Usage(10, 5, 3), "m-1", "stop")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, Usage()),
        ({}, Usage()),
        ("many", Usage()),
        ({"prompt_tokens": -5, "completion_tokens": 5}, Usage(-1, 5)),
        ({"prompt_tokens": 10**18, "completion_tokens": 10**30}, Usage()),
        ({"prompt_tokens": 1e300, "completion_tokens": 2.9}, Usage(-1, 2)),
        ({"prompt_tokens": "7", "completion_tokens": [7]}, Usage()),
        ({"prompt_tokens": True, "completion_tokens": None}, Usage()),
        (
            {"prompt_tokens": 7, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": -4}},
            Usage(7, 1),
        ),
        ({"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 20}, Usage(7, 13)),  # Gemini's thinking
        ({"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 10**18}, Usage(7, 1)),
        ({"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 3}, Usage(7, 9)),
    ],
)
def test_usage_is_clamped_and_never_costs_the_answer(usage: Any, expected: Usage) -> None:
    answer = parse(chat(usage=usage))
    assert isinstance(answer, Answer)
    assert answer.usage == expected


def test_numbers_that_are_no_json_do_not_cost_the_answer() -> None:
    choices = b'"choices":[{"message":{"content":"A"},"finish_reason":"stop"}]'
    body = b'{%b,"usage":{"prompt_tokens":NaN,"completion_tokens":1e999}}' % choices
    answer = OpenAI(Target("openai", model="m")).parse(Reply(200, {}, body))
    assert isinstance(answer, Answer)
    assert answer.usage == Usage()


@pytest.mark.parametrize(
    ("message", "finish", "text"),
    [
        ({"content": ""}, "stop", ""),
        ({"content": "A"}, "length", "A"),
        ({"content": "A"}, None, "A"),
        ({"content": "A"}, "eos", "A"),
        ({"content": "A", "tool_calls": [{}]}, "tool_calls", "A"),
        (
            {"content": [{"type": "thinking"}, {"type": "text", "text": "A"}, {"type": "text", "text": "B"}]},
            "stop",
            "AB",
        ),
    ],
)
def test_text_is_an_answer_however_it_ended(message: Any, finish: Any, text: str) -> None:
    answer = parse(chat(message, finish))
    assert isinstance(answer, Answer)
    assert (answer.value, answer.finish) == (text, finish or "")


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (
            chat({"content": None, "refusal": "I can't."}),
            ErrorKind.CONTENT_REFUSED,
            "the model refused: I can't.",
        ),
        (chat({"content": "half", "refusal": "No."}), ErrorKind.CONTENT_REFUSED, "No."),
        (chat(finish="content_filter"), ErrorKind.CONTENT_REFUSED, "content filter"),
        (chat({"content": None}, "content_filter: SAFETY"), ErrorKind.CONTENT_REFUSED, "content filter"),
        (chat({"content": None, "tool_calls": [{}]}, "tool_calls"), ErrorKind.BAD_REPLY, "tool"),
        (chat({"content": None, "function_call": {}}, "function_call"), ErrorKind.BAD_REPLY, "no text"),
        (chat({"content": "", "tool_calls": [{}]}), ErrorKind.BAD_REPLY, "tool"),
        (chat({"content": None}, "length"), ErrorKind.BAD_REPLY, "--max-tokens"),
        (chat({"content": ""}, "length"), ErrorKind.BAD_REPLY, "--max-tokens"),
        (chat({"content": None, "reasoning": "hm"}), ErrorKind.BAD_REPLY, "no text"),
        (chat(finish="abort"), ErrorKind.BAD_REPLY, "abort"),
        (chat(choices=[]), ErrorKind.BAD_REPLY, "no choices"),
        (chat(choices=None), ErrorKind.BAD_REPLY, "no choices"),
        (chat(choices=[5]), ErrorKind.BAD_REPLY, "no choices"),
        (chat(choices=[{"delta": {"content": "A"}}]), ErrorKind.BAD_REPLY, "no text"),
    ],
)
def test_what_is_no_success_is_kept_apart_and_its_usage_kept(body: Any, kind: ErrorKind, says: str) -> None:
    failure = parse(body)
    assert isinstance(failure, Failure)
    assert failure.kind is kind
    assert says in failure.message
    assert failure.usage == Usage(10, 5)
    assert failure.status == 200


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "M", "code": 502}, ErrorKind.SERVER_ERROR),
        ({"message": "M", "code": "429"}, ErrorKind.RATE_LIMITED),
        ({"message": "M", "code": "rate_limit_exceeded"}, ErrorKind.RATE_LIMITED),
        ({"message": "M", "type": "insufficient_quota"}, ErrorKind.QUOTA_EXHAUSTED),
        ({"message": "M", "code": "model_not_found"}, ErrorKind.NOT_FOUND),
        ({"message": "M", "type": "overloaded_error"}, ErrorKind.OVERLOADED),
        ({"message": "M"}, ErrorKind.BAD_REPLY),
        ("M", ErrorKind.BAD_REPLY),
    ],
)
@pytest.mark.parametrize("wrap", ["chat", "bare", "choice", "list"])
def test_an_error_inside_a_200_is_of_its_own_kind(error: Any, kind: ErrorKind, wrap: str) -> None:
    bodies = {
        "chat": chat(error=error),
        "bare": {"error": error},
        "choice": {"choices": [{"error": error}]},
        "list": [{"error": error}],
    }
    failure = parse(bodies[wrap])
    assert isinstance(failure, Failure)
    assert failure.kind is kind
    assert failure.message == "HTTP 200 with an error: M"


def test_completions_have_their_text_in_the_choice() -> None:
    body = {"model": "m-1", "choices": [{"text": "A", "finish_reason": "length"}], "usage": USAGE}
    assert parse(body, "completions") == Answer("A", Usage(10, 5), "m-1", "length")


def test_a_response_is_the_text_of_its_messages() -> None:
    parts = ({"type": "output_text", "text": "A"}, {"type": "output_text", "text": "B"})
    assert parse(response(*parts), "responses") == Answer("AB", Usage(10, 5, 4), "m-1", "completed")
    cut = parse(
        response(*parts, status="incomplete", incomplete_details={"reason": "max_output_tokens"}), "responses"
    )
    assert isinstance(cut, Answer) and cut.finish == "max_output_tokens"


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (response({"type": "refusal", "refusal": "No."}), ErrorKind.CONTENT_REFUSED, "No."),
        (
            response({"type": "output_text", "text": "A"}, incomplete_details={"reason": "content_filter"}),
            ErrorKind.CONTENT_REFUSED,
            "filter",
        ),
        (
            response(status="failed", error={"code": "server_error", "message": "M"}),
            ErrorKind.SERVER_ERROR,
            "M",
        ),
        (
            response(status="failed", error={"code": "rate_limit_exceeded", "message": "M"}),
            ErrorKind.RATE_LIMITED,
            "M",
        ),
        (
            response(status="failed", error={"code": "invalid_prompt", "message": "M"}),
            ErrorKind.CONTENT_REFUSED,
            "M",
        ),
        (response(status="failed"), ErrorKind.BAD_REPLY, "failed"),
        (response(status="queued"), ErrorKind.BAD_REPLY, "queued"),
        (response(status="cancelled"), ErrorKind.BAD_REPLY, "cancelled"),
        (
            response(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            ErrorKind.BAD_REPLY,
            "--max-tokens",
        ),
        (response(output=[{"type": "function_call"}]), ErrorKind.BAD_REPLY, "tool"),
        (response(output=[]), ErrorKind.BAD_REPLY, "no text"),
        (response(output=None), ErrorKind.BAD_REPLY, "no text"),
    ],
)
def test_a_response_of_status_200_may_be_none(body: Any, kind: ErrorKind, says: str) -> None:
    failure = parse(body, "responses")
    assert isinstance(failure, Failure)
    assert failure.kind is kind
    assert says in failure.message
    assert failure.usage.tokens_in == 10


def vectors(*embeddings: Any) -> dict[str, Any]:
    data = [
        {"object": "embedding", "index": number, "embedding": one} for number, one in enumerate(embeddings)
    ]
    return {"object": "list", "model": "e", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}}


def test_an_embedding_comes_as_floats_from_a_list_or_from_base64() -> None:
    expected = Answer([0.5, -1.0], Usage(3), "e")
    assert parse(vectors([0.5, -1]), "embeddings") == expected
    packed = array("f", [0.5, -1.0])
    assert parse(vectors(b64encode(packed.tobytes()).decode()), "embeddings") == expected


def test_several_embeddings_come_in_the_order_of_their_index() -> None:
    body = vectors([1.0], [2.0])
    body["data"].reverse()
    answer = parse(body, "embeddings")
    assert isinstance(answer, Answer) and answer.value == [[1.0], [2.0]]


@pytest.mark.parametrize(
    "embedding",
    [
        [],
        None,
        "",
        "====",
        "AAA=",
        "AAAAAAA=",
        ["x"],
        [None],
        [True],
        {"a": 1},
        b64encode(array("f", [float("nan")]).tobytes()).decode(),
    ],
)
def test_an_embedding_that_is_none_is_a_bad_reply(embedding: Any) -> None:
    failure = parse(vectors(embedding), "embeddings")
    assert isinstance(failure, Failure)
    assert failure.kind is ErrorKind.BAD_REPLY
    assert "embedding" in failure.message


@pytest.mark.parametrize("endpoint", ["chat", "responses", "embeddings", "completions"])
def test_a_reply_of_another_endpoint_is_understood_too(endpoint: str) -> None:
    for body, value in (
        (chat(), "A"),
        (response({"type": "output_text", "text": "R"}), "R"),
        (vectors([0.5]), [0.5]),
        ({"choices": [{"text": "C", "finish_reason": "stop"}]}, "C"),
    ):
        answer = parse(body, endpoint)
        assert isinstance(answer, Answer) and answer.value == value


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "is empty"),
        (b"data: {}\n\n", "event stream"),
        (b"<html><title>Sign in</title></html>", "an HTML page, 'Sign in'"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"choices": [', "not JSON"),
        (b"5", "no object"),
        (b'{"hello": 1}', "its fields are: hello"),
    ],
)
def test_a_200_that_is_something_else_says_what_it_is(body: bytes, says: str) -> None:
    failure = OpenAI(Target("openai", model="m")).parse(Reply(200, {}, body))
    assert isinstance(failure, Failure)
    assert failure.kind is ErrorKind.BAD_REPLY
    assert says in failure.message
