"""Kept-alive connections to one origin, lent out one request at a time.

aiohttp opens them (names, addresses, TLS, proxies) and parses what comes; its client session, which would build every
request anew from a dozen settings, is left out: that costs more CPU than all the rest of a row.

Rules of this file:
1. A connection is lent only with nothing unread on it: bytes that nobody asked for must not become the answer to the
   next request. Any on which something went wrong is closed and never lent again.
2. Parts of aiohttp are used that it does not promise to keep. They are rehearsed before the first request: an aiohttp
   that works otherwise is refused with nothing sent.
3. Of idle connections the one used last is lent first, so that those in excess grow old and are closed.
"""

import asyncio
import ssl
from collections import deque
from time import monotonic
from typing import Final, NamedTuple, cast

import aiohttp
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader
from yarl import URL

from engine.core.errors import CannotStart

KEEPALIVE_S: Final = 30.0  # shorter than most servers' and gateways' own (nginx 75 s, many balancers 60 s)
DNS_CACHE_S: Final = 60
HEADER_LINE_BYTES_MAX: Final = 64 * 1024
HEADERS_MAX: Final = 256
NOTES_MAX: Final = 100  # 1xx replies before the final one; a server may send any number (RFC 9110, 15.2)
BUFFER_BYTES: Final = 64 * 1024  # of a body, before the server is made to wait
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)  # time-outs are the fetcher's sweep


class Proxy(NamedTuple):
    """A proxy, and the headers it wants for itself."""

    url: URL
    headers: tuple[tuple[str, str], ...]


class Channel:
    """One open connection."""

    __slots__ = ("_connection", "_is_set", "_protocol", "idle_since", "served")

    def __init__(self, connection: Connection) -> None:
        protocol = connection.protocol
        assert protocol is not None
        self._connection = connection
        self._protocol = protocol
        self._is_set: bool | None = None  # what the parser was told of bodies
        self.served = False  # whether it has carried a request before
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
        raise BadHttpMessage(f"more than {NOTES_MAX} notes on the way to a reply")

    def close(self) -> None:
        """Close it."""
        self._connection.close()


class Connections:
    """The connections of one worker. To be made on the loop."""

    def __init__(self, origin: URL, *, context: ssl.SSLContext, proxy: Proxy | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._connector = aiohttp.TCPConnector(
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
        self._idle: deque[Channel] = deque()

    def take(self) -> Channel | None:
        """An idle connection that is fit for a request, or None."""
        idle = self._idle
        while idle:
            channel = idle.pop()
            if channel.is_fit:
                return channel
            channel.close()
        return None

    async def open(self) -> Channel:
        """A new connection. Raises aiohttp's and the operating system's errors."""
        return Channel(await self._connector.connect(self._whereto, [], _NO_TIMEOUT))

    def give_back(self, channel: Channel) -> None:
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
        """Close all idle connections; those that are lent are closed by who has them."""
        self.drop_idle()
        await self._connector.close()


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
        channel = Channel(cast(Connection, stage))
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
        raise CannotStart(
            f"the installed aiohttp {aiohttp.__version__} works otherwise than the engine needs; install a version "
            "that this one was released with. Nothing was sent."
        ) from cause
