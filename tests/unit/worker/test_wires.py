"""What both wires make of odd framings and hostile servers, of streamed replies, and how requests are started and end."""

import asyncio
import gzip
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest
import uvloop
from scenes import CAP, CHUNKED, Client, Handler, Listener, Scene, failed, in_turn, one_then_end, replied
from scenes import play as play_on
from scripted import Peer, reply

from engine.core.errors import ErrorKind
from engine.core.model import Call, Failure, Reply

pytestmark = pytest.mark.usefixtures("each_wire")


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"], autouse=True)
def loop_runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers run on uvloop; the standard loop's transports behave otherwise in small things."""
    monkeypatch.setitem(globals(), "run_on_loop", request.param)


run_on_loop: Callable[..., object] = asyncio.run


def play(handler: Handler, scene: Scene, **timeouts: float) -> None:
    play_on(handler, scene, runner=run_on_loop, **timeouts)


# --- replies that are not as they should be ----------------------------------------------------------------------

ENDLESS_NOTES = b"HTTP/1.1 103 Early Hints\r\nA: 1\r\n\r\n" * 1000
BROKEN = {
    "a flood of notes": ENDLESS_NOTES + reply(),
    "too many headers": reply(extra=b"".join(b"X-H-%d: 1\r\n" % number for number in range(1000))),
    "too long a header": reply(extra=b"X-Long: " + b"x" * 600_000 + b"\r\n"),
    "a header without end": b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1_000_000,
    "too many trailers": CHUNKED
    + b"0\r\n"
    + b"".join(b"X-H-%d: 1\r\n" % number for number in range(100_000)),
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\nokok",
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
    "a chunk size that is none": CHUNKED + b"zz\r\nok\r\n0\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello",
    "no HTTP at all": b"220 mail.example ESMTP\r\n\r\n",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_reply_that_breaks_the_rules_is_a_protocol_error_and_its_connection_is_not_used_again(
    broken: str,
) -> None:
    async def scene(client: Client) -> None:
        assert failed(await client.ask()) is ErrorKind.PROTOCOL_ERROR
        await client.ask()
        assert client.server.connections == 2

    play(in_turn(BROKEN[broken], reply()), scene)


@pytest.mark.parametrize(
    ("answer", "reset", "kinds"),
    [
        (b"", False, {ErrorKind.CONNECTION_RESET}),
        (b"HTTP/1.1 200 OK\r\nConte", False, {ErrorKind.CONNECTION_RESET}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", False, {ErrorKind.PROTOCOL_ERROR}),
        (CHUNKED + b"4\r\nhalf\r\n", False, {ErrorKind.PROTOCOL_ERROR}),
        (CHUNKED + b"4\r\nhalf\r\n0\r\n", False, {ErrorKind.PROTOCOL_ERROR}),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            True,
            {ErrorKind.CONNECTION_RESET, ErrorKind.PROTOCOL_ERROR},
        ),
    ],
)
def test_a_reply_that_ends_too_soon_is_no_reply(answer: bytes, reset: bool, kinds: set[ErrorKind]) -> None:
    async def scene(client: Client) -> None:
        assert failed(await client.ask()) in kinds
        listener = Listener()
        assert failed(await client.ask(sink=listener)) in kinds
        assert b"half".startswith(listener.body)

    play(one_then_end(answer, reset=reset), scene)


def test_what_follows_a_reply_is_never_used_and_neither_is_its_connection() -> None:
    async def scene(client: Client) -> None:
        for _ in range(3):
            one = await client.ask()
            if isinstance(one, Failure):
                assert one.kind is ErrorKind.PROTOCOL_ERROR
            else:
                assert one.body == b"mine"
        assert client.server.connections == 3

    play(in_turn(reply(b"mine") + b"and more"), scene)


@pytest.mark.parametrize(
    ("version", "says", "connections"),
    [
        (b"1.1", b"", 1),
        (b"1.1", b"Connection: close\r\n", 3),
        (b"1.1", b"CONNECTION: Close\r\n", 3),
        (b"1.0", b"", 3),
        (b"1.0", b"Connection: keep-alive\r\n", 1),
    ],
)
def test_a_connection_is_used_again_only_if_the_server_keeps_it(
    version: bytes, says: bytes, connections: int
) -> None:
    answer = reply(b"ok", extra=says).replace(b"HTTP/1.1", b"HTTP/" + version)

    async def scene(client: Client) -> None:
        for _ in range(3):
            assert replied(await client.ask()) == (200, b"ok")
        assert client.server.connections == connections

    play(in_turn(answer, answer, answer), scene)


def test_a_head_request_whose_reply_has_a_body_all_the_same_is_a_protocol_error() -> None:
    async def scene(client: Client) -> None:
        for _ in range(2):
            assert failed(await client.ask("HEAD")) is ErrorKind.PROTOCOL_ERROR
        assert client.server.connections == 2

    play(in_turn(reply(b"body"), reply(b"body")), scene)


def test_headers_are_found_by_their_names_in_lower_case_with_their_values_as_sent() -> None:
    extra = "X-Empty:\r\nx-ratelimit-REMAINING: 7 \r\nX-Name: Bj\N{LATIN SMALL LETTER O WITH DIAERESIS}rn\r\n"

    async def scene(client: Client) -> None:
        one = await client.ask()
        assert isinstance(one, Reply)
        names = ("x-empty", "x-ratelimit-remaining", "x-name", "content-length", "x-none")
        assert [one.headers.get(name, "?") for name in names] == ["", "7", "Bj\xf6rn", "2", "?"]
        assert "content-length" in one.headers and one.headers["content-length"] == "2"

    play(in_turn(reply(b"ok", extra=extra.encode())), scene)


@pytest.mark.parametrize("name", [b"Content-Encoding", b"content-encoding", b"CONTENT-ENCODING"])
def test_a_compressed_reply_is_known_whatever_the_case_of_its_header(name: bytes) -> None:
    async def scene(client: Client) -> None:
        assert replied(await client.ask()) == (200, b"plain")

    play(in_turn(reply(gzip.compress(b"plain"), extra=name + b": GZIP\r\n")), scene)


# --- in pieces ------------------------------------------------------------------------------------------------


def test_a_streamed_reply_reaches_its_sink_piece_by_piece_and_ends_without_a_body() -> None:
    async def handler(peer: Peer) -> None:
        while await peer.request():
            await peer.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nX-A: 1\r\n\r\n"))
            for number in range(5):
                await asyncio.sleep(0.02)
                await peer.send(b"8\r\ndata: %d\n\r\n" % number)
            await peer.send(b"0\r\n\r\n")

    async def scene(client: Client) -> None:
        for _ in range(2):
            listener, began = Listener(), monotonic()
            assert replied(await client.ask(sink=listener)) == (200, b"")
            status, headers, at = listener.heads[0]
            assert (len(listener.heads), status, headers.get("x-a")) == (1, 200, "1")
            assert listener.body == b"".join(b"data: %d\n" % number for number in range(5))
            times = [began, client.flight.sent, client.flight.first_byte, *(at for _, at in listener.pieces)]
            assert times == sorted(times)
            assert len(listener.pieces) >= 4 and times[-1] - at >= 0.05
        assert client.server.connections == 1

    play(handler, scene)


def test_a_sink_that_declines_gets_the_reply_whole() -> None:
    async def scene(client: Client) -> None:
        listener = Listener(wants=False)
        assert replied(await client.ask(sink=listener)) == (503, b"busy")
        assert (len(listener.heads), listener.pieces) == (1, [])

    play(in_turn(reply(b"busy", "503 Busy")), scene)


def test_a_compressed_reply_comes_whole_although_a_sink_would_have_it() -> None:
    async def scene(client: Client) -> None:
        listener = Listener()
        assert replied(await client.ask(sink=listener)) == (200, b"plain")
        assert (listener.heads, listener.pieces) == ([], [])

    play(in_turn(reply(gzip.compress(b"plain"), extra=b"Content-Encoding: gzip\r\n")), scene)


def test_a_redirect_is_refused_before_a_sink_hears_of_it() -> None:
    async def scene(client: Client) -> None:
        listener = Listener()
        assert failed(await client.ask(sink=listener)) is ErrorKind.REDIRECT_REFUSED
        assert listener.heads == []

    play(in_turn(reply(b"elsewhere", "302 Found", extra=b"Location: /x\r\n")), scene)


def test_a_stream_over_the_cap_is_cut_off_and_its_sink_gets_no_more_than_the_cap() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        while True:
            await peer.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")

    async def scene(client: Client) -> None:
        listener = Listener()
        assert failed(await client.ask(sink=listener)) is ErrorKind.BODY_TOO_LARGE
        assert len(listener.body) <= CAP

    play(handler, scene)


def test_a_stream_that_stalls_is_a_timeout_of_the_body() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"4\r\nhalf\r\n")
        await peer.reader.read()

    async def scene(client: Client) -> None:
        listener = Listener()
        result = await client.ask(sink=listener)
        assert failed(result) is ErrorKind.TIMEOUT
        assert isinstance(result, Failure) and "stalled" in result.message
        assert listener.body == b"half"

    play(handler, scene, read_s=0.1)


