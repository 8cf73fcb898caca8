"""Kept-alive connections to one origin, lent out one request at a time.

aiohttp opens them for every wire (names, addresses, TLS, proxies); its client session, which would build every request
anew from a dozen settings, is left out: that costs more CPU than all the rest of a row.

Rules of this file:
1. A connection is lent only with nothing unread on it: bytes that nobody asked for must not become the answer to the
   next request. Any on which something went wrong is closed and never lent again.
2. Of idle connections the one used last is lent first, so that those in excess grow old and are closed.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from yarl import URL

KEEPALIVE_S: Final = 30.0  # shorter than most servers' and gateways' own (nginx 75 s, many balancers 60 s)
DNS_CACHE_S: Final = 60
HEADER_LINE_BYTES_MAX: Final = 64 * 1024
HEADERS_MAX: Final = 256
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)  # time-outs are the fetcher's sweep


class Proxy(NamedTuple):
    """A proxy, and the headers it wants for itself."""

    url: URL
    headers: tuple[tuple[str, str], ...]


class Shared(NamedTuple):
    """What openers of several origins have in common. The connector is closed by whoever made it."""

    context: ssl.SSLContext
    connector: aiohttp.TCPConnector


class Opener:
    """Opens connections to one origin. To be made on the loop."""

    def __init__(
        self,
        origin: URL,
        *,
        context: ssl.SSLContext,
        proxy: Proxy | None = None,
        connector: aiohttp.TCPConnector | None = None,
    ) -> None:
        """``connector``: somebody else's, to be used and not closed; it has its own TLS context."""
        loop = asyncio.get_running_loop()
        self._is_ours = connector is None
        self._connector = connector or aiohttp.TCPConnector(
            limit=0, limit_per_host=0, ttl_dns_cache=DNS_CACHE_S, ssl=context, force_close=True
        )
        # Only says where to: the connector takes host, port, TLS and proxy from it.
        self._whereto = ClientRequest(
            "GET",
            origin,
            loop=loop,
            proxy=None if proxy is None else proxy.url,
            proxy_headers=None if proxy is None else proxy.headers,
        )

    async def open(self) -> Connection:
        """A new connection. Raises aiohttp's and the operating system's errors."""
        return await self._connector.connect(self._whereto, [], _NO_TIMEOUT)

    async def close(self) -> None:
        """Close all connections, unless the connector is somebody else's."""
        if self._is_ours:
            await self._connector.close()


class Channel(Protocol):
    """One open connection, as a wire uses it."""

    served: bool  # whether it has carried a request before
    idle_since: float

    @property
    def is_fit(self) -> bool:
        """Whether it is open, and nothing is unread or half done on it."""

    def close(self) -> None:
        """Close it."""


C = TypeVar("C", bound=Channel)


class Connections(Generic[C]):
    """The connections of one worker. ``made``: a wire's own of one that was opened."""

    def __init__(self, opener: Opener, made: Callable[[Connection], C]) -> None:
        self._opener = opener
        self._made = made
        self._idle: deque[C] = deque()

    @property
    def idle_count(self) -> int:
        """How many are not lent."""
        return len(self._idle)

    def take(self) -> C | None:
        """An idle connection that is fit for a request, or None."""
        idle = self._idle
        while idle:
            channel = idle.pop()
            if channel.is_fit:
                return channel
            channel.close()
        return None

    async def open(self) -> C:
        """A new connection. Raises aiohttp's and the operating system's errors."""
        return self._made(await self._opener.open())

    def give_back(self, channel: C) -> None:
        """The reply was read to its end: keep the connection if it can be used again."""
        if channel.is_fit:
            channel.served = True
            channel.idle_since = monotonic()
            self._idle.append(channel)
        else:
            channel.close()

    def prune(self) -> None:
        """Close what has been idle for too long, or was closed by the server. A few times a second is enough."""
        idle = self._idle
        latest = monotonic() - KEEPALIVE_S
        while idle and (idle[0].idle_since < latest or not idle[0].is_fit):
            idle.popleft().close()

    def drop_idle(self) -> None:
        """Close what is not lent."""
        while self._idle:
            self._idle.pop().close()

    async def close(self) -> None:
        """Close all connections."""
        self.drop_idle()
        await self._opener.close()


class Pooled(Generic[C]):
    """What every wire does with its connections besides sending."""

    def __init__(self, connections: Connections[C]) -> None:
        self._connections = connections

    @property
    def idle_count(self) -> int:
        """How many connections are open that nothing is sent on."""
        return self._connections.idle_count

    def prune(self) -> None:
        """Close what has been idle for too long."""
        self._connections.prune()

    def drop_idle(self) -> None:
        """Close the connections that nothing is sent on."""
        self._connections.drop_idle()

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()
