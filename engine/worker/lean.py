"""aiohttp's connector and request, a little leaner and a little more telling.

Rules of this file:
1. Only what aiohttp lets a user replace (``connector``, ``request_class``); nothing is patched.
2. A small body goes out with its headers, in one write, without a task of its own.
"""

import asyncio
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.http_writer import StreamWriter
from aiohttp.payload import BytesPayload

if TYPE_CHECKING:
    from aiohttp.tracing import Trace

ONE_WRITE_BYTES_MAX = 256 * 1024


class ReuseConnector(aiohttp.TCPConnector):
    """A connector that can say whether the running task's request went over a connection used before.

    That tells a stale kept-alive connection (nothing of the request was heard, send it again) from a reset.
    """

    _MARK = "engine_has_served"

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._by_task: dict[asyncio.Task[object] | None, bool] = {}

    async def connect(
        self, req: ClientRequest, traces: list["Trace"], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Get from the pool or open a connection, and remember which it was."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            assert protocol is not None
            marks = protocol.__dict__
            if self._MARK not in marks:
                marks[self._MARK] = True
                return connection
            if not protocol.should_close:
                self._by_task[asyncio.current_task()] = True
                return connection
            # Bytes nobody asked for came while it was idle: they must not become the answer to this request.
            connection.close()

    def was_reused(self) -> bool:
        """Whether the running task's request went over a used connection."""
        return self._by_task.get(asyncio.current_task(), False)

    def forget(self) -> None:
        """The running task's request is over."""
        self._by_task.pop(asyncio.current_task(), None)


class LeanRequest(ClientRequest):
    """A request whose body goes out with its headers, in one write, without a task of its own.

    aiohttp writes every body from a new task, for the sake of long ones; ours are small and whole in memory.
    Anything out of the ordinary (no body, a proxy's tracing, a paused transport) takes aiohttp's own way.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Write the request and return its response object, not yet started."""
        body, protocol = self._body, conn.protocol
        if (
            type(body) is not BytesPayload
            or protocol is None
            or protocol.writing_paused
            or self.chunked is not None
            or self.compress
            or self._continue is not None
            or self._traces
            or self.proxy
            or body.size is None
            or body.size > ONE_WRITE_BYTES_MAX
        ):
            return await super().send(conn)
        writer = StreamWriter(protocol, self.loop)
        await writer.write_headers(f"{self.method} {self.url.raw_path_qs} HTTP/1.1", self.headers)
        await writer.write_eof(body._value)
        protocol.start_timeout()
        self.response = self.response_class(
            self.method,
            self.original_url,
            writer=None,
            continue100=None,
            timer=self._timer,
            request_info=self.request_info,
            traces=self._traces,
            loop=self.loop,
            session=self._session,
            stream_writer=writer,
        )
        return self.response
