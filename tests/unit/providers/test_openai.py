"""OpenAI's bodies, at OpenAI and elsewhere."""

import json
from typing import Any

import pytest

from engine.core.errors import ErrorKind, RowError, UsageError
from engine.core.model import Ask, Charge, Target
from engine.providers.openai import OpenAI, limit_field

SCHEMA = {
    "type": "object",
    "properties": {"field": {"type": "string"}},
    "required": ["field"],
    "additionalProperties": False,
}


def made(**fields: Any) -> OpenAI:
    return OpenAI(Target("openai", **{"model": "gpt-4o-mini", **fields}))


def body_of(provider: OpenAI, ask: Ask) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(provider.build(ask).body or b"")
    return decoded


@pytest.mark.parametrize(
    ("endpoint", "path", "body"),
    [
        ("chat", "/chat/completions", {"messages": [{"role": "user", "content": "Q"}]}),
        ("responses", "/responses", {"input": "Q"}),
        ("embeddings", "/embeddings", {"input": "Q"}),
        ("completions", "/completions", {"prompt": "Q"}),
    ],
)
def test_each_endpoint_has_its_url_and_its_place_for_the_question(
    endpoint: str, path: str, body: Any
) -> None:
    provider = made(endpoint=endpoint)
    call = provider.build(Ask(prompt="Q"))
    assert call.url == "https://api.openai.com/v1" + path
    assert call.headers == (("content-type", "application/json"),)
    assert json.loads(call.body or b"") == {"model": "gpt-4o-mini", **body}


def test_responses_have_instructions_and_conversations_as_input() -> None:
    provider = made(endpoint="responses")
    assert body_of(provider, Ask(prompt="Q", system="S")) == {
        "model": "gpt-4o-mini",
        "instructions": "S",
        "input": "Q",
    }
    turns = [{"role": "user", "content": "Q"}]
    assert body_of(provider, Ask(messages=turns, system="S"))["input"] == turns


def test_a_base_url_is_used_as_it_is_given() -> None:
    assert made(base_url="http://127.0.0.1:8000/v1/").build(Ask(prompt="Q")).url == (
        "http://127.0.0.1:8000/v1/chat/completions"
    )
    assert (
        made(base_url="https://host.example").build(Ask(prompt="Q")).url
        == "https://host.example/chat/completions"
    )


@pytest.mark.parametrize(
    ("host", "model", "field"),
    [
        ("api.openai.com", "gpt-4o-mini", "max_tokens"),
        ("api.openai.com", "gpt-4.1", "max_tokens"),
        ("api.openai.com", "gpt-3.5-turbo", "max_tokens"),
        ("api.openai.com", "ft:gpt-4o-mini-2024-07-18:me::x", "max_tokens"),
        ("api.openai.com", "o1-preview", "max_completion_tokens"),
        ("api.openai.com", "o3", "max_completion_tokens"),
        ("api.openai.com", "o4-mini", "max_completion_tokens"),
        ("api.openai.com", "gpt-5.4-mini", "max_completion_tokens"),
        ("eu.api.openai.com", "gpt-5", "max_completion_tokens"),
        ("api.openai.com", "some-later-model", "max_completion_tokens"),
        ("me.openai.azure.com", "gpt-5-mini", "max_completion_tokens"),
        ("me.openai.azure.com", "prod-gpt-35-turbo", "max_tokens"),
        ("127.0.0.1", "gpt-5", "max_tokens"),
        ("api.groq.com", "openai/gpt-oss-120b", "max_tokens"),
        ("notapi.openai.com.evil.example", "o3", "max_tokens"),
    ],
)
def test_the_limits_name_follows_host_and_family(host: str, model: str, field: str) -> None:
    assert limit_field(host, model) == field
    base_url = f"https://{host}/v1"
    assert body_of(made(base_url=base_url, model=model, max_tokens=9), Ask(prompt="Q"))[field] == 9


def test_other_endpoints_name_their_limit_themselves() -> None:
    assert body_of(made(endpoint="responses", max_tokens=9), Ask(prompt="Q"))["max_output_tokens"] == 9
    assert body_of(made(endpoint="completions", model="o3", max_tokens=9), Ask(prompt="Q"))["max_tokens"] == 9


def test_params_win_over_settings_also_over_a_limit_of_another_name() -> None:
    provider = made(
        max_tokens=9, temperature=0.0, params={"max_completion_tokens": 5, "temperature": 1, "top_p": 0.5}
    )
    body = body_of(provider, Ask(prompt="Q"))
    assert body["max_completion_tokens"] == 5 and "max_tokens" not in body
    assert body["temperature"] == 1 and body["top_p"] == 0.5
    assert provider.build(Ask(prompt="Q")).charge.tokens_out == 5


def test_a_schema_is_asked_for_in_each_endpoints_own_place() -> None:
    shape = {"name": "answer", "schema": SCHEMA, "strict": True}
    chat = body_of(made(schema=SCHEMA), Ask(prompt="Q"))
    assert chat["response_format"] == {"type": "json_schema", "json_schema": shape}
    responses = body_of(
        made(endpoint="responses", schema=SCHEMA, params={"text": {"verbosity": "low"}}), Ask(prompt="Q")
    )
    assert responses["text"] == {"format": {"type": "json_schema", **shape}, "verbosity": "low"}
    loose = body_of(made(base_url="http://127.0.0.1:1/v1", schema={"type": "object"}), Ask(prompt="Q"))
    assert loose["response_format"]["json_schema"]["strict"] is False


