"""A server that answers with literal bytes, for what no well-behaved server sends."""

import asyncio
from collections.abc import Awaitable, Callable

Handler = Callable[["Peer"], Awaitable[None]]


class Peer:
    """One accepted connection, as the script sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
        self.reader, self.writer, self._seen = reader, writer, seen

    async def request(self) -> bytes:
        """Read one request, headers and body; empty at the connection's end."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        body = await self.reader.readexactly(length)
        self._seen.append(head + body)
        return head + body

    async def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Break the connection with a RST."""
        self.writer.transport.abort()


class ScriptedServer:
    """Runs ``handler`` for every connection; ``seen`` holds every request's bytes."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.seen: list[bytes] = []
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> "ScriptedServer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            await self._handler(Peer(reader, writer, self.seen))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def reply(body: bytes = b"{}", status: str = "200 OK", extra: bytes = b"") -> bytes:
    """A well-formed reply with a Content-Length."""
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status.encode(), extra, len(body), body)
