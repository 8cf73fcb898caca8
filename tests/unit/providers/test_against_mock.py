"""Providers against the mock provider's own reading and writing: two sides that must agree, without a socket."""

from typing import Any
from urllib.parse import urlsplit

import pytest

from engine.core.errors import ErrorKind
from engine.core.model import Answer, Ask, Call, Failure, Reply, Target
from engine.mock.answers import expected_answer, expected_embedding, expected_object
from engine.mock.brain import Brain
from engine.mock.questions import Route, read_question, route_of
from engine.mock.settings import MockSettings, QuotaSettings
from engine.providers import make_provider
from engine.providers.base import Provider

ORIGIN = "http://127.0.0.1:9"
TALKERS = {
    "openai chat": {"provider": "openai", "base_url": f"{ORIGIN}/v1"},
    "openai responses": {"provider": "openai", "base_url": f"{ORIGIN}/v1", "endpoint": "responses"},
    "openai completions": {
        "provider": "openai",
        "base_url": f"{ORIGIN}/v1",
        "endpoint": "completions",
        "max_tokens": 99,
    },
    "azure v1": {"provider": "azure", "base_url": ORIGIN},
    "azure classic": {"provider": "azure", "base_url": ORIGIN, "api_version": "2024-10-21"},
    "azure responses": {"provider": "azure", "base_url": ORIGIN, "endpoint": "responses"},
    "gemini": {"provider": "openai", "base_url": f"{ORIGIN}/v1beta/openai"},
    "anthropic": {"provider": "anthropic", "base_url": ORIGIN},
    "ollama": {"provider": "ollama", "base_url": ORIGIN},
    "mock": {"provider": "mock", "base_url": f"{ORIGIN}/v1"},
}
EMBEDDERS = {
    "openai": {"provider": "openai", "base_url": f"{ORIGIN}/v1"},
    "azure classic": {"provider": "azure", "base_url": ORIGIN, "api_version": "2024-10-21"},
    "ollama": {"provider": "ollama", "base_url": ORIGIN},
}
SCHEMA = {
    "type": "object",
    "properties": {"field": {"type": "string"}, "sure": {"type": "boolean"}},
    "required": ["field", "sure"],
    "additionalProperties": False,
}
talkers = pytest.mark.parametrize("name", TALKERS)


def made(fields: dict[str, Any], **more: Any) -> Provider:
    return make_provider(Target(**{"model": "m-1", **fields, **more}))


def route_to(call: Call) -> Route:
    parts = urlsplit(call.url)
    route = route_of(parts.path.encode(), parts.query.encode())
    assert route is not None, call.url
    return route


def send(call: Call, settings: MockSettings = MockSettings(), brain: Brain | None = None) -> Reply:  # noqa: B008
    reply, _, _ = (brain or Brain(settings)).answer(route_to(call), call.url, call.body or b"", b"", 0.0)
    head, _, body = reply.data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Reply(int(status.split()[1]), headers, body)


@talkers
def test_a_question_gets_the_answer_that_belongs_to_it(name: str) -> None:
    provider = made(TALKERS[name])
    answer = provider.parse(send(provider.build(Ask(prompt="Which field?"))))
    assert isinstance(answer, Answer), answer
    assert answer.value == expected_answer("Which field?")
    assert answer.model == ("mock-model" if name == "mock" else "m-1") or answer.model == "m-1"
    assert answer.usage.tokens_in > 0 and answer.usage.tokens_out > 0


@pytest.mark.parametrize("name", [name for name in TALKERS if name != "openai completions"])
def test_a_system_prompt_and_a_conversation_reach_their_places(name: str) -> None:
    provider = made(TALKERS[name])
    turns = [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": "3"},
    ]
    for ask, prompt, system in (
        (Ask(prompt="Which?", system="Be brief."), "Which?", "Be brief."),
        (Ask(messages=turns), "One\nTwo\n3", ""),
        (Ask(messages=[{"role": "system", "content": "S"}, *turns]), "One\nTwo\n3", "S"),
    ):
        answer = provider.parse(send(provider.build(ask)))
        assert isinstance(answer, Answer), answer
        assert answer.value == expected_answer(prompt, system)


@pytest.mark.parametrize("name", [name for name in TALKERS if name != "openai completions"])
def test_a_schema_is_understood(name: str) -> None:
    provider = made(TALKERS[name], schema=SCHEMA, max_tokens=500)
    answer = provider.parse(send(provider.build(Ask(prompt="Which field?"))))
    assert isinstance(answer, Answer), answer
    assert answer.value == expected_object("Which field?", "", SCHEMA)


@talkers
def test_a_limit_cuts_the_answer_and_the_end_says_so(name: str) -> None:
    provider = made(TALKERS[name], max_tokens=3)
    answer = provider.parse(send(provider.build(Ask(prompt="Which field?"))))
    assert isinstance(answer, Answer), answer
    assert len(answer.value) == 12
    assert answer.finish in ("length", "max_tokens", "max_output_tokens")


@talkers
@pytest.mark.parametrize("limit", [None, 50, 5_000])
@pytest.mark.parametrize("size", [1, 399, 4_000])
def test_a_call_is_charged_what_the_endpoint_counts(name: str, limit: int | None, size: int) -> None:
    fields = {"max_tokens": limit} if limit else {}
    provider = made({**TALKERS[name], **fields})
    call = provider.build(Ask(prompt="x" * size))
    route = route_to(call)
    style = "openai" if route.style in ("gemini", "ollama") else route.style
    cost = read_question(route, call.body or b"").cost("auto", style)
    if provider.settles:  # what is not charged on arrival is reserved for the answer
        assert call.charge.tokens_in == cost.tokens
        assert call.charge.tokens == cost.tokens + (limit or 1024)
    else:
        assert call.charge.tokens == cost.tokens


@pytest.mark.parametrize("name", EMBEDDERS)
def test_a_text_gets_its_vector(name: str) -> None:
    provider = made(EMBEDDERS[name], endpoint="embeddings")
    answer = provider.parse(send(provider.build(Ask(prompt="words"))))
    assert isinstance(answer, Answer), answer
    assert answer.value == expected_embedding("words", 16)


@talkers
def test_a_full_minute_is_a_rate_limit_with_a_wait(name: str) -> None:
    provider = made(TALKERS[name])
    call = provider.build(Ask(prompt="Which field?"))
    brain = Brain(MockSettings(quota=(QuotaSettings(kind="sliding", rpm=1),)))
    assert isinstance(provider.parse(send(call, brain=brain)), Answer)
    failure = provider.parse(send(call, brain=brain))
    assert isinstance(failure, Failure)
    assert failure.kind is ErrorKind.RATE_LIMITED
    assert failure.wait_s is not None and 1.0 <= failure.wait_s <= 60.0


@talkers
def test_a_call_over_the_minutes_limit_can_never_pass(name: str) -> None:
    provider = made(TALKERS[name])
    brain = Brain(MockSettings(quota=(QuotaSettings(kind="sliding", tpm=100),)))
    failure = provider.parse(send(provider.build(Ask(prompt="x" * 4_000)), brain=brain))
    assert isinstance(failure, Failure)
    assert failure.kind is ErrorKind.REQUEST_TOO_LARGE
