"""What holds of every provider in the table, whatever it is. A new line in PROVIDERS needs a line in SAMPLES."""

import json
from copy import deepcopy
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import ErrorKind, RowError
from engine.core.model import Answer, Ask, Failure, Reply, Target
from engine.providers import PROVIDERS, make_provider
from engine.providers.base import Provider

CANARY = "sk-canary-0123456789abcdef"


class Sample(NamedTuple):
    """A provider as the suite makes it, and a good reply of it."""

    target: Target
    asks: tuple[Ask, ...]
    good: bytes
    value: Any


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


QUESTIONS = (
    Ask(prompt="What is it?"),
    Ask(prompt="What is it?", system="Be brief."),
    Ask(messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is it?"}]),
    Ask(messages=[{"role": "user", "content": "What is it?"}], system="Be brief."),
)
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "m-1",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "networks", "refusal": None},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m-1",
    "content": [{"type": "text", "text": "networks"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 10, "output_tokens": 5},
}
OLLAMA = {
    "model": "m-1",
    "message": {"role": "assistant", "content": "networks"},
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 10,
    "eval_count": 5,
}
SAMPLES: dict[str, Sample] = {
    "openai": Sample(Target("openai", model="m-1"), QUESTIONS, _json(CHAT), "networks"),
    "azure": Sample(
        Target("azure", base_url="https://me.openai.azure.com", model="dep", api_version="2024-10-21"),
        QUESTIONS,
        _json(CHAT),
        "networks",
    ),
    "anthropic": Sample(Target("anthropic", model="m-1"), QUESTIONS, _json(MESSAGE), "networks"),
    "ollama": Sample(Target("ollama", model="m-1"), QUESTIONS, _json(OLLAMA), "networks"),
    "http": Sample(
        Target(
            "http", base_url="https://api.example.org/items/{{ id }}", method="POST", select="result.0.name"
        ),
        (
            Ask(url="https://api.example.org/items/1", headers=(("x-kind", "a"),), content=b'{"a":1}'),
            Ask(url="https://api.example.org/items/1"),
        ),
        _json({"result": [{"name": "networks"}]}),
        "networks",
    ),
    "mock": Sample(Target("mock", base_url="http://127.0.0.1:4321/v1"), QUESTIONS, _json(CHAT), "networks"),
}
NAMES = sorted(PROVIDERS)
MADE: dict[str, Provider] = {name: make_provider(sample.target) for name, sample in SAMPLES.items()}
JSON_MADE = sorted(name for name in NAMES if name != "http")

every_provider = pytest.mark.parametrize("name", NAMES)
every_json_provider = pytest.mark.parametrize("name", JSON_MADE)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**18, -1, -(10**30), 10**400, 2**63, 0, 1])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["stop", "length", "content_filter", "error", "\ud83d", "", "text", "AAAAAA=="]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "message",
                    "content",
                    "text",
                    "finish_reason",
                    "refusal",
                    "usage",
                    "prompt_tokens",
                    "output",
                    "data",
                    "embedding",
                    "error",
                    "code",
                    "type",
                    "status",
                    "details",
                    "done",
                    "done_reason",
                    "embeddings",
                    "stop_reason",
                    "model",
                    "result",
                    "name",
                ]
            )
            | st.text(max_size=6),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)
statuses = st.sampled_from([200, 200, 200, 201, 204]) | st.integers(100, 599)
header_values = st.text(max_size=30) | st.sampled_from(
    [
        "-1",
        "0",
        "nan",
        "inf",
        "1e9",
        "1000000000",
        "5",
        "0.5",
        "644ms",
        "6m0s",
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "9" * 40,
    ]
)
headers = st.dictionaries(
    st.sampled_from(
        [
            "retry-after",
            "retry-after-ms",
            "date",
            "content-type",
            "x-should-retry",
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-tokens",
            "anthropic-ratelimit-requests-remaining",
            "anthropic-ratelimit-requests-reset",
        ]
    ),
    header_values,
    max_size=5,
)


def check_result(result: Answer | Failure, reply: Reply) -> None:
    """What is true of anything a provider makes of a reply."""
    assert isinstance(result, (Answer, Failure))
    assert all(-1 <= count <= 10**9 and type(count) is int for count in result.usage)
    if isinstance(result, Answer):
        assert 200 <= reply.status < 300
        assert len(result.model) <= 200 and len(result.finish) <= 200
        msgspec.json.encode([result.value, result.model])  # it can be written to the output
        return
    assert isinstance(result.kind, ErrorKind)
    assert result.status == reply.status
    assert 0 < len(result.message) <= 500 and result.message.isprintable()
    assert result.wait_s is None or 0.0 < result.wait_s <= 120.0


def test_every_provider_in_the_table_has_a_sample_here() -> None:
    assert sorted(SAMPLES) == NAMES