def test_a_call_costs_the_larger_of_prompt_and_limit() -> None:
    assert made().build(Ask(prompt="x" * 400)).charge == Charge(100, 0, 100)
    assert made(max_tokens=500).build(Ask(prompt="x" * 400, system="y" * 4)).charge == Charge(101, 500, 500)
    assert made(endpoint="completions").build(Ask(prompt="x")).charge == Charge(1, 16, 16)
    messages = [{"role": "user", "content": "x" * 40}]
    assert made().build(Ask(messages=messages, system="y" * 4)).charge == Charge(11, 0, 11)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"endpoint": "images"}, "no endpoint"),
        ({"api_version": "2024-10-21"}, "--api-version"),
        ({"params": {"messages": []}}, "every row's own"),
        ({"params": {"stream": True}}, "stream"),
        ({"endpoint": "embeddings", "max_tokens": 5}, "--max-tokens"),
        ({"endpoint": "embeddings", "temperature": 0.0}, "--temperature"),
        ({"max_tokens": 0}, "at least 1"),
        ({"base_url": "localhost:1"}, "base URL"),
    ],
)
def test_a_target_that_cannot_work_is_refused_with_a_sentence(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        made(**fields)


@pytest.mark.parametrize(
    ("fields", "ask", "says"),
    [
        ({"endpoint": "embeddings"}, Ask(prompt="Q", system="S"), "no system prompt"),
        ({"endpoint": "embeddings"}, Ask(messages=[{"role": "user", "content": "Q"}]), "not messages"),
        ({"endpoint": "embeddings"}, Ask(prompt=""), "no text to embed"),
        ({"endpoint": "completions"}, Ask(prompt="Q", system="S"), "no system prompt"),
        (
            {"endpoint": "responses", "params": {"instructions": "P"}},
            Ask(prompt="Q", system="S"),
            "two system prompts",
        ),
        ({"model": ""}, Ask(prompt="Q"), "--model"),
        ({}, Ask(body={"stream": True}, path="/v1/chat/completions"), "stream"),
        ({}, Ask(body={"model": 5}, path="/v1/chat/completions"), "model is not a string"),
        ({"model": ""}, Ask(body={}, path="/v1/chat/completions"), "--model"),
    ],
)
def test_an_ask_that_cannot_be_sent_fails_its_row_with_a_sentence(
    fields: dict[str, Any], ask: Ask, says: str
) -> None:
    with pytest.raises(RowError, match=says) as raised:
        made(**fields).build(ask)
    assert raised.value.kind in (ErrorKind.BAD_REQUEST, ErrorKind.BAD_INPUT)


def test_instructions_among_the_params_hold_where_there_is_no_system_prompt() -> None:
    provider = made(endpoint="responses", params={"instructions": "P"})
    assert body_of(provider, Ask(prompt="Q"))["instructions"] == "P"


def test_a_server_with_one_model_needs_no_name_of_it() -> None:
    provider = made(base_url="http://127.0.0.1:8080/v1", model="")
    assert "model" not in body_of(provider, Ask(prompt="Q"))
    assert "model" not in body_of(provider, Ask(body={"messages": []}, path="/v1/chat/completions"))


def test_lines_of_a_batch_choose_their_endpoint_and_share_its_url() -> None:
    provider = made(max_tokens=9, temperature=0.5, schema=SCHEMA)
    chat, embed = "/v1/chat/completions", "/v1/embeddings"
    first = provider.build(Ask(body={"messages": []}, path=chat))
    second = provider.build(Ask(body={"input": "x"}, path=embed))
    third = provider.build(Ask(body={"input": "y"}, path=embed))
    assert first.url == "https://api.openai.com/v1/chat/completions"
    assert second.url == "https://api.openai.com/v1/embeddings"
    assert second.url is third.url
    assert json.loads(second.body or b"") == {"model": "gpt-4o-mini", "input": "x"}  # no limit, no schema
    assert json.loads(first.body or b"")["max_tokens"] == 9


def test_a_lines_own_limit_and_format_replace_the_jobs_under_any_name() -> None:
    provider = made(max_tokens=9, schema=SCHEMA)
    line = {"messages": [], "max_completion_tokens": 3, "response_format": {"type": "text"}}
    call = provider.build(Ask(body=line, path="/v1/chat/completions"))
    assert json.loads(call.body or b"") == {"model": "gpt-4o-mini", **line}
    assert call.charge.tokens_out == 3


def test_a_lines_model_decides_the_name_of_the_jobs_limit() -> None:
    call = made(max_tokens=9).build(Ask(body={"model": "o3", "messages": []}, path="/v1/chat/completions"))
    assert json.loads(call.body or b"")["max_completion_tokens"] == 9


@pytest.mark.parametrize("limit", [-5, 10**30, "many", None, True, [1]])
def test_a_hostile_limit_in_a_line_is_charged_within_bounds(limit: Any) -> None:
    call = made().build(Ask(body={"messages": [], "max_tokens": limit}, path="/v1/chat/completions"))
    assert 0 <= call.charge.tokens <= 10**9


def test_placeholders_of_the_frame_never_reach_a_body() -> None:
    for endpoint in ("chat", "responses"):
        call = made(endpoint=endpoint, max_tokens=5, schema=SCHEMA).build(Ask(prompt="Q", system="S"))
        assert b"of a row" not in (call.body or b"")
        assert json.loads(call.body or b"")["model"] == "gpt-4o-mini"
