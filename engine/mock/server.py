"""The mock provider's sockets: one protocol per connection, replies in the order of requests, one write each.

Rules of this file:
1. No task per request: a reply that takes time waits in the wheel.
2. Requests on one connection are answered in order, also when they are pipelined. HEAD is answered without a body.
"""

import asyncio
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import replace
from types import TracebackType
from typing import Self, cast

import httptools
import msgspec

from engine.mock.brain import Brain
from engine.mock.log import Record
from engine.mock.questions import Route, route_of
from engine.mock.refusals import error_reply
from engine.mock.replies import JSON, LINES, End, Reply, whole, without_body
from engine.mock.settings import MockSettings, changed
from engine.mock.wheel import Wheel

_ADMIN = frozenset(("stats", "reset", "control", "log"))
BACKLOG = 8192


class _Pending:
    """One reply on its way."""

    __slots__ = ("connection", "ready", "record", "reply", "row")

    def __init__(
        self, connection: "_Connection", reply: Reply, row: int | None, record: Record | None
    ) -> None:
        self.connection = connection
        self.record = record
        self.reply = reply
        self.row = row
        self.ready = False

    def due(self) -> None:
        """Its time has come, unless the server is frozen."""
        server = self.connection.server
        now = server.loop.time()
        frozen_s = server.brain.frozen_s(now)
        if frozen_s > 0.0:
            server.wheel.add(now + frozen_s, self)
            return
        self.ready = True
        self.connection.write_ready()


class _Connection(asyncio.Protocol):
    """One client connection."""

    def __init__(self, server: "MockServer") -> None:
        self.server = server
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._auth = b""
        self._key = b""
        self._body: list[bytes] = []
        self._size = 0
        self._waiting: deque[_Pending] = deque()
        self._streaming = False

    # --- asyncio ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by behaviour only
        self.server.connections.add(self)
        self.server.brain.log.connections += 1

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.server.connections.discard(self)
        if self._waiting:
            self.server.brain.log.gave_up(len(self._waiting))
            self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.abort()
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.write(
                    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
                self._transport.close()

    # --- httptools ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url = self._auth = self._key = b""
        self._body.clear()
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) in (13, 9, 7) and name.lower() in (b"authorization", b"x-api-key", b"api-key"):
            self._auth = value
        elif len(name) == 15 and name.lower() == b"idempotency-key":
            self._key = value

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= self.server.brain.settings.body_bytes_max:
            self._body.append(body)

    def on_message_complete(self) -> None:
        server = self.server
        path, _, query = self._url.partition(b"?")
        route = route_of(path, query)
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        now = time.monotonic()  # finer than the loop's own time, which is the iteration's
        if route is not None and route.api in _ADMIN:
            self._queue(server.administer(route, body, query), 0.0, None, counted=False)
            return
        if self._size > server.brain.settings.body_bytes_max:
            server.brain.log.arrived(now, "other", None, 0)
            self._queue(error_reply("openai", 413, "The request body is too large"), 0.0, None)
            return
        charged = server.brain.log.tokens_charged
        reply, wait_s, row = server.brain.answer(route, path.decode("latin-1"), body, self._auth, now)
        if not self._parser.should_keep_alive() and reply.end is End.KEEP:
            reply = replace(reply, end=End.CLOSE)
        log = server.brain.log
        record = None
        if log.records is not None:
            method = self._parser.get_method().decode("latin-1")
            name = "" if row is None else f"{row:016x}"
            key = self._key.decode("latin-1")
            tokens = log.tokens_charged - charged
            record = Record(
                log.requests,
                now,
                id(self),
                method,
                path.decode("latin-1"),
                name,
                key,
                tokens,
                fault=log.last_fault,
            )
            log.keep(record)
        self._queue(reply, wait_s, row, record=record)

    # --- replies ------------------------------------------------------------------------------------------

    def _queue(
        self,
        reply: Reply,
        wait_s: float,
        row: int | None,
        *,
        counted: bool = True,
        record: Record | None = None,
    ) -> None:
        if self._parser.get_method() == b"HEAD":
            reply = without_body(reply)
        pending = _Pending(self, reply, row if counted else -1, record)
        self._waiting.append(pending)
        if not counted:
            self.server.brain.log.in_flight += 1
        if wait_s > 0.0:
            self.server.wheel.add(self.server.loop.time() + wait_s, pending)
        else:
            pending.due()

    def write_ready(self) -> None:
        """Write every reply whose time has come, in order."""
        waiting = self._waiting
        while waiting and waiting[0].ready and not self._streaming and self._transport is not None:
            pending = waiting[0]
            reply = pending.reply
            if reply.end is End.HANG:
                return
            if reply.data:
                self._transport.write(reply.data)
            if reply.rest is not None:
                self._streaming = True
                self.server.spawn(self._stream(pending))
                return
            self._done(pending)

    def _done(self, pending: _Pending) -> None:
        self._waiting.popleft()
        log = self.server.brain.log
        if pending.row == -1:
            log.in_flight -= 1
        else:
            log.answered(pending.row, pending.reply.status, full=pending.reply.full)
        record = pending.record
        if record is not None:
            record.status, record.full = pending.reply.status, pending.reply.full
            record.done_s = self.server.loop.time()
        if pending.reply.end is End.RESET:
            self.abort()
        elif pending.reply.end is End.CLOSE and self._transport is not None:
            self._transport.close()

    async def _stream(self, pending: _Pending) -> None:
        """Further pieces, ``step_s`` apart, no faster than the client reads."""
        reply = pending.reply
        assert reply.rest is not None
        for piece in reply.rest:
            if reply.step_s:
                await asyncio.sleep(reply.step_s)
            while (frozen_s := self.server.brain.frozen_s(self.server.loop.time())) > 0.0:
                await asyncio.sleep(frozen_s)
            transport = self._transport
            while transport is not None and transport.get_write_buffer_size() > 1_000_000:
                await asyncio.sleep(0.001)
                transport = self._transport
            if transport is None:
                return
            transport.write(piece)
        self._streaming = False
        self._done(pending)
        self.write_ready()

    def abort(self) -> None:
        """Tear the connection down with a reset, as a crashed server's kernel does."""
        if self._transport is None:
            return
        plain = self._transport.get_extra_info("socket")
        if plain is not None:
            # Without lingering the kernel sends RST instead of FIN.
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