@every_provider
def test_a_call_goes_to_the_origin_the_provider_names(name: str) -> None:
    provider = MADE[name]
    for ask in SAMPLES[name].asks:
        call = provider.build(ask)
        assert call.url.startswith(provider.origin + "/")
        assert call.method == "POST"


@every_provider
def test_a_call_holds_no_key_and_no_header_for_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    auth = MADE[name].auth
    if auth is not None:
        monkeypatch.setenv(auth.environment, CANARY)
    provider = make_provider(SAMPLES[name].target)
    for ask in SAMPLES[name].asks:
        call = provider.build(ask)
        assert CANARY not in repr(call)
        assert auth is None or auth.header.lower() not in {header.lower() for header, _ in call.headers}


@every_provider
def test_calls_of_one_job_share_their_headers_and_constant_urls(name: str) -> None:
    provider = MADE[name]
    sample = SAMPLES[name]
    first, second = provider.build(sample.asks[0]), provider.build(sample.asks[0])
    assert first.headers is second.headers
    assert first.url is second.url
    assert first == second


@every_json_provider
def test_all_questions_of_a_job_share_headers_and_url(name: str) -> None:
    calls = [MADE[name].build(ask) for ask in SAMPLES[name].asks]
    assert all(call.headers is calls[0].headers and call.url is calls[0].url for call in calls)


@every_json_provider
@given(prompt=st.text(max_size=200), system=st.none() | st.text(min_size=1, max_size=50))
def test_a_rendered_text_arrives_in_the_body_as_it_is(name: str, prompt: str, system: str | None) -> None:
    call = MADE[name].build(Ask(prompt=prompt, system=system))
    assert call.body is not None
    body = json.loads(call.body)
    assert body["messages"][-1] == {"role": "user", "content": prompt}
    assert system is None or system in (body.get("system"), body["messages"][0]["content"])
    assert body["model"]


@every_json_provider
def test_a_conversation_arrives_in_the_body_in_its_order(name: str) -> None:
    turns = [{"role": role, "content": f"turn {n}"} for n, role in enumerate(("user", "assistant", "user"))]
    call = MADE[name].build(Ask(messages=turns))
    assert json.loads(call.body or b"")["messages"] == turns


@every_json_provider
@pytest.mark.parametrize(
    "ask",
    [
        Ask(prompt="half an emoji \ud83d"),
        Ask(prompt="fine", system="\udc00"),
        Ask(messages=[{"role": "user", "content": "\ud83d"}]),
        Ask(messages=[{"role": "user", "content": object()}]),
    ],
)
def test_text_that_is_not_unicode_fails_its_row_and_nothing_else(name: str, ask: Ask) -> None:
    with pytest.raises(RowError) as raised:
        MADE[name].build(ask)
    assert raised.value.kind in (ErrorKind.TEMPLATE_ERROR, ErrorKind.BAD_INPUT)


@every_provider
def test_an_ask_that_the_provider_cannot_send_fails_its_row(name: str) -> None:
    with pytest.raises(RowError):
        MADE[name].build(Ask())


