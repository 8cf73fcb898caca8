"""The lean wire: HTTP/1.1 with keep-alive straight on the loop's transports, parsed by httptools.

Rules of this file:
1. A request that finds an idle connection takes no task, no future and no timer; only opening a connection takes a task.
2. What httptools is relied on for is rehearsed before the first request, without a network: one that works otherwise is
   refused with nothing sent.
3. Connections are opened as the other wire's are (names, addresses, TLS, proxies), and closed for the same reasons.
"""

import asyncio
from time import monotonic
from typing import cast

import httptools
from aiohttp.connector import Connection

from engine.core.model import Failure, Reply
from engine.worker.connections import Connections, Opener, Pooled
from engine.worker.exchange import NEVER, Flight, OnDone, Rules, Sink, works_otherwise
from engine.worker.failures import NETWORK_ERRORS
from engine.worker.fault import die_of_task
from engine.worker.wires.lean_channel import LeanChannel


class LeanWire(Pooled[LeanChannel]):
    """See the module."""

    def __init__(self, opener: Opener, rules: Rules) -> None:
        self._loop = asyncio.get_running_loop()
        rehearse(rules)
        self._rules = rules
        self._connect_s = rules.timeouts.connect_s
        super().__init__(Connections(opener, self._made))

    def _made(self, connection: Connection) -> LeanChannel:
        return LeanChannel(connection, self._rules, self._connections.give_back)

    def start(
        self, request: bytes, has_body: bool, flight: Flight, on_done: OnDone, sink: Sink | None, anew: bool
    ) -> None:
        """Write it on an idle connection, or open one for it."""
        channel = None if anew else self._connections.take()
        if channel is not None:
            channel.begin(request, has_body, flight, on_done, sink)
            return
        flight.on_done = on_done
        flight.sent = flight.first_byte = 0.0
        flight.stage = "connection"
        flight.deadline = monotonic() + self._connect_s
        opening = self._loop.create_task(self._open(request, has_body, flight, on_done, sink))
        opening.add_done_callback(die_of_task)
        flight.carrier = opening

    async def _open(
        self, request: bytes, has_body: bool, flight: Flight, on_done: OnDone, sink: Sink | None
    ) -> None:
        try:
            channel = await self._connections.open()
        except NETWORK_ERRORS as error:
            flight.carrier = None
            flight.deadline = NEVER
            on_done(self._rules.failure(error, is_sent=False, reused=False))
            return
        channel.begin(request, has_body, flight, on_done, sink)

    async def send(
        self, request: bytes, has_body: bool, flight: Flight, sink: Sink | None, anew: bool
    ) -> Reply | Failure:
        """As ``start``, awaited."""
        ended: asyncio.Future[Reply | Failure] = self._loop.create_future()
        self.start(request, has_body, flight, ended.set_result, sink, anew)
        try:
            return await ended
        except asyncio.CancelledError:
            self._end(flight, None)
            raise

    def expire(self, flight: Flight) -> None:
        """Break off what it waits for."""
        self._end(flight, self._rules.timed_out(flight.stage))

    def _end(self, flight: Flight, result: Failure | None) -> None:
        carrier, flight.carrier = flight.carrier, None
        if isinstance(carrier, LeanChannel):
            carrier.drop(result)
        elif isinstance(carrier, asyncio.Task):
            carrier.cancel()
            flight.deadline = NEVER
            if result is not None and flight.on_done is not None:
                flight.on_done(result)


class Stage:
    """A connection without a network, for a rehearsal: opener, transport and connection in one."""

    should_close = False

    def __init__(self) -> None:
        self.written: list[bytes] = []

    @property
    def protocol(self) -> "Stage":
        return self

    @property
    def transport(self) -> "Stage":
        return self

    def is_connected(self) -> bool:
        return True

    def connection_lost(self, error: Exception | None) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        pass

    abort = close


def rehearse(rules: Rules) -> None:
    """Read replies of every kind that matters, without a network. Raises CannotStart."""
    seen: list[Reply | Failure] = []
    kept: list[LeanChannel] = []
    flight = Flight()
    try:
        channel = LeanChannel(cast(Connection, Stage()), rules, kept.append)
        for has_body, *pieces in (
            (
                True,
                b"HTTP/1.1 103 Early Hints\r\nA: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-",
                b"Length: 2\r\n\r\nok",
            ),
            (True, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: 1\r\n\r\n"),
            (False, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
            (True, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP"),
        ):
            channel.begin(b"request", has_body, flight, seen.append, None)
            for piece in pieces:
                channel.data_received(piece)
        replies = [(one.status, one.body, len(one.headers)) for one in seen if isinstance(one, Reply)]
        works = replies == [(200, b"ok", 1), (200, b"ok", 1), (200, b"", 1), (200, b"ok", 1)]
        works = works and kept == [channel] * 3 and not channel.is_fit
        cause = None
    except Exception as error:  # whatever it is, it is not what replies were read with
        works, cause = False, error
    if not works:
        raise works_otherwise("httptools", httptools.__version__) from cause
