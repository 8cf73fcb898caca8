"""Questions to a model: how a row becomes one, and what becomes of the reply."""

import json
from typing import Any

import pytest

from engine.config import StepSettings
from engine.core.errors import ErrorKind, RowError, UsageError
from engine.core.model import Failure, Target, Usage
from engine.steps import make_step
from engine.steps.ask import ANSWER_CHARS_MAX
from engine.steps.base import Again, Done

SCHEMA = {"type": "object", "properties": {"field": {"enum": ["a", "b"]}}, "required": ["field"]}


def step(provider: Any, *, schema: Any = None, endpoint: str = "chat", **settings: Any) -> Any:
    target = Target(provider="openai", endpoint=endpoint, schema=schema)
    return make_step("ask", StepSettings(**settings), target, provider)


def test_prompt_and_system_are_rendered_from_the_row(provider: Any, reply: Any) -> None:
    asking = step(provider, prompt="Q: {{ text }}", system="In {{ lang }}").start(
        {"text": "{{ x }}", "lang": "de"}
    )
    assert (provider.asks[0].prompt, provider.asks[0].system) == ("Q: {{ x }}", "In de")
    assert asking.absorb(reply("yes")) == Done({"response": "yes"}, Usage(3, 2), "model-1")


def test_the_step_names_its_columns_before_any_row(provider: Any) -> None:
    ask = step(provider, prompt="{{ a }}{{ row['b c'] }}", system="{{ d }}", into="out")
    assert ask.columns == {"a", "b c", "d"}
    assert ask.answer_columns == ("out",)
    assert step(provider, messages="conversation").columns == {"conversation"}
    assert step(provider, batch_lines=True).columns == frozenset()
    assert step(provider, batch_lines=True, batch_output=True).answer_columns == (
        "status_code",
        "request_id",
        "body",
    )


@pytest.mark.parametrize(
    "settings", [{}, {"prompt": "x", "messages": "y"}, {"prompt": "x", "batch_lines": True}]
)
def test_there_is_exactly_one_source_of_the_question(provider: Any, settings: Any) -> None:
    with pytest.raises(UsageError, match="exactly one source"):
        step(provider, **settings)


def test_a_conversation_is_passed_on_with_all_its_keys(provider: Any) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "n"},
        {"role": "assistant", "content": None, "tool_calls": [{}]},
        {"role": "tool", "content": "4", "tool_call_id": "1"},
    ]
    ask = step(provider, messages="talk")
    ask.start({"talk": messages})
    ask.start({"talk": json.dumps(messages)})
    assert [asked.messages for asked in provider.asks] == [messages, messages]


def test_a_rows_own_system_message_wins_over_the_jobs(provider: Any) -> None:
    ask = step(provider, messages="talk", system="S{{ n }}")
    ask.start({"talk": [{"role": "user", "content": "hi"}], "n": 1})
    ask.start({"talk": [{"role": "system", "content": "mine"}, {"role": "user", "content": "hi"}], "n": 1})
    assert [asked.system for asked in provider.asks] == ["S1", None]


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"talk": None},
        {"talk": []},
        {"talk": "hello"},
        {"talk": "[" * 100_000},
        {"talk": "{}"},
        {"talk": {"role": "user", "content": "x"}},
        {"talk": ["x"]},
        {"talk": [{"content": "x"}]},
        {"talk": [{"role": 1, "content": "x"}]},
        {"talk": [{"role": "user"}]},
        {"talk": [{"role": "user", "content": 5}]},
    ],
)
def test_a_column_that_holds_no_conversation_fails_the_row(provider: Any, row: Any) -> None:
    with pytest.raises(RowError) as caught:
        step(provider, messages="talk").start(row)
    assert caught.value.kind is ErrorKind.BAD_INPUT
    assert "'talk'" in caught.value.message


LINE = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": []}}


def test_a_batch_line_leads_with_its_own_body_and_path(provider: Any, reply: Any) -> None:
    asking = step(provider, batch_lines=True).start(LINE)
    assert (provider.asks[0].body, provider.asks[0].path) == (LINE["body"], LINE["url"])
    assert asking.absorb(reply("yes")).fields == {"response": "yes"}


@pytest.mark.parametrize("header", ["x-request-id", "request-id", "apim-request-id"])
def test_batch_output_gets_the_reply_as_it_came(provider: Any, reply: Any, header: str) -> None:
    asking = step(provider, batch_lines=True, batch_output=True).start(LINE)
    done = asking.absorb(reply(b'{ "raw" : 1}', **{header: "req_7"}))
    assert done.fields == {"status_code": 200, "request_id": "req_7", "body": b'{ "raw" : 1}'}


@pytest.mark.parametrize(
    "change",
    [
        {"custom_id": None},
        {"custom_id": 5},
        {"method": "GET"},
        {"url": None},
        {"url": "http://elsewhere/v1"},
        {"url": "//elsewhere/v1"},
        {"body": "{}"},
        {"body": None},
    ],
)
def test_a_batch_line_that_is_none_fails_as_bad_input(provider: Any, change: Any) -> None:
    with pytest.raises(RowError) as caught:
        step(provider, batch_lines=True).start({**LINE, **change})
    assert caught.value.kind is ErrorKind.BAD_INPUT


