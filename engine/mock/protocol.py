"""HTTP/1.1 on one connection: requests come out of httptools' parser, replies go out in order.

Rules of this file:
1. One write per reply, no task per request. Replies keep the order of their requests, however they are due.
2. A reply is counted when its last byte was handed to a transport that is open, never before.
"""

import asyncio
import socket
import struct
from collections import deque
from typing import Protocol, cast

import httptools

from engine.mock.log import Record, TruthLog
from engine.mock.refusals import error_reply
from engine.mock.replies import End, Reply
from engine.mock.wheel import Wheel

RETRY_WRITE_S = 0.005  # how long a piece waits when the peer reads slower than we write
_LINGER_NONE = struct.pack("ii", 1, 0)  # close by RST
_KEPT_HEADERS = frozenset((b"authorization", b"x-api-key", b"api-key", b"idempotency-key", b"expect"))


class Exchange:
    """One request and its reply, waiting on the wheel or in its connection's line."""

    __slots__ = ("at_s", "begun", "closes", "connection", "is_due", "log", "piece", "record", "reply", "row", "settles")

    def __init__(self, connection: "Connection", log: TruthLog | None, closes: bool) -> None:
        self.connection: Connection | None = connection
        self.log = log  # None: not part of the statistics
        self.closes = closes
        self.row: int | None = None
        self.record: Record | None = None
        self.reply: Reply | None = None
        self.piece = b""
        self.at_s = 0.0
        self.settles = False  # output tokens are charged when the reply is out
        self.begun = False
        self.is_due = False

    def due(self) -> None:
        """Its time has come: send, or wait for the replies before it."""
        if self.connection is not None:
            self.connection.deliver(self)


class Handler(Protocol):
    """What a connection needs of the server."""

    wheel: Wheel
    body_bytes_max: int

    def connected(self, connection: "Connection") -> int: ...
    def disconnected(self, connection: "Connection") -> None: ...
    def handle(self, connection: "Connection", method: bytes, url: bytes, body: bytes, closes: bool) -> None: ...
    def sent(self, exchange: Exchange) -> None: ...


class Connection(asyncio.Protocol):
    """One client connection."""

    def __init__(self, server: Handler) -> None:
        self._server = server
        self._parser: httptools.HttpRequestParser | None = None
        self._url = b""
        self._body: bytes | bytearray = b""
        self._wants_all_headers = False
        self._is_paused = False
        self._is_closing = False
        self.transport: asyncio.Transport
        self.headers: dict[bytes, bytes] = {}
        self.pending: deque[Exchange] = deque()
        self.number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self.number = self._server.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self._parser = None  # it holds this object: without it both go at once
        for exchange in self.pending:
            exchange.connection = None
            if exchange.log is not None:
                exchange.log.gave_up()
        self.pending.clear()
        self._server.disconnected(self)

    def pause_writing(self) -> None:
        self._is_paused = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_paused = False
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._is_closing:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # a fault of ours: let the loop report it
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(400, "This is not an HTTP/1.1 request this server understands")

    def on_message_begin(self) -> None:
        self._url = self._body = b""
        self._wants_all_headers = False
        self.headers = {}

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._wants_all_headers = self._url.startswith(b"/echo")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _KEPT_HEADERS or self._wants_all_headers:
            self.headers[name] = value

    def on_headers_complete(self) -> None:
        if self.headers.get(b"expect", b"").lower() == b"100-continue" and not self.pending:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if not self._body:
            self._body = body
            return
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        if len(self._body) + len(body) > self._server.body_bytes_max:
            self._refuse(413, "The request's body is larger than this server accepts")
        elif not self._is_closing:
            self._body += body

    def on_message_complete(self) -> None:
        if self._is_closing:
            return
        assert self._parser is not None
        closes = not self._parser.should_keep_alive()
        self._server.handle(self, self._parser.get_method(), self._url, bytes(self._body), closes)

    def deliver(self, exchange: Exchange) -> None:
        """Send a reply whose time has come, and those that only waited for it."""
        pending = self.pending
        if pending[0] is not exchange:
            exchange.is_due = True
            return
        self._send(exchange)
        while pending and pending[0].is_due and not self._is_closing:
            self._send(pending[0])

    def _send(self, exchange: Exchange) -> None:
        reply = exchange.reply
        assert reply is not None
        exchange.is_due = False
        if self.transport.is_closing():
            return  # connection_lost comes soon and counts it as abandoned
        if not exchange.begun:
            exchange.begun = True
            if reply.data:
                self.transport.write(reply.data)
        elif self._is_paused:
            exchange.at_s += RETRY_WRITE_S
            self._server.wheel.add(exchange.at_s, exchange)
            return
        elif exchange.piece:
            self.transport.write(exchange.piece)
        if reply.rest is not None:
            piece = next(reply.rest, None)
            if piece is not None:
                exchange.piece = piece
                exchange.at_s += reply.step_s
                self._server.wheel.add(exchange.at_s, exchange)
                return
        self._finish(exchange, reply)

    def _finish(self, exchange: Exchange, reply: Reply) -> None:
        if reply.end is End.HANG:
            return  # stays at the head of the line until the client gives up
        self.pending.popleft()
        self._server.sent(exchange)
        if reply.end is End.RESET:
            self._reset()
        elif reply.end is End.CLOSE or exchange.closes:
            self._is_closing = True
            self.transport.close()

    def _reset(self) -> None:
        self._is_closing = True
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        self.transport.abort()

    def _refuse(self, status: int, message: str) -> None:
        if not self._is_closing:
            self._is_closing = True
            self.transport.write(error_reply("openai", status, message, b"connection: close\r\n").data)
            self.transport.close()
