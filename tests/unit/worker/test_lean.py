"""The lean wire's own: where it is stricter than the other one, and that it does not matter how its bytes are cut."""

import asyncio
import itertools
from typing import cast

import pytest
from aiohttp.connector import Connection
from hypothesis import given
from hypothesis import strategies as st
from scenes import CHUNKED, Client, Listener, failed, in_turn, one_then_end, play, replied
from scripted import Peer, reply

from engine.config import Limits, Timeouts
from engine.core.errors import ErrorKind
from engine.core.model import Failure, Reply
from engine.worker.exchange import Flight, Rules
from engine.worker.wires.lean import Stage
from engine.worker.wires.lean_channel import TURN_BYTES, LeanChannel


def test_bytes_on_an_idle_connection_close_it_at_once() -> None:
    gone: list[bytes] = []

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply(b"mine"))
        await asyncio.sleep(0.03)
        await peer.send(b"HT")
        gone.append(await peer.reader.read())

    async def scene(client: Client) -> None:
        for _ in range(2):
            assert replied(await client.ask()) == (200, b"mine")
            await asyncio.sleep(0.1)
        assert client.server.connections == 2
        assert gone == [b"", b""]

    play(handler, scene, wire="lean")


def test_trailers_are_no_headers_of_the_next_reply() -> None:
    trailing = CHUNKED + b"1\r\nT\r\n0\r\nX-Trailer: 1\r\n\r\n"

    async def scene(client: Client) -> None:
        first, second = await client.ask(), await client.ask()
        assert isinstance(first, Reply) and isinstance(second, Reply)
        assert second.headers.get("x-trailer") is None
        assert second.headers.get("content-length") == "2"
        assert client.server.connections == 1

    play(in_turn(trailing, reply(b"ok")), scene, wire="lean")


@pytest.mark.parametrize("with_sink", [False, True])
def test_a_reply_without_a_length_whose_connection_breaks_is_not_taken_as_whole(with_sink: bool) -> None:
    async def scene(client: Client) -> None:
        result = await client.ask(sink=Listener() if with_sink else None)
        assert failed(result) is ErrorKind.CONNECTION_RESET

    play(one_then_end(b"HTTP/1.1 200 OK\r\n\r\nhalf", reset=True), scene, wire="lean")


def test_a_kept_connection_that_breaks_within_a_reply_is_no_stale_one() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply())
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-")

    async def scene(client: Client) -> None:
        assert replied(await client.ask()) == (200, b"{}")
        assert failed(await client.ask()) is ErrorKind.CONNECTION_RESET  # it may have been billed

    play(handler, scene, wire="lean")


def test_the_first_byte_of_a_broken_reply_is_stamped_too() -> None:
    async def scene(client: Client) -> None:
        assert failed(await client.ask()) is ErrorKind.PROTOCOL_ERROR
        assert client.flight.first_byte >= client.flight.sent > 0.0

    play(in_turn(b"220 mail.example ESMTP\r\n\r\n"), scene, wire="lean")


# --- however it is cut ----------------------------------------------------------------------------------------

_EVENTS = b"".join(b"data: %d\n\n" % number for number in range(12))
_BODIES = {
    "length": b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: %d\r\n\r\n%b" % (len(_EVENTS), _EVENTS),
    "chunks": CHUNKED
    + b"".join(b"9\r\n%b\r\n" % _EVENTS[at : at + 9] for at in range(0, 90, 9))
    + b"%x\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(_EVENTS) - 90, _EVENTS[90:]),
    "notes": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX-B: 2\r\n\r\n" + reply(_EVENTS),
}


def heard(framing: str, places: list[int], *, streamed: bool) -> tuple[bytes, list[Reply | Failure], bool]:
    """What a sink and the caller get of two replies on one connection that arrive cut at ``places``."""
    channel = LeanChannel(
        cast(Connection, Stage()), Rules(Timeouts(), Limits(), ()), give_back=lambda channel: None
    )
    listener, results = Listener(), list[Reply | Failure]()
    data = _BODIES[framing]
    edges = [0, *sorted({place % len(data) for place in places} - {0}), len(data)]
    for _ in range(2):
        channel.begin(b"request", True, Flight(), results.append, listener if streamed else None)
        for start, end in itertools.pairwise(edges):
            assert len(results) % 2 == _
            channel.data_received(data[start:end])
    return listener.body, results, channel.is_fit