def test_a_bad_reply_asks_the_same_again(provider: Any, reply: Any) -> None:
    asking = step(provider, prompt="x").start({})
    again = asking.absorb(reply("!"))
    assert isinstance(again, Again)
    assert again.call is asking.call
    assert again.failure.kind is ErrorKind.BAD_REPLY


def test_other_failures_are_passed_on(provider: Any, reply: Any) -> None:
    asking = step(provider, prompt="x").start({})
    assert asking.absorb(reply("", status=500)) == Failure(ErrorKind.SERVER_ERROR, "broken", status=500)


def test_an_answer_that_fits_the_schema_becomes_columns(provider: Any, reply: Any) -> None:
    asking = step(provider, prompt="x", schema=SCHEMA).start({})
    assert asking.absorb(reply('{"field": "a", "more": 1}')).fields == {"field": "a"}


def test_a_mismatch_is_asked_again_with_what_the_validator_says(provider: Any, reply: Any) -> None:
    asking = step(provider, prompt="x", system="s", schema=SCHEMA).start({})
    again = asking.absorb(reply('{"field": "c"}'))
    assert isinstance(again, Again)
    assert (again.failure.kind, again.failure.usage) == (ErrorKind.SCHEMA_MISMATCH, Usage(3, 2))
    asked = provider.asks[1]
    assert asked.system == "s"
    assert [message["role"] for message in asked.messages] == ["user", "assistant", "user"]
    assert [message["content"] for message in asked.messages[:2]] == ["x", '{"field": "c"}']
    assert again.failure.message in asked.messages[2]["content"]
    assert '"enum":["a","b"]' in asked.messages[2]["content"]
    assert asking.absorb(reply('{"field": "b"}')).fields == {"field": "b"}


def test_asking_again_does_not_make_the_conversation_longer_each_time(provider: Any, reply: Any) -> None:
    asking = step(provider, prompt="x", schema=SCHEMA).start({})
    for answer in ("one", "two", "z" * 50_000):
        asking.absorb(reply(answer))
    assert [len(asked.messages) for asked in provider.asks[1:]] == [3, 3, 3]
    assert provider.asks[2].messages[1]["content"] == "two"
    assert len(provider.asks[3].messages[1]["content"]) == ANSWER_CHARS_MAX


def test_a_bad_reply_to_a_re_ask_repeats_the_re_ask(provider: Any, reply: Any) -> None:
    asking = step(provider, prompt="x", schema=SCHEMA).start({})
    again = asking.absorb(reply("no json"))
    assert asking.absorb(reply("!")).call is again.call


def test_a_conversation_and_batch_bodies_are_extended_in_their_own_place(provider: Any, reply: Any) -> None:
    talk = [{"role": "user", "content": "hi"}]
    step(provider, messages="talk", schema=SCHEMA).start({"talk": talk}).absorb(reply("?"))
    assert provider.asks[-1].messages[:2] == [*talk, {"role": "assistant", "content": "?"}]
    for url, body in (("/v1/chat/completions", {"messages": talk}), ("/v1/responses", {"input": "hi"})):
        line = {**LINE, "url": url, "body": {**body, "seed": 1}}
        step(provider, batch_lines=True, schema=SCHEMA).start(line).absorb(reply("?"))
        asked = provider.asks[-1]
        assert asked.path == url
        assert asked.body["seed"] == 1
        assert asked.body[next(iter(body))][:2] == [*talk, {"role": "assistant", "content": "?"}]
    assert talk == [{"role": "user", "content": "hi"}]


def test_completions_are_asked_the_same_again(provider: Any, reply: Any) -> None:
    asking = step(provider, prompt="x", schema=SCHEMA, endpoint="completions").start({})
    again = asking.absorb(reply("?"))
    assert again.call is asking.call
    assert again.failure.kind is ErrorKind.SCHEMA_MISMATCH


def test_a_re_ask_that_is_too_large_is_the_mismatch_it_came_from(provider: Any, reply: Any) -> None:
    asking = step(provider, prompt="x", schema=SCHEMA).start({})
    provider.chars_max = 100
    failure = asking.absorb(reply("?"))
    assert isinstance(failure, Failure)
    assert failure.kind is ErrorKind.SCHEMA_MISMATCH
    assert "too large" in failure.message


@pytest.mark.parametrize(
    "change", [{"url": "/v1/embeddings"}, {"body": {"messages": [], "response_format": {"type": "text"}}}]
)
def test_the_schema_is_not_for_batch_lines_of_another_kind_or_format(
    provider: Any, reply: Any, change: Any
) -> None:
    asking = step(provider, batch_lines=True, schema=SCHEMA).start({**LINE, **change})
    assert asking.absorb(reply("free text")).fields == {"response": "free text"}


def test_embeddings_with_a_schema_are_refused(provider: Any) -> None:
    with pytest.raises(UsageError, match="Embeddings"):
        step(provider, prompt="x", schema=SCHEMA, endpoint="embeddings")


def test_half_a_surrogate_pair_fails_the_row_and_not_the_worker(provider: Any) -> None:
    with pytest.raises(RowError) as caught:
        step(provider, prompt="{{ '\\ud800' }}").start({})
    assert caught.value.kind is ErrorKind.TEMPLATE_ERROR


def test_an_unknown_step_is_refused(provider: Any) -> None:
    with pytest.raises(UsageError, match="no step named 'nope'. Known: ask, request"):
        make_step("nope", StepSettings(), Target(provider="openai"), provider)
