"""Connections that are lent out again and again: every reply is that of its own request, and none is kept for ever."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from scripted import Peer, ScriptedServer, reply
from yarl import URL

from engine.config import Limits, Timeouts
from engine.core.errors import ErrorKind
from engine.core.model import Call, Failure, Reply
from engine.credentials import AuthHeader, Secret
from engine.worker import connections
from engine.worker.fetch import Fetcher, Flight, proxy_for

pytestmark = pytest.mark.usefixtures("each_wire")

Scene = Callable[[Fetcher, ScriptedServer], Awaitable[None]]


def play(handler: Callable[[Peer], Awaitable[None]], scene: Scene, **changes: object) -> None:
    """Run a scene with a fetcher whose origin is a scripted server."""

    async def run() -> None:
        async with ScriptedServer(handler) as server:
            settings: dict[str, object] = {
                "origin": server.origin,
                "auth": (),
                "timeouts": Timeouts(connect_s=5, first_byte_s=5, read_s=5, total_s=5),
                "limits": Limits(),
                **changes,
            }
            fetcher = Fetcher(**settings)  # type: ignore[arg-type]
            try:
                await scene(fetcher, server)
            finally:
                await fetcher.close()

    asyncio.run(run())


async def ask(fetcher: Fetcher, origin: str, method: str = "POST") -> Reply | Failure:
    flight = Flight()
    flight.task = asyncio.current_task()  # type: ignore[assignment]
    fetcher.register(flight)
    body = b"{}" if method == "POST" else None
    return await fetcher.send(Call(method, f"{origin}/v1/x", (), body), "key", flight)


def in_turn(*answers: bytes) -> Callable[[Peer], Awaitable[None]]:
    async def handler(peer: Peer) -> None:
        for answer in answers:
            if not await peer.request():
                return
            await peer.send(answer)
        await peer.request()

    return handler


def test_replies_of_every_framing_follow_each_other_on_one_connection() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n4\r\n-two\r\n0\r\n\r\n"
    trailer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nT\r\n0\r\nX-A: 1\r\n\r\n"
    answers = [chunked, reply(b"plain"), b"HTTP/1.1 204 No Content\r\n\r\n", trailer, reply(b"", "500 Oops")]

    async def scene(fetcher: Fetcher, server: ScriptedServer) -> None:
        seen = [await ask(fetcher, server.origin) for _ in answers]
        assert [(one.status, one.body) for one in seen if isinstance(one, Reply)] == [
            (200, b"one-two"), (200, b"plain"), (204, b""), (200, b"T"), (500, b""),
        ]  # fmt: skip
        assert server.connections == 1

    play(in_turn(*answers), scene)


def test_a_reply_that_ends_with_its_connection_is_whole_and_the_next_one_gets_a_new_connection() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nto the end")
        peer.writer.close()

    async def scene(fetcher: Fetcher, server: ScriptedServer) -> None:
        for _ in range(2):
            one = await ask(fetcher, server.origin)
            assert isinstance(one, Reply) and one.body == b"to the end"
        assert server.connections == 2

    play(handler, scene)


def test_a_large_body_that_nobody_reads_does_not_stop_its_connection_for_the_next_reply() -> None:
    page = reply(b"x" * 200_000, "302 Found", extra=b"Location: /elsewhere\r\n")

    async def handler(peer: Peer) -> None:
        while await peer.request():
            await peer.send(page if len(peer._seen) == 1 else reply(b"y" * 400_000))

    async def scene(fetcher: Fetcher, server: ScriptedServer) -> None:
        refused = await ask(fetcher, server.origin)
        assert isinstance(refused, Failure) and refused.kind is ErrorKind.REDIRECT_REFUSED
        async with asyncio.timeout(3):
            one = await ask(fetcher, server.origin)
        assert isinstance(one, Reply) and len(one.body) == 400_000

    play(handler, scene)


def test_a_head_request_has_no_body_to_wait_for_and_leaves_the_connection_fit_for_others() -> None:
    async def scene(fetcher: Fetcher, server: ScriptedServer) -> None:
        head = await ask(fetcher, server.origin, "HEAD")
        post = await ask(fetcher, server.origin)
        assert isinstance(head, Reply) and (head.status, head.body) == (200, b"")
        assert isinstance(post, Reply) and post.body == b"body"
        assert server.connections == 1

    play(in_turn(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", reply(b"body")), scene)


def test_notes_on_the_way_are_not_the_reply() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

    async def scene(fetcher: Fetcher, server: ScriptedServer) -> None:
        for body in (b"first", b"second"):
            one = await ask(fetcher, server.origin)
            assert isinstance(one, Reply) and (one.status, one.body) == (200, body)

    play(in_turn(b"HTTP/1.1 100 Continue\r\n\r\n" + early + reply(b"first"), reply(b"second")), scene)


def test_notes_without_end_are_cut_off_long_before_the_time_out() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        while True:
            await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 500)

    async def scene(fetcher: Fetcher, server: ScriptedServer) -> None:
        one = await ask(fetcher, server.origin)
        assert isinstance(one, Failure) and one.kind is ErrorKind.PROTOCOL_ERROR

    play(handler, scene)


def test_a_call_may_ask_for_a_new_connection_although_there_are_idle_ones() -> None:
    async def scene(fetcher: Fetcher, server: ScriptedServer) -> None:
        call = Call("POST", f"{server.origin}/v1/x", (), b"{}")
        for anew, opened in ((False, 1), (False, 1), (True, 2), (False, 2)):
            assert isinstance(await fetcher.send(call, "key", Flight(), anew=anew), Reply)
            assert server.connections == opened

    play(in_turn(*[reply(b"body")] * 4), scene)


def test_two_replies_to_one_request_give_one_and_the_other_is_never_used() -> None:
    async def handler(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(reply(b"mine") + reply(b"stray") if request else b"")
        await peer.request()

    async def scene(fetcher: Fetcher, server: ScriptedServer) -> None:
        for _ in range(3):
            one = await ask(fetcher, server.origin)
            assert isinstance(one, Reply) and one.body == b"mine"
        assert server.connections == 3

    play(handler, scene)


def test_idle_connections_are_closed_before_the_server_would_and_at_once_when_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone: list[bytes] = []

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply(b"ok"))
        gone.append(await peer.request())

    async def scene(fetcher: Fetcher, server: ScriptedServer) -> None:
        await ask(fetcher, server.origin)
        fetcher.sweep(0.0)
        await asyncio.sleep(0.05)
        assert gone == []  # not yet
        monkeypatch.setattr(connections, "KEEPALIVE_S", -1.0)
        fetcher.sweep(0.0)
        await asyncio.sleep(0.05)
        assert gone == [b""]  # the server saw the end

    play(handler, scene)


def test_a_handshake_that_hangs_ends_at_the_connect_time_out_and_nothing_was_sent() -> None:
    async def handler(peer: Peer) -> None:
        await peer.reader.read()

    async def scene(fetcher: Fetcher, server: ScriptedServer) -> None:
        async def sweeps() -> None:
            while True:
                await asyncio.sleep(0.01)
                fetcher.sweep(asyncio.get_running_loop().time())

        sweeper = asyncio.create_task(sweeps())
        origin = server.origin.replace("http:", "https:")
        secure = Fetcher(
            origin=origin,
            auth=(),
            timeouts=Timeouts(connect_s=0.1, first_byte_s=9, read_s=9, total_s=9),
            limits=Limits(),
        )
        flight = Flight()
        flight.task = asyncio.current_task()  # type: ignore[assignment]
        secure.register(flight)
        fetcher.register(flight)
        try:
            failure = await secure.send(Call("POST", f"{origin}/v1/x", (), b"{}"), "key", flight)
        finally:
            sweeper.cancel()
            await secure.close()
        assert isinstance(failure, Failure)
        assert failure.kind is ErrorKind.TIMEOUT
        assert "nothing was sent" in failure.message
        assert server.seen == []

    play(handler, scene)


def test_a_proxy_is_used_only_when_asked_for_and_not_for_what_it_is_told_to_leave_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with ScriptedServer(in_turn(reply(b"by proxy"))) as proxy:
            monkeypatch.setenv("http_proxy", proxy.origin.replace("//", "//me:secret@"))
            monkeypatch.setenv("no_proxy", "")
            origin = "http://far.example:8000"
            timeouts = Timeouts(connect_s=5, first_byte_s=5, read_s=5, total_s=5)
            asked = Fetcher(origin=origin, auth=(), timeouts=timeouts, limits=Limits(), trust_env=True)
            one = await ask(asked, origin)
            await asked.close()
            assert isinstance(one, Reply) and one.body == b"by proxy"
            assert proxy.seen[0].startswith(
                b"POST http://far.example:8000/v1/x HTTP/1.1\r\nHost: far.example:8000"
            )
            assert b"\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n" in proxy.seen[0]
            monkeypatch.setenv("no_proxy", "far.example")
            assert proxy_for(URL(origin)) is None
        async with ScriptedServer(in_turn(reply(b"direct"))) as server:
            monkeypatch.setenv("no_proxy", "")
            unasked = Fetcher(origin=server.origin, auth=(), timeouts=timeouts, limits=Limits())
            one = await ask(unasked, server.origin)
            await unasked.close()
            assert isinstance(one, Reply) and one.body == b"direct"

    asyncio.run(run())


def test_what_goes_to_a_secure_origin_passes_a_proxy_in_a_tunnel_and_the_proxy_sees_no_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with ScriptedServer(in_turn(reply(b"", "407 Who are you"))) as proxy:
            monkeypatch.setenv("https_proxy", proxy.origin.replace("//", "//me:secret@"))
            monkeypatch.setenv("no_proxy", "")
            origin = "https://far.example"
            key = AuthHeader("Authorization", ("Bearer ", Secret("sk-canary")))
            timeouts = Timeouts(connect_s=5, first_byte_s=5, read_s=5, total_s=5)
            asked = Fetcher(origin=origin, auth=(key,), timeouts=timeouts, limits=Limits(), trust_env=True)
            refused = await ask(asked, origin)
            await asked.close()
            assert isinstance(refused, Failure)
            assert "proxy" in refused.message
            assert proxy.seen[0].startswith(b"CONNECT far.example:443 HTTP/1.1\r\n")
            assert b"Proxy-Authorization: Basic bWU6c2VjcmV0" in proxy.seen[0]
            assert b"canary" not in b"".join(proxy.seen)

    asyncio.run(run())