class MockServer:
    """The mock provider on a running event loop."""

    def __init__(self, settings: MockSettings) -> None:
        self.brain = Brain(settings)
        self.loop = asyncio.get_running_loop()
        self.wheel = Wheel(self.loop)
        self.connections: set[_Connection] = set()
        self._streams: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> int:
        """Listen; the port."""
        settings = self.brain.settings
        context = None
        if settings.tls_cert:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
        self._server = await self.loop.create_server(
            lambda: _Connection(self), settings.host, settings.port, backlog=BACKLOG, ssl=context
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.abort()
        self.wheel.close()
        for task in list(self._streams):
            task.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def base_url(self) -> str:
        """Where OpenAI's paths begin."""
        return f"{'https' if self.brain.settings.tls_cert else 'http'}://127.0.0.1:{self.port}/v1"

    def stats(self) -> dict[str, object]:
        """What arrived; see ``TruthLog.snapshot``."""
        return self.brain.log.snapshot()

    def spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        """Run a stream's pieces beside everything else."""
        task = self.loop.create_task(coroutine)
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)

    def administer(self, route: Route, body: bytes, query: bytes) -> Reply:
        """``/stats``, ``/log``, ``/reset`` and ``/control``."""
        if route.api == "reset":
            self.brain.reset()
        elif route.api == "control":
            try:
                self.brain.change(changed(self.brain.settings, msgspec.json.decode(body)))
            except (ValueError, TypeError, msgspec.MsgspecError) as error:
                return whole(400, JSON, msgspec.json.encode({"error": str(error)}))
        elif route.api == "log":
            return whole(200, LINES, b"".join(self.brain.log.json_lines()))
        windows = [float(part[7:]) for part in query.split(b"&") if part.startswith(b"window=")]
        return whole(200, JSON, msgspec.json.encode(self.brain.log.snapshot(windows)))
