"""What arrives of a request is exact to the byte."""

import asyncio
import socket

import pytest
from scripted import Peer, ScriptedServer, reply

from engine.config import Limits, Timeouts
from engine.core.model import Call, Failure, Reply
from engine.credentials import AuthHeader, Secret
from engine.worker.fetch import Fetcher, Flight

pytestmark = pytest.mark.usefixtures("each_wire")

BODY = '{"text": "grüße \N{SNOWMAN} \N{GRINNING FACE}"}'.encode()
TIMEOUTS = Timeouts(connect_s=5, first_byte_s=5, read_s=5, total_s=5)


async def answering(peer: Peer) -> None:
    while await peer.request():
        await peer.send(reply(b"ok"))


async def ask(fetcher: Fetcher, call: Call, key: str = "run-0-0") -> Reply | Failure:
    flight = Flight()
    flight.task = asyncio.current_task()  # type: ignore[assignment]
    fetcher.register(flight)
    return await fetcher.send(call, key, flight)


def seen_of(
    *calls: tuple[str, str, tuple[tuple[str, str], ...], bytes | None],
) -> tuple[list[bytes], int, int]:
    """What a server sees of calls (method, path, headers, body) in turn; its connections and its port."""

    async def run() -> tuple[list[bytes], int, int]:
        async with ScriptedServer(answering) as server:
            key = AuthHeader("Authorization", ("Bearer ", Secret("sk-canary")))
            fetcher = Fetcher(origin=server.origin, auth=(key,), timeouts=TIMEOUTS, limits=Limits())
            for method, path, headers, body in calls:
                result = await ask(fetcher, Call(method, server.origin + path, headers, body))
                assert isinstance(result, Reply), result
            await fetcher.close()
            return server.seen, server.connections, server.port

    return asyncio.run(run())


def test_a_request_arrives_byte_for_byte_with_each_header_once_and_a_length_in_bytes() -> None:
    path = "/v1/chat%20room/completions?api-version=2024-10-21&q=a%26b%2Fc+d"
    seen, _, port = seen_of(("POST", path, (("Content-Type", "application/json"),), BODY))
    assert len(BODY) > len(BODY.decode())
    assert seen == [
        b"POST %b HTTP/1.1\r\n"
        b"Host: 127.0.0.1:%d\r\n"
        b"Content-Type: application/json\r\n"
        b"Accept-Encoding: identity\r\n"
        b"Accept: */*\r\n"
        b"User-Agent: throughput-engine\r\n"
        b"Authorization: Bearer sk-canary\r\n"
        b"Idempotency-Key: run-0-0\r\n"
        b"Content-Length: %d\r\n"
        b"\r\n%b" % (path.encode(), port, len(BODY), BODY)
    ]


def test_requests_that_follow_each_other_on_one_connection_do_not_mix() -> None:
    large = b"x" * 3_000_000
    seen, connections, _ = seen_of(
        ("POST", "/one", (("X-Row", "1"),), large),
        ("GET", "/two?x=1", (), None),
        ("POST", "/three", (("X-Row", "3"), ("X-Row", "4")), b""),
        ("DELETE", "/four", (), None),
    )
    heads = [one.partition(b"\r\n\r\n") for one in seen]
    assert [head.split(b" HTTP/1.1\r\n")[0] for head, _, _ in heads] == [
        b"POST /one", b"GET /two?x=1", b"POST /three", b"DELETE /four",
    ]  # fmt: skip
    assert [len(body) for _, _, body in heads] == [3_000_000, 0, 0, 0]
    assert [head.count(b"X-Row") for head, _, _ in heads] == [1, 0, 2, 0]
    assert [head.lower().count(b"\r\ncontent-length:") for head, _, _ in heads] == [1, 0, 1, 0]
    assert connections == 1


@pytest.mark.parametrize("path", ["/v1/x#part", "/v1/x?q=1#part"])
def test_a_fragment_stays_here(path: str) -> None:
    seen, _, _ = seen_of(("GET", path, (), None))
    assert seen[0].startswith(b"GET %b HTTP/1.1\r\n" % path.partition("#")[0].encode())


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_address_is_reached_and_named_in_brackets_with_its_port() -> None:
    async def run() -> None:
        server = ScriptedServer(answering)
        listener = await asyncio.start_server(server._serve, "::1", 0)
        port = listener.sockets[0].getsockname()[1]
        origin = f"http://[::1]:{port}"
        fetcher = Fetcher(origin=origin, auth=(), timeouts=TIMEOUTS, limits=Limits())
        result = await ask(fetcher, Call("POST", f"{origin}/v1/x", (), BODY))
        await fetcher.close()
        listener.close()
        assert isinstance(result, Reply)
        assert server.seen[0].startswith(b"POST /v1/x HTTP/1.1\r\nHost: [::1]:%d\r\n" % port)

    asyncio.run(run())
