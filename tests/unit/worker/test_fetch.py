"""The one place that sends: what it refuses, what it caps, and what it makes of broken servers."""

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable

import pytest
from scripted import Peer, ScriptedServer, reply

from engine.config import Limits, Timeouts
from engine.core.errors import ErrorKind
from engine.core.model import Call, Failure, Reply
from engine.credentials import AuthHeader, Secret
from engine.worker.fetch import Fetcher, Flight

pytestmark = pytest.mark.usefixtures("each_wire")

HEADERS = (("Content-Type", "application/json"),)
CAP = 100_000


def send(
    handler: Callable[[Peer], Awaitable[None]],
    *,
    times: int = 1,
    pause_s: float = 0.0,
    sweep: bool = False,
    method: str = "POST",
    url: str = "",
    timeouts: Timeouts | None = None,
) -> tuple[list[Reply | Failure], ScriptedServer]:
    """Send ``times`` calls one after the other to a scripted server."""

    async def run() -> tuple[list[Reply | Failure], ScriptedServer]:
        async with ScriptedServer(handler) as server:
            fetcher = Fetcher(
                origin=server.origin,
                auth=(AuthHeader("x-api-key", (Secret("sk-canary-123"),)),),
                timeouts=timeouts or Timeouts(connect_s=5, first_byte_s=5, read_s=5, total_s=5),
                limits=Limits(reply_bytes_max=CAP),
            )
            flight = Flight()
            flight.task = asyncio.current_task()  # type: ignore[assignment]
            fetcher.register(flight)
            sweeper = asyncio.create_task(sweep_forever(fetcher)) if sweep else None
            results = []
            for number in range(times):
                target = (url or "{origin}/v1/x").format(origin=server.origin)
                body = b'{"n": %d}' % number if method == "POST" else None
                results.append(
                    await fetcher.send(Call(method, target, HEADERS, body), f"key-{number}", flight)
                )
                await asyncio.sleep(pause_s)
            if sweeper is not None:
                sweeper.cancel()
            await fetcher.close()
            return results, server

    return asyncio.run(run())


async def sweep_forever(fetcher: Fetcher) -> None:
    while True:
        await asyncio.sleep(0.01)
        fetcher.sweep(asyncio.get_running_loop().time())


def always(data: bytes) -> Callable[[Peer], Awaitable[None]]:
    async def handler(peer: Peer) -> None:
        while await peer.request():
            await peer.send(data)

    return handler


def kind_of(result: Reply | Failure) -> ErrorKind:
    assert isinstance(result, Failure), result
    return result.kind


def test_a_reply_comes_back_whole_with_its_status_and_headers() -> None:
    results, _ = send(always(reply(b'{"a": 1}', extra=b"X-Request-Id: r1\r\n")))
    assert isinstance(results[0], Reply)
    assert (results[0].status, results[0].body) == (200, b'{"a": 1}')
    assert results[0].headers.get("x-request-id") == "r1"


def test_the_key_and_an_idempotency_key_go_out_with_the_body_in_the_request() -> None:
    _, server = send(always(reply()))
    head = server.seen[0].lower()
    assert b"x-api-key: sk-canary-123" in head
    assert b"idempotency-key: key-0" in head
    assert server.seen[0].endswith(b'{"n": 0}')


def test_connections_are_kept_alive_and_used_again() -> None:
    results, server = send(always(reply()), times=5)
    assert all(isinstance(result, Reply) for result in results)
    assert server.connections == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_nothing_reaches_the_second_host(status: int) -> None:
    async def run() -> None:
        async with ScriptedServer(always(reply())) as second:
            location = f"Location: {second.origin}/steal\r\n".encode()
            results, _ = await asyncio.to_thread(send, always(reply(b"", f"{status} Moved", extra=location)))
            assert kind_of(results[0]) is ErrorKind.REDIRECT_REFUSED
            assert second.connections == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.2:1/v1/x",
        "https://{origin_host}/v1",
        "http://user:pw@127.0.0.1/v1",
        "http://169.254.169.254/",
    ],
)
def test_a_call_to_any_other_origin_is_not_sent(url: str) -> None:
    results, server = send(always(reply()), url=url.replace("{origin_host}", "127.0.0.1"))
    assert kind_of(results[0]) is ErrorKind.BAD_REQUEST
    assert server.connections == 0


