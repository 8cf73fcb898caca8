"""Sends calls whose origins the rows name: a fetcher for each origin, made when it is first needed.

Rules of this file:
1. No key comes here: it is given none, and a job that has one is refused.
2. Nothing is sent to an address that is off limits, however it is written: names are judged by what they resolve to
   (``resolving.py``), addresses in figures here.
3. An origin with a request in flight is never dropped. Of the others so many are kept, and so many idle connections,
   those used last; one that was idle as long as a connection may be is forgotten.
4. One TLS context, one connector and one look-up of a name for all of them.
"""

import asyncio
import ssl
from functools import partial
from time import monotonic
from typing import Final

from yarl import URL

from engine.config import Job, Limits, Timeouts, has_own_origins
from engine.core.errors import CannotStart, ErrorKind
from engine.core.model import Call, Failure, Reply
from engine.credentials import Auth
from engine.providers.row_urls import is_off_limits
from engine.worker.connections import KEEPALIVE_S, Shared
from engine.worker.exchange import Flight, OnDone, Sink
from engine.worker.fetch import Fetcher
from engine.worker.resolving import PickyResolver, picky_connector

ORIGINS_IDLE_MAX: Final = 512
CONNECTIONS_IDLE_MAX: Final = 1024  # of all origins together, looked at with every sweep
_ANYWHERE: Final = "http://127.0.0.1"


class _Place:
    """One origin: its fetcher, and the slots that its requests go in (a wire binds a slot to its connections)."""

    __slots__ = ("engaged", "fetcher", "flights", "idle_since")

    def __init__(self, fetcher: Fetcher) -> None:
        self.fetcher = fetcher
        self.flights: list[Flight] = []  # those that are free
        self.engaged = 0
        self.idle_since = 0.0  # time.monotonic(), where none is engaged


