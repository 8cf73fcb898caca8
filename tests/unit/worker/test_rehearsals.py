"""A package that works otherwise than a wire needs is noticed before anything is sent."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import httptools
import pytest
from aiohttp.client_proto import ResponseHandler
from scripted import Peer, ScriptedServer, reply

from engine.config import Limits, Timeouts
from engine.core.errors import CannotStart, ErrorKind
from engine.core.model import Call, Failure, Reply
from engine.worker.fetch import Fetcher, Flight

TIMEOUTS = Timeouts(connect_s=5, first_byte_s=5, read_s=5, total_s=5)


async def answering(peer: Peer) -> None:
    while await peer.request():
        await peer.send(reply(b"ok"))


async def ask(fetcher: Fetcher, call: Call) -> Reply | Failure:
    flight = Flight()
    flight.task = asyncio.current_task()  # type: ignore[assignment]
    fetcher.register(flight)
    return await fetcher.send(call, "run-0-0", flight)


Read = Callable[[ResponseHandler], Awaitable[Any]]


def _with_other_settings(patch: pytest.MonkeyPatch) -> None:
    def set_response_params(self: ResponseHandler, *, skip_payload: bool) -> None:
        raise AssertionError("never reached: it is called with more")

    patch.setattr(ResponseHandler, "set_response_params", set_response_params)


def _without_settings(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(ResponseHandler, "set_response_params")


def _reading(change: Callable[[Any, Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    def apply(patch: pytest.MonkeyPatch) -> None:
        read = ResponseHandler.read

        async def other(self: ResponseHandler) -> Any:
            return change(*await read(self))

        patch.setattr(ResponseHandler, "read", other)

    return apply


def _that_waits(patch: pytest.MonkeyPatch) -> None:
    async def read(self: ResponseHandler) -> Any:
        await asyncio.sleep(3600)

    patch.setattr(ResponseHandler, "read", read)


def _that_decompresses(patch: pytest.MonkeyPatch) -> None:
    settings = ResponseHandler.set_response_params

    def set_response_params(self: ResponseHandler, **options: Any) -> None:
        settings(self, **{**options, "auto_decompress": True})

    patch.setattr(ResponseHandler, "set_response_params", set_response_params)


def _blind_to_strays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ResponseHandler, "should_close", property(lambda self: False))


def _that_never_keeps(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ResponseHandler, "should_close", property(lambda self: True))


DRIFTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "other settings": _with_other_settings,
    "no settings": _without_settings,
    "a third part": _reading(lambda message, content: (message, content, None)),
    "parts swapped": _reading(lambda message, content: (content, message)),
    "a reply that does not come": _that_waits,
    "unbounded decompression": _that_decompresses,
    "stray bytes unseen": _blind_to_strays,
    "nothing kept alive": _that_never_keeps,
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_an_aiohttp_that_works_otherwise_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, drift: str
) -> None:
    async def run() -> None:
        DRIFTS[drift](monkeypatch)
        with pytest.raises(CannotStart, match=r"aiohttp .* Nothing was sent") as caught:
            Fetcher(origin="http://127.0.0.1:9", auth=(), timeouts=TIMEOUTS, limits=Limits())
        assert aiohttp.__version__ in str(caught.value)

    asyncio.run(run())


def test_a_reply_that_nobody_understands_is_not_told_as_a_request_that_was_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with ScriptedServer(answering) as server:
            fetcher = Fetcher(origin=server.origin, auth=(), timeouts=TIMEOUTS, limits=Limits())
            DRIFTS["a third part"](monkeypatch)
            result = await ask(fetcher, Call("POST", f"{server.origin}/v1/x", (), b"{}"))
            await fetcher.close()
            assert len(server.seen) == 1
            assert isinstance(result, Failure)
            assert result.kind is ErrorKind.PROTOCOL_ERROR
            assert "cannot be sent" not in result.message

    asyncio.run(run())


class OtherParser:
    """httptools, but for one thing."""

    def __init__(self, protocol: Any) -> None:
        self._parser = _PARSER(protocol)
        self.get_status_code = self._parser.get_status_code
        self.should_keep_alive = self._parser.should_keep_alive
        self.feed_data = self._parser.feed_data


class KeepsAll(OtherParser):
    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        self.should_keep_alive = lambda: False


class BeginsNothing(OtherParser):
    def __init__(self, protocol: Any) -> None:
        super().__init__(_Without(protocol, "on_message_begin"))


class TellsNoHeaders(OtherParser):
    def __init__(self, protocol: Any) -> None:
        super().__init__(_Without(protocol, "on_header"))


class Swallows(OtherParser):
    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)

        def feed_data(data: bytes) -> None:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError:
                pass

        self.feed_data = feed_data


class _Without:
    """A parser's protocol without one of its callbacks."""

    def __init__(self, protocol: Any, name: str) -> None:
        self._protocol, self._name = protocol, name

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            raise AttributeError(name)
        return getattr(self._protocol, name)


_PARSER = httptools.HttpResponseParser


@pytest.mark.parametrize("parser", [KeepsAll, BeginsNothing, TellsNoHeaders, Swallows])
def test_an_httptools_that_works_otherwise_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, parser: type
) -> None:
    async def run() -> None:
        monkeypatch.setattr(httptools, "HttpResponseParser", parser)
        with pytest.raises(CannotStart, match=r"httptools .* Nothing was sent"):
            Fetcher(origin="http://127.0.0.1:9", auth=(), timeouts=TIMEOUTS, limits=Limits(), wire="lean")

    asyncio.run(run())