@every_json_provider
@given(size=st.integers(0, 5_000))
def test_ascii_text_is_charged_a_quarter_token_per_character(name: str, size: int) -> None:
    charge = MADE[name].build(Ask(prompt="x" * size)).charge
    assert charge.tokens_in == -(-size // 4)
    assert charge.tokens >= max(charge.tokens_in, charge.tokens_out)


@every_json_provider
@given(limit=st.integers(1, 10**9))
def test_the_limit_on_the_answer_is_part_of_the_charge(name: str, limit: int) -> None:
    fields = {
        field: getattr(SAMPLES[name].target, field)
        for field in ("provider", "base_url", "model", "api_version")
    }
    charge = make_provider(Target(**fields, max_tokens=limit)).build(Ask(prompt="abcd")).charge
    assert charge.tokens_out == limit
    assert limit <= charge.tokens <= 10**9


@every_json_provider
@pytest.mark.parametrize("text", ["漢字" * 50, "Привет, мир", "naïve", "🙂" * 9])
def test_text_beyond_ascii_is_charged_a_quarter_token_per_byte(name: str, text: str) -> None:
    assert MADE[name].build(Ask(prompt=text)).charge.tokens_in == -(-len(text.encode()) // 4)


@every_provider
def test_a_good_reply_is_an_answer(name: str) -> None:
    result = MADE[name].parse(Reply(200, {}, SAMPLES[name].good))
    assert isinstance(result, Answer)
    assert result.value == SAMPLES[name].value


@every_json_provider
def test_a_good_reply_states_usage_model_and_why_it_ended(name: str) -> None:
    result = MADE[name].parse(Reply(200, {}, SAMPLES[name].good))
    assert isinstance(result, Answer)
    assert result.usage[:2] == (10, 5)
    assert result.model == "m-1"
    assert result.finish in ("stop", "end_turn")


@every_provider
@given(status=statuses, headers=headers, body=st.binary(max_size=300))
@settings(max_examples=60)
def test_no_bytes_make_a_provider_raise(name: str, status: int, headers: dict[str, str], body: bytes) -> None:
    reply = Reply(status, headers, body)
    check_result(MADE[name].parse(reply), reply)


@every_provider
@given(status=statuses, headers=headers, value=json_values)
@settings(max_examples=60)
def test_no_json_makes_a_provider_raise(name: str, status: int, headers: dict[str, str], value: Any) -> None:
    reply = Reply(status, headers, _json(value))
    check_result(MADE[name].parse(reply), reply)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [place for key, element in inner for place in _places(element, (*path, key))]


@every_provider
@given(data=st.data())
@settings(max_examples=60)
def test_a_good_reply_with_one_field_replaced_makes_no_provider_raise(name: str, data: st.DataObject) -> None:
    value = {"": json.loads(SAMPLES[name].good)}
    *way, last = data.draw(st.sampled_from([place for place in _places(value) if place]))
    mutated: Any = deepcopy(value)
    holder = mutated
    for key in way:
        holder = holder[key]
    if data.draw(st.booleans()):
        holder[last] = data.draw(json_values)
    elif isinstance(holder, dict):
        del holder[last]
    reply = Reply(200, {}, _json(mutated.get("")))
    check_result(MADE[name].parse(reply), reply)


@every_provider
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"error":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"usage":' + b"9" * 5_000 + b"}",
        b'{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1e999}}',
        b'{"usage":{"prompt_tokens":NaN}}',
        b"\xff\xfe\x00",
        b"\xef\xbb\xbf{}",
        b"null",
        b"\x00" * 1000,
        b'data: {"choices":[]}\n\ndata: [DONE]\n\n',
        b"<html><head><title>502 Bad Gateway</title></head></html>",
        b"<" * 50_000,
        b'{"error":"' + b"x" * 400_000 + b'"}',
    ],
    ids=range(16),
)
@pytest.mark.parametrize("status", [200, 400, 429, 502])
def test_a_hostile_body_is_a_short_failure_or_a_text(name: str, body: bytes, status: int) -> None:
    reply = Reply(status, {}, body)
    check_result(MADE[name].parse(reply), reply)


@every_json_provider
@pytest.mark.parametrize(
    "body", [b"", b"{}", b"null", b"[]", b"<html>", b'{"usage":{"prompt_tokens":1}}', b'"text"']
)
def test_a_200_without_an_answer_is_a_bad_reply(name: str, body: bytes) -> None:
    result = MADE[name].parse(Reply(200, {}, body))
    assert isinstance(result, Failure)
    assert result.kind is ErrorKind.BAD_REPLY


@every_json_provider
def test_an_error_inside_a_200_is_no_answer(name: str) -> None:
    good = json.loads(SAMPLES[name].good)
    good["error"] = {"message": "The engine is overloaded", "type": "server_error"}
    result = MADE[name].parse(Reply(200, {}, _json(good)))
    assert isinstance(result, Failure)
    assert result.kind is ErrorKind.SERVER_ERROR


@every_json_provider
def test_half_an_emoji_in_an_answer_is_mended_so_that_it_can_be_written(name: str) -> None:
    broken = SAMPLES[name].good.replace(b'"networks"', b'"networks \\ud83d"')
    result = MADE[name].parse(Reply(200, {}, broken))
    assert isinstance(result, Answer)
    assert result.value == "networks \ufffd"


@every_json_provider
def test_a_batch_line_wins_over_the_job_and_gets_only_what_it_leaves_out(name: str) -> None:
    sample = SAMPLES[name]
    path = {"anthropic": "/v1/messages", "ollama": "/api/chat"}.get(name, "/v1/chat/completions")
    fields = {
        field: getattr(sample.target, field) for field in ("provider", "base_url", "model", "api_version")
    }
    provider = make_provider(Target(**fields, temperature=0.5, params={"top_p": 0.9, "seed": 7}))
    line = {"messages": [{"role": "user", "content": "hi"}], "model": "own", "top_p": 0.1}
    call = provider.build(Ask(body=line, path=path))
    body = json.loads(call.body or b"")
    assert body["model"] == "own"
    assert body["messages"] == line["messages"]
    assert body["top_p"] == 0.1
    assert body["seed"] == 7
    assert (body.get("options") or body)["temperature"] == 0.5
    assert call.url.startswith(provider.origin + "/")
    assert line == {"messages": [{"role": "user", "content": "hi"}], "model": "own", "top_p": 0.1}


@every_json_provider
@pytest.mark.parametrize(
    "path", ["", "/v1/moderations", "/v1/files", "//evil.example/v1/chat/completions", "/v1/../x"]
)
def test_a_batch_line_of_another_path_fails_its_row(name: str, path: str) -> None:
    with pytest.raises(RowError) as raised:
        MADE[name].build(Ask(body={"messages": []}, path=path))
    assert raised.value.kind is ErrorKind.BAD_REQUEST
