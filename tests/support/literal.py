"""A server of literal bytes in threads of this process, for whole runs against an endpoint that means harm.

Rules of this file:
1. It counts what came, connection by connection and byte by byte: a test's witness that an attack took place.
"""

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

Answer = Callable[[bytes], bytes]  # a whole request in, literal bytes out; b"" closes the connection


def reply(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A well-formed reply with a Content-Length."""
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Rogue:
    """Listens on a port of 127.0.0.1, or on a socket file, while it is entered."""

    def __init__(
        self,
        answer: Answer = lambda request: b"",
        *,
        context: ssl.SSLContext | None = None,
        path: Path | None = None,
    ) -> None:
        self._answer = answer
        self._context = context
        self.requests: list[bytes] = []
        self.connections = 0
        self._peers: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
        self._listener.bind(("127.0.0.1", 0) if path is None else str(path))
        self._listener.listen(128)
        self.port = 0 if path is not None else int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._peers:
            try:
                peer.close()
            except OSError:
                pass

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of all requests, as they came."""
        return [request.partition(b"\r\n\r\n")[2] for request in self.requests]

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        try:
            if self._context is not None:
                peer = self._context.wrap_socket(peer, server_side=True)
            self._peers.append(peer)
            with peer, peer.makefile("rb") as stream:
                while request := _request(stream):
                    self.requests.append(request)
                    answer = self._answer(request)
                    if not answer:
                        return
                    peer.sendall(answer)
        except (OSError, ValueError):
            return


def _request(stream: object) -> bytes:
    """The next request, headers and body; empty at the end."""
    head, length = b"", 0
    while not head.endswith(b"\r\n\r\n"):
        line: bytes = stream.readline()  # type: ignore[attr-defined]
        if not line:
            return b""
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
        head += line
    body: bytes = stream.read(length)  # type: ignore[attr-defined]
    return head + body