@given(st.sampled_from(sorted(_BODIES)), st.lists(st.integers(0, 10_000), max_size=40), st.booleans())
def test_a_reply_cut_anywhere_is_the_same_reply(framing: str, places: list[int], streamed: bool) -> None:
    body, results, is_fit = heard(framing, places, streamed=streamed)
    whole = b"" if streamed else _EVENTS
    assert [(one.status, one.body) for one in results if isinstance(one, Reply)] == [(200, whole)] * 2
    assert body == (_EVENTS * 2 if streamed else b"")
    assert is_fit


@pytest.mark.parametrize("framing", _BODIES)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_reply_that_comes_byte_by_byte_is_the_same_reply(framing: str, streamed: bool) -> None:
    body, results, is_fit = heard(framing, list(range(10_000)), streamed=streamed)
    assert len(results) == 2 and is_fit
    assert body + b"".join(one.body for one in results if isinstance(one, Reply)) == _EVENTS * 2


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_noise_never_raises_and_never_leaves_a_connection_fit_that_is_not(
    noise: bytes, places: list[int]
) -> None:
    kept: list[LeanChannel] = []
    results: list[Reply | Failure] = []
    channel = LeanChannel(cast(Connection, Stage()), Rules(Timeouts(), Limits(), ()), kept.append)
    channel.begin(b"request", True, Flight(), results.append, None)
    edges = [0, *sorted({place for place in places if place < len(noise)} - {0}), len(noise)]
    for start, end in itertools.pairwise(edges):
        channel.data_received(b"HTTP/1.1 200 OK\r\n"[: 17 if not start else 0] + noise[start:end])
    channel.connection_lost(None)
    assert len(results) == 1
    assert not channel.is_fit


_PIECES = st.one_of(
    st.binary(min_size=1, max_size=40).map(lambda data: b"%x\r\n%b\r\n" % (len(data), data)),
    st.sampled_from(
        [
            b"2\r\nok\r\n2\r\nok\r\n",  # two at once
            b"A\r\n0123456789\r\n",
            b"02\r\nok\r\n",
            b"2;note=1\r\nok\r\n",
            b"4\r\n\r\n\r\n\r\n",
            b"2\r\nok",
            b"\r\n",
            b"2",
            b"2\r\n",
            b"ok",
            b"\r",
            b"\n",
            b"0x2\r\nok\r\n",
            b"+2\r\nok\r\n",
            b" 2\r\nok\r\n",
            b"-2\r\nok\r\n",
            b"3\r\nok\r\n",
            b"1\r\nok\r\n",
            b"0\r\n\r\n",
            b"0\r\nX-Trailer: 1\r\n",
            b"0\r\n",
            b"2\nok\n",
        ]
    ),
)


def heard_in(pieces: list[bytes]) -> tuple[bytes, list[tuple[str, object]], bool]:
    """What a sink gets of a chunked reply that arrives in these pieces, how it ended, and whether the channel is fit."""
    listener, results = Listener(), list[Reply | Failure]()
    channel = LeanChannel(cast(Connection, Stage()), Rules(Timeouts(), Limits(), ()), lambda channel: None)
    channel.begin(b"request", True, Flight(), results.append, listener)
    for piece in [CHUNKED, *pieces]:
        channel.data_received(piece)
    channel.connection_lost(None)
    ends = [("reply", one.status) if isinstance(one, Reply) else ("failure", one.kind) for one in results]
    return listener.body, ends, channel.is_fit


