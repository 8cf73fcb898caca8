"""Ollama's own API."""

import json
from typing import Any

import pytest

from engine.core.errors import ErrorKind, UsageError
from engine.core.model import Answer, Ask, Charge, Failure, Reply, Target, Usage
from engine.providers.ollama import Ollama


def made(**fields: Any) -> Ollama:
    return Ollama(Target("ollama", **{"model": "llama", **fields}))


def reply(**changes: Any) -> Reply:
    body = {
        "model": "llama",
        "message": {"role": "assistant", "content": "A", "thinking": "hm"},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 10,
        "eval_count": 5,
    }
    return Reply(200, {}, json.dumps({**body, **changes}).encode())


@pytest.mark.parametrize(
    "base_url", ["", "http://127.0.0.1:11434/", "http://127.0.0.1:11434/v1", "http://127.0.0.1:11434/api"]
)
def test_chat_is_asked_in_one_piece_with_its_options(base_url: str) -> None:
    schema = {"type": "object"}
    provider = made(
        base_url=base_url, max_tokens=7, temperature=0.0, schema=schema, params={"options": {"num_ctx": 4096}}
    )
    call = provider.build(Ask(prompt="Q", system="S"))
    assert call.url == "http://127.0.0.1:11434/api/chat"
    assert json.loads(call.body or b"") == {
        "model": "llama",
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
        "stream": False,
        "options": {"num_predict": 7, "temperature": 0.0, "num_ctx": 4096},
        "format": schema,
    }
    assert call.charge == Charge(1, 7, 7)


def test_embeddings_have_their_own_url_and_no_options() -> None:
    call = made(endpoint="embeddings").build(Ask(prompt="Q"))
    assert call.url == "http://127.0.0.1:11434/api/embed"
    assert json.loads(call.body or b"") == {"model": "llama", "input": "Q"}


def test_a_line_adds_its_options_to_the_jobs() -> None:
    line = {"messages": [], "options": {"temperature": 1}}
    call = made(max_tokens=7, temperature=0.0).build(Ask(body=line, path="/api/chat"))
    body = json.loads(call.body or b"")
    assert body["options"] == {"num_predict": 7, "temperature": 1}
    assert body["stream"] is False


def test_other_endpoints_are_refused() -> None:
    with pytest.raises(UsageError, match="no endpoint"):
        made(endpoint="responses")


def test_an_answer_has_its_counts_and_its_end() -> None:
    assert made().parse(reply()) == Answer("A", Usage(10, 5, -1), "llama", "stop")
    cut = made().parse(reply(done_reason="length"))
    assert isinstance(cut, Answer) and cut.finish == "length"


def test_one_vector_is_an_answer_and_several_are_a_list() -> None:
    provider = made(endpoint="embeddings")
    one = provider.parse(Reply(200, {}, b'{"model":"e","embeddings":[[0.5,1]],"prompt_eval_count":3}'))
    assert one == Answer([0.5, 1.0], Usage(3, -1, -1), "e")
    two = provider.parse(Reply(200, {}, b'{"embeddings":[[0.5],[1]]}'))
    assert isinstance(two, Answer) and two.value == [[0.5], [1.0]]


@pytest.mark.parametrize(
    "body", [b'{"embeddings":[]}', b'{"embeddings":[["x"]]}', b'{"embeddings":[[]]}', b'{"embeddings":5}']
)
def test_a_reply_without_a_vector_is_a_bad_reply(body: bytes) -> None:
    failure = made(endpoint="embeddings").parse(Reply(200, {}, body))
    assert isinstance(failure, Failure)
    assert failure.kind is ErrorKind.BAD_REPLY


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"error": "an error was encountered"}, ErrorKind.BAD_REPLY, "an error was encountered"),
        ({"done": False}, ErrorKind.BAD_REPLY, "stream"),
        ({"message": {"content": "", "tool_calls": [{}]}}, ErrorKind.BAD_REPLY, "tool"),
        ({"message": {"content": ""}, "done_reason": "length"}, ErrorKind.BAD_REPLY, "--max-tokens"),
        ({"message": {"content": ""}, "done_reason": "load"}, ErrorKind.BAD_REPLY, "load"),
        ({"message": None}, ErrorKind.BAD_REPLY, "no text"),
    ],
)
def test_a_200_that_is_no_answer_says_why(changes: Any, kind: ErrorKind, says: str) -> None:
    failure = made().parse(reply(**changes))
    assert isinstance(failure, Failure)
    assert failure.kind is kind
    assert says in failure.message
