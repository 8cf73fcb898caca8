"""The wire that parses with aiohttp: a coroutine for each slot waits for its reply.

Rules of this file:
1. Parts of aiohttp are used that it does not promise to keep. They are rehearsed before the first request: an aiohttp
   that works otherwise is refused with nothing sent.
2. A slot's coroutine lives as long as the slot: a fixed set of them costs less than a task for every request.
"""

import asyncio
from time import monotonic
from typing import Final, cast

import aiohttp
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader

from engine.core.model import Failure, Reply
from engine.worker.connections import HEADER_LINE_BYTES_MAX, HEADERS_MAX, Connections, Opener, Pooled
from engine.worker.exchange import NEVER, NOTES_MAX, Flight, OnDone, Rules, Sink, encoding_of, works_otherwise
from engine.worker.failures import NETWORK_ERRORS, BrokenReply
from engine.worker.fault import die_of_task

BUFFER_BYTES: Final = 64 * 1024  # of a body, before the server is made to wait


class AiohttpChannel:
    """One open connection."""

    __slots__ = ("_connection", "_is_set", "_protocol", "idle_since", "served")

    def __init__(self, connection: Connection) -> None:
        protocol = connection.protocol
        assert protocol is not None
        self._connection = connection
        self._protocol = protocol
        self._is_set: bool | None = None  # what the parser was told of bodies
        self.served = False
        self.idle_since = 0.0

    @property
    def is_fit(self) -> bool:
        """Whether it is open, and nothing is unread or half done on it."""
        protocol = self._protocol
        return protocol.is_connected() and not protocol.should_close

    def send(self, request: bytes, *, has_body: bool) -> None:
        """Write a whole request. ``has_body``: whether the reply's body follows its head (not for HEAD)."""
        protocol = self._protocol
        if self._is_set is not has_body:
            # One parser serves all replies of a connection, as its grammar intends.
            self._is_set = has_body
            protocol.set_response_params(
                skip_payload=not has_body,
                read_until_eof=True,
                auto_decompress=False,
                read_bufsize=BUFFER_BYTES,
                max_line_size=HEADER_LINE_BYTES_MAX,
                max_field_size=HEADER_LINE_BYTES_MAX,
                max_headers=HEADERS_MAX,
            )
        transport = protocol.transport
        if transport is None:
            raise aiohttp.ServerDisconnectedError
        transport.write(request)

    async def reply(self) -> tuple[RawResponseMessage, StreamReader]:
        """The head of the final reply, and its body to be read. Raises what aiohttp raises."""
        read = self._protocol.read
        for _ in range(NOTES_MAX + 1):
            try:
                message, content = await read()
            except aiohttp.EofStream:
                raise aiohttp.ServerDisconnectedError from None
            # 1xx are notes on the way (RFC 9110, 15.2); 101 would be another protocol.
            if not 100 <= message.code < 200 or message.code == 101:
                return message, content
        raise BrokenReply(f"more than {NOTES_MAX} notes on the way to it")

    def close(self) -> None:
        """Close it."""
        self._connection.close()


class _Slot:
    """The coroutine of a flight that was started, while it is parked or at work."""

    __slots__ = ("waiter", "work")

    def __init__(self) -> None:
        self.work: tuple[bytes, bool, OnDone, Sink | None, bool] | None = None
        self.waiter: asyncio.Future[None] | None = None