def test_a_declared_length_over_the_cap_is_refused_unread() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx")
        await peer.reader.read()

    results, _ = send(handler)
    assert kind_of(results[0]) is ErrorKind.BODY_TOO_LARGE


def test_an_endless_body_is_cut_at_the_cap() -> None:
    sent = 0

    async def handler(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"2000\r\n" + b"x" * 0x2000 + b"\r\n"
        while True:
            await peer.send(chunk)
            sent += len(chunk)

    results, _ = send(handler)
    assert kind_of(results[0]) is ErrorKind.BODY_TOO_LARGE
    assert sent < 100 * CAP


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw"])
def test_a_compressed_reply_is_understood_although_none_was_asked_for(encoding: str) -> None:
    plain = b'{"text": "' + b"a" * 1000 + b'"}'
    raw = zlib.compressobj(wbits=-15)
    packed = {
        "gzip": gzip.compress(plain),
        "deflate": zlib.compress(plain),
        "raw": raw.compress(plain) + raw.flush(),
    }[encoding]
    name = b"gzip" if encoding == "gzip" else b"deflate"
    results, _ = send(always(reply(packed, extra=b"Content-Encoding: " + name + b"\r\n")))
    assert isinstance(results[0], Reply)
    assert results[0].body == plain


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_decompression_bomb_is_cut_at_the_cap(pack: Callable[[bytes], bytes]) -> None:
    name = b"gzip" if pack is gzip.compress else b"deflate"
    bomb = pack(b"0" * 50_000_000)
    assert len(bomb) < CAP
    results, _ = send(always(reply(bomb, extra=b"Content-Encoding: " + name + b"\r\n")))
    assert kind_of(results[0]) is ErrorKind.BODY_TOO_LARGE


def test_a_bomb_takes_no_more_memory_than_a_few_times_the_cap() -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    tracemalloc.start()
    results, _ = send(always(reply(bomb, extra=b"Content-Encoding: gzip\r\n")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kind_of(results[0]) is ErrorKind.BODY_TOO_LARGE
    assert peak < 8_000_000


def test_an_encoding_that_was_not_asked_for_is_a_protocol_error() -> None:
    results, _ = send(always(reply(b"zz", extra=b"Content-Encoding: br\r\n")))
    assert kind_of(results[0]) is ErrorKind.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("encodings", "rest"),
    [
        ((b"gzip",), gzip.compress(b"more", mtime=0)),
        ((b"gzip",), b"waste"),
        ((b"gzip", b"br"), b""),
        ((b"identity", b"gzip"), b""),
    ],
)
def test_a_body_that_is_only_partly_understood_is_no_reply(encodings: tuple[bytes, ...], rest: bytes) -> None:
    lines = b"".join(b"Content-Encoding: %b\r\n" % encoding for encoding in encodings)
    results, _ = send(always(reply(gzip.compress(b"{}") + rest, extra=lines)))
    assert kind_of(results[0]) is ErrorKind.PROTOCOL_ERROR


def test_a_truncated_body_is_never_a_reply() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"half"')

    results, _ = send(handler)
    assert kind_of(results[0]) is ErrorKind.PROTOCOL_ERROR


def test_a_connection_reset_before_the_reply_is_a_reset_on_a_new_connection() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    results, _ = send(handler)
    assert kind_of(results[0]) is ErrorKind.CONNECTION_RESET


def test_a_connection_closed_under_a_second_request_is_a_stale_keepalive() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply())
        await peer.request()
        peer.reset()

    results, server = send(handler, times=2)
    assert isinstance(results[0], Reply)
    assert kind_of(results[1]) is ErrorKind.STALE_KEEPALIVE
    assert server.connections == 1


def test_a_get_on_a_stale_connection_is_not_resent_behind_our_back() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply())
        await peer.request()
        peer.reset()

    results, server = send(handler, times=2, method="GET")
    assert kind_of(results[1]) is ErrorKind.STALE_KEEPALIVE
    assert len(server.seen) == 2


