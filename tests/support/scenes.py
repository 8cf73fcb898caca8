"""A fetcher of a scripted server, played through scenes: what the tests of wires share."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping

from scripted import Peer, ScriptedServer

from engine.config import Limits, Timeouts
from engine.core.errors import ErrorKind
from engine.core.model import Call, Failure, Reply
from engine.worker.fetch import Fetcher, Flight

CAP = 100_000
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Handler = Callable[[Peer], Awaitable[None]]
Scene = Callable[["Client"], Awaitable[None]]
Runner = Callable[..., object]


class Listener:
    """A sink that keeps what it hears."""

    def __init__(self, *, wants: bool = True) -> None:
        self.wants = wants
        self.heads: list[tuple[int, Mapping[str, str], float]] = []
        self.pieces: list[tuple[bytes, float]] = []

    def on_headers(self, status: int, headers: Mapping[str, str], at: float) -> bool:
        self.heads.append((status, headers, at))
        return self.wants

    def on_data(self, data: bytes, at: float) -> None:
        self.pieces.append((data, at))

    @property
    def body(self) -> bytes:
        return b"".join(data for data, _ in self.pieces)


class Client:
    """A fetcher of a scripted server, with one flight."""

    def __init__(self, server: ScriptedServer, timeouts: Timeouts, wire: str) -> None:
        self.server = server
        self.fetcher = Fetcher(
            origin=server.origin,
            auth=(),
            timeouts=timeouts,
            limits=Limits(reply_bytes_max=CAP),
            **({"wire": wire} if wire else {}),
        )
        self.flight = Flight()
        self.fetcher.register(self.flight)

    def call(self, method: str = "POST") -> Call:
        return Call(method, f"{self.server.origin}/v1/x", (), b"{}" if method == "POST" else None)

    async def ask(self, method: str = "POST", sink: Listener | None = None) -> Reply | Failure:
        self.flight.task = asyncio.current_task()  # type: ignore[assignment]
        return await self.fetcher.send(self.call(method), "key", self.flight, sink)

    async def sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            self.fetcher.sweep(asyncio.get_running_loop().time())


def play(
    handler: Handler, scene: Scene, *, runner: Runner = asyncio.run, wire: str = "", **timeouts: float
) -> None:
    """Run a scene on a loop of ``runner``'s. Without a ``wire`` it is the one that a Fetcher has by itself."""

    async def run() -> None:
        async with ScriptedServer(handler) as server:
            times = {"connect_s": 5.0, "first_byte_s": 5.0, "read_s": 5.0, "total_s": 5.0, **timeouts}
            client = Client(server, Timeouts(**times), wire)
            sweeper = asyncio.create_task(client.sweep_forever())
            try:
                async with asyncio.timeout(10):
                    await scene(client)
            finally:
                sweeper.cancel()
                await client.fetcher.close()

    runner(run())


def in_turn(*answers: bytes) -> Handler:
    """Answers one after the other on each connection; then waits for its end."""

    async def handler(peer: Peer) -> None:
        for answer in answers:
            if not await peer.request():
                return
            await peer.send(answer)
        await peer.reader.read()

    return handler


def one_then_end(answer: bytes, *, reset: bool = False) -> Handler:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        if reset:
            await asyncio.sleep(0.05)  # what was sent is to arrive
            plain = peer.writer.get_extra_info("socket")
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.reset()

    return handler


def failed(result: Reply | Failure) -> ErrorKind:
    assert isinstance(result, Failure), result
    return result.kind


def replied(result: Reply | Failure) -> tuple[int, bytes]:
    assert isinstance(result, Reply), result
    return result.status, result.body
