"""A provider without a format of its own, so that steps are tested alone."""

from typing import Any

import msgspec
import pytest

from engine.core.errors import ErrorKind, RowError
from engine.core.model import Answer, Ask, Call, Failure, Reply, Target, Usage


class RecordingProvider:
    """Builds calls whose body is the ask itself; a reply's body is the answer's text, ``!`` is a bad reply."""

    auth = None
    settles = False
    default_base_url = ""
    origin = "https://host"

    def __init__(self, target: Target) -> None:
        self.asks: list[Ask] = []
        self.chars_max = 10**9

    def build(self, ask: Ask) -> Call:
        self.asks.append(ask)
        body = msgspec.json.encode(ask)
        if len(body) > self.chars_max:
            raise RowError(ErrorKind.REQUEST_TOO_LARGE, "too large")
        return Call("POST", ask.url or "https://host/v1", ask.headers, body)

    def parse(self, reply: Reply) -> Answer | Failure:
        if reply.status != 200:
            return Failure(ErrorKind.SERVER_ERROR, "broken", status=reply.status)
        if reply.body == b"!":
            return Failure(ErrorKind.BAD_REPLY, "no answer in it", status=200)
        finish = reply.headers.get("finish", "stop")
        return Answer(reply.body.decode(), Usage(3, 2), "model-1", finish)


@pytest.fixture
def provider() -> RecordingProvider:
    return RecordingProvider(Target(provider="openai"))


@pytest.fixture
def reply() -> Any:
    def make(body: str | bytes, status: int = 200, **headers: str) -> Reply:
        return Reply(status, headers, body.encode() if isinstance(body, str) else body)

    return make