class AiohttpWire(Pooled[AiohttpChannel]):
    """See the module."""

    def __init__(self, opener: Opener, rules: Rules) -> None:
        self._loop = asyncio.get_running_loop()
        rehearse(self._loop)
        super().__init__(Connections(opener, AiohttpChannel))
        self._rules = rules
        self._connect_s, self._first_byte_s = rules.timeouts.connect_s, rules.timeouts.first_byte_s

    def start(
        self, request: bytes, has_body: bool, flight: Flight, on_done: OnDone, sink: Sink | None, anew: bool
    ) -> None:
        """Let the flight's own coroutine send it."""
        slot = flight.carrier
        if not isinstance(slot, _Slot):
            slot = flight.carrier = _Slot()
            flight.task = self._loop.create_task(self._serve(flight, slot))
            flight.task.add_done_callback(die_of_task)
        slot.work = request, has_body, on_done, sink, anew
        if slot.waiter is not None:
            slot.waiter.set_result(None)
            slot.waiter = None

    async def _serve(self, flight: Flight, slot: _Slot) -> None:
        """A slot's life: send, hand over what came, park until there is more."""
        send = self.send
        while True:
            work = slot.work
            if work is None:
                waiter = slot.waiter = self._loop.create_future()
                await waiter
                continue
            request, has_body, on_done, sink, anew = work
            result = await send(request, has_body, flight, sink, anew)
            slot.work = None
            on_done(result)

    async def send(
        self, request: bytes, has_body: bool, flight: Flight, sink: Sink | None, anew: bool
    ) -> Reply | Failure:
        """Send it in the caller's task, which ``flight.task`` names for the sweep."""
        flight.expired = False
        flight.sent = flight.first_byte = 0.0
        channel = None if anew else self._connections.take()
        try:
            if channel is None:
                flight.stage = "connection"
                flight.deadline = monotonic() + self._connect_s
                channel = await self._connections.open()
            flight.stage = "first byte"
            flight.sent = sent = monotonic()
            flight.deadline = sent + self._first_byte_s
            channel.send(request, has_body=has_body)
            message, content = await channel.reply()
            flight.first_byte = monotonic()
            result = await self._read(message, content, flight, sink)
            if content.at_eof():  # what is left unread may have made the connection stop reading
                self._connections.give_back(channel)
                channel = None
            return result
        except asyncio.CancelledError:
            if not flight.expired:
                raise
            flight.expired = False
            task = flight.task
            if task is not None:
                task.uncancel()
            return self._rules.timed_out(flight.stage)
        except NETWORK_ERRORS as error:
            return self._rules.failure(
                error, is_sent=channel is not None, reused=channel is not None and channel.served
            )
        finally:
            flight.deadline = NEVER
            if channel is not None:
                channel.close()

    async def _read(
        self, message: RawResponseMessage, content: StreamReader, flight: Flight, sink: Sink | None
    ) -> Reply | Failure:
        status, headers = message.code, message.headers
        if 300 <= status < 400 or status == 101:
            refused = self._rules.refused(status)
            assert refused is not None
            return refused
        encoding = ""
        if hdrs.CONTENT_ENCODING in headers:
            encoding = encoding_of(headers.getall(hdrs.CONTENT_ENCODING))
        if sink is not None and (encoding or not sink.on_headers(status, headers, flight.first_byte)):
            sink = None
        if content.is_eof() and sink is None:
            body = content.read_nowait(-1)
        elif self._rules.declares_too_much(headers):
            return self._rules.too_large(status)
        else:
            read = await self._read_rest(content, flight, sink)
            if read is None:
                return self._rules.too_large(status)
            body = read
        return self._rules.whole(status, headers, body, encoding)

    async def _read_rest(self, content: StreamReader, flight: Flight, sink: Sink | None) -> bytes | None:
        """The body up to its end, empty if a sink has it; None for one over the cap."""
        latest = flight.sent + self._rules.timeouts.total_s
        read_s = self._rules.timeouts.read_s
        bytes_max = self._rules.bytes_max
        parts: list[bytes] = []
        size = 0
        flight.stage = "body"
        while not content.at_eof():
            flight.deadline = min(latest, monotonic() + read_s)
            part = await content.readany()
            size += len(part)
            if size > bytes_max:
                return None
            if sink is None:
                parts.append(part)
            elif part:
                sink.on_data(part, monotonic())
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def expire(self, flight: Flight) -> None:
        """Cancel what waits for it."""
        if flight.task is not None:
            flight.deadline = NEVER
            flight.expired = True
            flight.task.cancel()


class _Stage(asyncio.Transport):
    """A connection without a network, for a rehearsal."""

    def __init__(self, protocol: ResponseHandler) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False


def rehearse(loop: asyncio.AbstractEventLoop) -> None:
    """Send a request and read replies of every kind that matters, without a network. Raises CannotStart."""
    try:
        protocol = ResponseHandler(loop)
        stage = _Stage(protocol)
        protocol.connection_made(stage)
        channel = AiohttpChannel(cast(Connection, stage))
        channel.send(b"request", has_body=True)
        # A note on the way, then a reply that only says it is compressed, so that unasked decompression would show.
        protocol.data_received(
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n"
        )
        protocol.data_received(b"Content-Length: 2\r\n\r\nok")
        coroutine = channel.reply()
        try:
            coroutine.send(None)
        except StopIteration as done:
            message, content = done.value
        finally:
            coroutine.close()
        seen = (stage.written, message.code, message.headers[hdrs.CONTENT_ENCODING], content.is_eof())
        works = (
            seen == (b"request", 200, "gzip", True) and content.read_nowait(-1) == b"ok" and channel.is_fit
        )
        protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray")
        works = works and not channel.is_fit
        cause = None
    except Exception as error:  # whatever it is, it is not what requests were written for
        works, cause = False, error
    if not works:
        raise works_otherwise("aiohttp", aiohttp.__version__) from cause