def test_a_stream_that_ends_with_its_connection_is_whole() -> None:
    async def scene(client: Client) -> None:
        listener = Listener()
        assert replied(await client.ask(sink=listener)) == (200, b"")
        assert listener.body == b"to the end"

    play(one_then_end(b"HTTP/1.1 200 OK\r\n\r\nto the end"), scene)


# --- started, not awaited -------------------------------------------------------------------------------------


class Chain:
    """Starts a flight's next request from within the end of the one before."""

    def __init__(self, client: Client, count: int) -> None:
        self._client, self._left = client, count
        self.results: list[Reply | Failure] = []
        self.is_over = asyncio.get_running_loop().create_future()
        self._depth = 0

    def go(self) -> None:
        if self._left == 0:
            self.is_over.set_result(None)
            return
        self._left -= 1
        before = len(self.results)
        self._client.fetcher.start(self._client.call(), "key", self._client.flight, self.done)
        assert len(self.results) == before  # never within the start

    def done(self, result: Reply | Failure) -> None:
        self.results.append(result)
        self.go()


def test_a_request_may_be_started_from_the_end_of_another_on_the_same_flight() -> None:
    async def scene(client: Client) -> None:
        chain = Chain(client, 50)
        chain.go()
        await chain.is_over
        assert [replied(one) for one in chain.results] == [(200, b"{}")] * 50
        assert client.server.connections == 1

    play(in_turn(*[reply()] * 50), scene)


