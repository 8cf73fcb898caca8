"""A server whose streams end at once, but for some that never do, and bring data as fast as it is taken."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _event(delta: dict[str, str], finish: str | None) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


WHOLE = HEAD + _chunk(_event({"content": "Hi"}, "stop") + b"data: [DONE]\n\n") + _chunk(b"")
FLOOD = _chunk(_event({"content": "tok "}, None)) * 100


@contextmanager
def endless_server(every: int) -> Iterator[str]:
    """Its origin. Of so many requests one is answered without an end."""
    requests = count()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as file:
                while line := file.readline():
                    length = 0
                    while line not in (b"\r\n", b""):
                        if line.lower().startswith(b"content-length:"):
                            length = int(line.partition(b":")[2])
                        line = file.readline()
                    file.read(length)
                    is_endless = next(requests) % every == 0
                    connection.sendall(HEAD if is_endless else WHOLE)
                    while is_endless:
                        connection.sendall(FLOOD)
        except OSError:
            return  # the client has cut it off

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
