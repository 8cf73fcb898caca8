"""Errors and limits, as each provider words them."""

import json

import pytest

from engine.mock.quota import Level
from engine.mock.refusals import error_body, go_duration, limit_headers
from engine.mock.settings import SHAPES

LEVELS = {"requests": Level(100, 40, 6.5), "tokens": Level(10_000, 4_321, 0.25)}


def lines(data: bytes) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in data.decode().split("\r\n") if line)


def test_limits_are_stated_as_each_provider_does() -> None:
    openai = lines(limit_headers("openai", LEVELS, 0.0))
    assert openai["x-ratelimit-remaining-requests"] == "40"
    assert (openai["x-ratelimit-reset-requests"], openai["x-ratelimit-reset-tokens"]) == ("6.5s", "250ms")
    assert lines(limit_headers("azure", LEVELS, 0.0))["x-ratelimit-reset-requests"] == "7"
    anthropic = lines(limit_headers("anthropic", LEVELS, 0.0))
    assert anthropic["anthropic-ratelimit-tokens-remaining"] == "4000"
    assert anthropic["anthropic-ratelimit-requests-reset"] == "1970-01-01T00:00:07Z"
    assert limit_headers("ollama", LEVELS, 0.0) == b""


@pytest.mark.parametrize(("seconds", "text"), [(0.0121, "13ms"), (18.642, "18.642s"), (360.0, "6m0s")])
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503, 529])
def test_an_error_of_every_shape_holds_its_message(shape: str, status: int) -> None:
    assert "why it failed" in json.dumps(json.loads(error_body(shape, status, "why it failed")))