@given(st.lists(_PIECES, max_size=12))
def test_pieces_that_are_chunks_and_pieces_that_only_look_so_are_read_as_their_bytes_are(
    pieces: list[bytes],
) -> None:
    body, ends, is_fit = heard_in(pieces)
    by_the_byte = heard_in([bytes([byte]) for byte in b"".join(pieces)])
    assert (ends, is_fit) == by_the_byte[1:]
    # What broke a reply may have come together with good bytes, which nobody was told of then.
    assert body == by_the_byte[0] if ends[0][0] == "reply" else by_the_byte[0].startswith(body)


def test_a_stream_of_single_chunks_passes_the_parser_by(monkeypatch: pytest.MonkeyPatch) -> None:
    listener, fed = Listener(), list[bytes]()
    channel = LeanChannel(cast(Connection, Stage()), Rules(Timeouts(), Limits(), ()), lambda channel: None)
    feed = channel._feed

    def feed_and_note(data: bytes) -> None:
        fed.append(data)
        feed(data)

    monkeypatch.setattr(channel, "_feed", feed_and_note)
    channel.begin(b"request", True, Flight(), lambda result: None, listener)
    for piece in [CHUNKED, *[b"2\r\nok\r\n"] * 9, b"0\r\n\r\n"]:
        channel.data_received(piece)
    assert fed == [CHUNKED, b"2\r\nok\r\n", b"0\r\n\r\n"] or fed == [CHUNKED, b"0\r\n\r\n"]
    assert listener.body == b"ok" * 9


def test_chunks_that_pass_the_parser_by_count_for_the_cap_and_move_the_deadline() -> None:
    listener, results, flight = Listener(), list[Reply | Failure](), Flight()
    rules = Rules(Timeouts(), Limits(reply_bytes_max=30), ())
    channel = LeanChannel(cast(Connection, Stage()), rules, lambda channel: None)
    channel.begin(b"request", True, flight, results.append, listener)
    channel.data_received(CHUNKED)
    deadlines = []
    for _ in range(3):
        channel.data_received(b"a\r\n0123456789\r\n")
        deadlines.append(flight.deadline)
    assert deadlines[0] < deadlines[1] < deadlines[2]
    assert results == []
    channel.data_received(b"1\r\n0\r\n")
    assert failed(results[0]) is ErrorKind.BODY_TOO_LARGE
    assert listener.body == b"0123456789" * 3


def test_a_body_of_a_stated_length_that_looks_like_chunks_is_handed_on_as_it_is() -> None:
    listener, results = Listener(), list[Reply | Failure]()
    channel = LeanChannel(cast(Connection, Stage()), Rules(Timeouts(), Limits(), ()), lambda channel: None)
    channel.begin(b"request", True, Flight(), results.append, listener)
    for piece in [b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n", *[b"2\r\nok\r\n"] * 3]:
        channel.data_received(piece)
    assert replied(results[0]) == (200, b"")
    assert listener.body == b"2\r\nok\r\n" * 3


class Tap(Stage):
    """A stage that says whether it is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def is_closing(self) -> bool:
        return "abort" in self.said

    def pause_reading(self) -> None:
        self.said.append("pause")

    def resume_reading(self) -> None:
        self.said.append("resume")

    def abort(self) -> None:
        self.said.append("abort")


@pytest.mark.parametrize("is_dropped", [False, True])
def test_a_server_that_floods_waits_until_others_had_their_turn(is_dropped: bool) -> None:
    async def run() -> list[str]:
        tap, order = Tap(), []
        rules = Rules(Timeouts(), Limits(), ())
        channel = LeanChannel(cast(Connection, tap), rules, lambda channel: None)
        channel.begin(b"request", True, Flight(), lambda result: None, Listener())
        piece = b"x" * TURN_BYTES
        channel.data_received(CHUNKED + b"1\r\nx\r\n")
        assert tap.said == [], "a small piece is no flood"
        asyncio.get_running_loop().call_soon(lambda: order.append(tuple(tap.said)))
        channel.data_received(b"%x\r\n%b\r\n" % (len(piece), piece))
        if is_dropped:
            channel.drop(None)
        await asyncio.sleep(0)
        assert order == [("pause", "abort") if is_dropped else ("pause",)]
        return tap.said

    assert asyncio.run(run()) == (["pause", "abort"] if is_dropped else ["pause", "resume"])