class Roaming:
    """As ``Fetcher``, for calls to any origin. To be made on the loop.

    Of a flight that is given to it only the times are told, when its request has ended.
    """

    def __init__(
        self,
        *,
        timeouts: Timeouts,
        limits: Limits,
        ca_file: str = "",
        trust_env: bool = False,
        wire: str = "aiohttp",
        origins_idle_max: int = ORIGINS_IDLE_MAX,
        connections_idle_max: int = CONNECTIONS_IDLE_MAX,
        resolver: PickyResolver | None = None,
    ) -> None:
        """Bounds: ``origins_idle_max`` is 1 or more. Raises CannotStart where a parser works otherwise than it needs."""
        self._loop = asyncio.get_running_loop()
        context = ssl.create_default_context(cafile=ca_file or None)
        self._connector = picky_connector(context, resolver or PickyResolver())
        shared = Shared(context, self._connector)
        self._made = partial(
            Fetcher, auth=(), timeouts=timeouts, limits=limits, trust_env=trust_env, wire=wire, shared=shared
        )
        self._made(origin=_ANYWHERE)  # rehearses the wire before anything is sent
        self._origins_max, self._connections_max = origins_idle_max, connections_idle_max
        self._places: dict[str, _Place] = {}  # by what stands before the path
        self._idle: dict[str, _Place] = {}  # those of them without a request, by when it ended

    def register(self, flight: Flight) -> None:
        """Nothing to do: each origin has slots of its own."""

    def start(
        self,
        call: Call,
        key: str,
        flight: Flight,
        on_done: OnDone,
        sink: Sink | None = None,
        *,
        anew: bool = False,
    ) -> None:
        """See ``Fetcher.start``."""
        url = call.url
        end = url.find("/", 8)
        front = url if end < 0 else url[:end]
        place = self._places.get(front)
        if place is None:
            made = self._new_place(front)
            if isinstance(made, Failure):
                self._loop.call_soon(on_done, made)
                return
            place = made
        elif not place.engaged:
            del self._idle[front]
        place.engaged += 1
        if place.flights:
            inner = place.flights.pop()
        else:
            inner = Flight()
            place.fetcher.register(inner)
        done = partial(self._ended, front, place, inner, flight, on_done)
        place.fetcher.start(call, key, inner, done, sink, anew=anew)

    async def send(
        self, call: Call, key: str, flight: Flight, sink: Sink | None = None, *, anew: bool = False
    ) -> Reply | Failure:
        """As ``start``, awaited. Never raises for what the network does."""
        ended: asyncio.Future[Reply | Failure] = self._loop.create_future()

        def done(result: Reply | Failure) -> None:
            if not ended.done():
                ended.set_result(result)

        self.start(call, key, flight, done, sink, anew=anew)
        return await ended

    def _ended(
        self,
        front: str,
        place: _Place,
        inner: Flight,
        flight: Flight,
        on_done: OnDone,
        result: Reply | Failure,
    ) -> None:
        place.flights.append(inner)
        flight.sent, flight.first_byte = inner.sent, inner.first_byte
        place.engaged -= 1
        if not place.engaged:
            place.idle_since = monotonic()
            self._idle[front] = place
            if len(self._idle) > self._origins_max:
                self._drop(next(iter(self._idle)))
        on_done(result)

    def _new_place(self, front: str) -> _Place | Failure:
        """A place for calls whose URLs begin so, or why nothing is sent there."""
        try:
            url = URL(front, encoded=True)
            origin, host = url.origin(), url.raw_host or ""
            if url.scheme not in ("http", "https") or url.user is not None:
                raise ValueError
        except ValueError:
            return Failure(ErrorKind.BAD_REQUEST, "the request's URL is not valid; nothing was sent")
        if _is_in_figures(host) and is_off_limits(host):
            return Failure(
                ErrorKind.BAD_REQUEST,
                "the request's URL names a link-local address or a cloud's metadata service; nothing was sent",
            )
        place = self._places[front] = _Place(self._made(origin=str(origin)))
        return place

    def sweep(self, now: float) -> None:
        """Cut off every request whose time is up, and let go what has been idle for too long."""
        for place in list(self._places.values()):
            place.fetcher.sweep(now)
        latest = now - KEEPALIVE_S
        while self._idle:
            front, place = next(iter(self._idle.items()))
            if place.idle_since >= latest:
                break
            self._drop(front)
        over = sum(place.fetcher.idle_connections for place in self._places.values()) - self._connections_max
        for front, place in list(self._idle.items()) if over > 0 else ():
            over -= place.fetcher.idle_connections
            self._drop(front)
            if over <= 0:
                return
        if over > 0:
            self.drop_idle()  # all origins are at work, and hold more than they need

    def _drop(self, front: str) -> None:
        del self._idle[front]
        self._places.pop(front).fetcher.retire()

    def drop_idle(self) -> None:
        """Close the connections that nothing is sent on."""
        for place in self._places.values():
            place.fetcher.drop_idle()

    async def close(self) -> None:
        """Close all connections."""
        for place in self._places.values():
            place.fetcher.retire()
        self._places.clear()
        self._idle.clear()
        await self._connector.close()


def _is_in_figures(host: str) -> bool:
    """Whether the connector takes a host for an address, and looks no name up."""
    return ":" in host or host.replace(".", "").isdigit()


def sender_of(job: Job, auth: Auth, origin: str) -> Fetcher | Roaming:
    """What sends the calls of a job that has one endpoint: to ``origin``, or to where its rows say.

    Raises CannotStart where rows would choose where a key goes.
    """
    if not has_own_origins(job):
        return Fetcher(
            origin=origin,
            auth=auth,
            timeouts=job.timeouts,
            limits=job.limits,
            ca_file=job.ca_file,
            trust_env=job.trust_env,
            wire=job.wire,
        )
    if auth:
        raise CannotStart(
            "Rows name the addresses, and there is a key that would go there. Nothing was sent."
        )
    return Roaming(
        timeouts=job.timeouts, limits=job.limits, ca_file=job.ca_file, trust_env=job.trust_env, wire=job.wire
    )