def test_bytes_nobody_asked_for_never_become_the_answer_to_the_next_request() -> None:
    async def handler(peer: Peer) -> None:
        while request := await peer.request():
            number = request[-2:-1]
            await peer.send(reply(b"answer " + number))
            await asyncio.sleep(0.01)
            await peer.send(reply(b"smuggled"))

    results, _ = send(handler, times=6, pause_s=0.05)
    for number, result in enumerate(results):
        assert isinstance(result, Failure) or result.body == b"answer %d" % number
    assert isinstance(results[0], Reply)


def test_garbage_instead_of_http_is_a_protocol_error() -> None:
    results, _ = send(always(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"))
    assert kind_of(results[0]) is ErrorKind.PROTOCOL_ERROR


def test_no_reply_in_time_is_a_timeout_that_says_it_may_have_been_billed() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.reader.read()

    limits = Timeouts(connect_s=1, first_byte_s=0.05, read_s=0.05, total_s=0.2)
    results, _ = send(handler, sweep=True, timeouts=limits)
    assert kind_of(results[0]) is ErrorKind.TIMEOUT
    assert isinstance(results[0], Failure)
    assert "billed" in results[0].message


def test_a_body_that_trickles_ends_at_the_total_timeout() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            await peer.send(b"x")
            await asyncio.sleep(0.01)

    limits = Timeouts(connect_s=1, first_byte_s=5, read_s=5, total_s=0.2)
    results, _ = send(handler, sweep=True, timeouts=limits)
    assert kind_of(results[0]) is ErrorKind.TIMEOUT


def test_the_slot_can_send_again_after_a_timeout() -> None:
    first = True

    async def handler(peer: Peer) -> None:
        nonlocal first
        await peer.request()
        if first:
            first = False
            await peer.reader.read()
        await peer.send(reply(b"late but right"))

    limits = Timeouts(connect_s=1, first_byte_s=0.1, read_s=1, total_s=1)
    results, _ = send(handler, times=2, sweep=True, timeouts=limits)
    assert kind_of(results[0]) is ErrorKind.TIMEOUT
    assert isinstance(results[1], Reply)


def test_a_closed_port_is_connect_refused() -> None:
    async def run() -> Reply | Failure:
        fetcher = Fetcher(origin="http://127.0.0.1:1", auth=(), timeouts=Timeouts(), limits=Limits())
        result = await fetcher.send(Call("POST", "http://127.0.0.1:1/x", HEADERS, b"{}"), "k", Flight())
        await fetcher.close()
        return result

    assert kind_of(asyncio.run(run())) is ErrorKind.CONNECT_REFUSED


def test_an_unknown_host_is_a_dns_failure() -> None:
    async def run() -> Reply | Failure:
        origin = "http://no-such-host.invalid"
        fetcher = Fetcher(origin=origin, auth=(), timeouts=Timeouts(), limits=Limits())
        result = await fetcher.send(Call("POST", f"{origin}/x", HEADERS, b"{}"), "k", Flight())
        await fetcher.close()
        return result

    assert kind_of(asyncio.run(run())) is ErrorKind.DNS


def test_a_line_end_in_a_header_is_refused_and_not_sent() -> None:
    async def run() -> tuple[Reply | Failure, int]:
        async with ScriptedServer(always(reply())) as server:
            fetcher = Fetcher(origin=server.origin, auth=(), timeouts=Timeouts(), limits=Limits())
            call = Call("POST", f"{server.origin}/x", (("X-Row", "a\r\nEvil: 1"),), b"{}")
            result = await fetcher.send(call, "k", Flight())
            await fetcher.close()
            return result, len(server.seen)

    result, seen = asyncio.run(run())
    assert kind_of(result) is ErrorKind.BAD_REQUEST
    assert seen == 0


def test_cookies_are_not_kept() -> None:
    _, server = send(always(reply(extra=b"Set-Cookie: a=b\r\n")), times=3)
    assert not any(b"cookie" in seen.lower() for seen in server.seen)


def test_a_key_that_a_server_echoes_is_masked_in_the_failure() -> None:
    results, _ = send(always(b"HTTP/1.1 200 sk-canary-123\r\nbad header sk-canary-123\r\n\r\n"))
    assert isinstance(results[0], Failure)
    assert "canary" not in results[0].message