@pytest.mark.parametrize("fault", ["refused", "silent", "closed"])
def test_what_is_started_ends_once_whatever_happens(fault: str) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        if fault == "silent":
            await peer.reader.read()

    async def scene(client: Client) -> None:
        if fault == "refused":
            client.call = lambda method="POST": Call("POST", "http://127.0.0.2:1/", (), b"{}")  # type: ignore[method-assign]
        chain = Chain(client, 3)
        chain.go()
        await chain.is_over
        await asyncio.sleep(0.05)
        kind = {
            "refused": ErrorKind.BAD_REQUEST,
            "silent": ErrorKind.TIMEOUT,
            "closed": ErrorKind.CONNECTION_RESET,
        }
        assert [failed(one) for one in chain.results] == [kind[fault]] * 3

    play(handler, scene, first_byte_s=0.05)


def test_a_caller_that_is_cancelled_leaves_no_connection_behind_that_could_answer_another() -> None:
    async def handler(peer: Peer) -> None:
        if request := await peer.request():
            await asyncio.sleep(0.1)
            await peer.send(reply(b"answer to " + request[-3:]))
            await peer.reader.read()

    async def scene(client: Client) -> None:
        task: asyncio.Task[Any] = asyncio.create_task(client.ask())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.flight.deadline == float("inf")
        assert replied(await client.ask())[0] == 200
        assert client.server.connections == 2

    play(handler, scene)


def test_a_connection_that_takes_too_long_to_open_is_given_up_and_the_flight_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from engine.worker.connections import Opener

    is_slow = True
    opened = Opener.open

    async def open_late(self: Opener) -> Any:
        if is_slow:
            await asyncio.sleep(3600)
        return await opened(self)

    async def scene(client: Client) -> None:
        nonlocal is_slow
        monkeypatch.setattr(Opener, "open", open_late)
        result = await client.ask()
        assert failed(result) is ErrorKind.TIMEOUT
        assert isinstance(result, Failure) and "nothing was sent" in result.message
        assert client.flight.sent == 0.0
        is_slow = False
        assert replied(await client.ask()) == (200, b"{}")

    play(in_turn(reply()), scene, connect_s=0.05)


def test_closing_ends_what_is_in_flight() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.reader.read()

    async def scene(client: Client) -> None:
        results: list[Reply | Failure] = []
        client.fetcher.start(client.call(), "key", client.flight, results.append)
        await asyncio.sleep(0.05)
        await client.fetcher.close()
        await asyncio.sleep(0.05)
        assert [failed(one) for one in results] == [ErrorKind.CONNECTION_RESET]

    play(handler, scene)
