"""A provider that answers rightly but where a test strikes: with bytes, and at moments, that the mock provider does not know.

Rules of this file:
1. It runs on a loop of its own in a thread of the test's process, so that a test reads its log without asking.
2. Its log has the fields of the mock's, so that ``history_of`` believes either of them.
"""

import asyncio
import json
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from history import row_name

from engine.mock.answers import expected_answer


class Exchange:
    """One request and the connection it came on, as a strike sees them."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        prompt: str,
        nth: int,
        record: dict[str, Any],
    ) -> None:
        self.reader, self.writer, self.prompt, self.record = reader, writer, prompt, record
        self.nth = nth  # of its connection, from 1
        self.body = answer_body(prompt)
        self.good = framed(self.body)

    async def send(self, data: bytes) -> None:
        """Write bytes as they are, no faster than they are read."""
        self.writer.write(data)
        await self.writer.drain()

    async def send_whole(self, data: bytes) -> None:
        """Write a right reply, in whatever form; the log says that it was given."""
        self.record.update(status=200, full=True)
        await self.send(data)

    def reset(self) -> None:
        """Break the connection with a RST."""
        plain = self.writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def until_gone(self) -> None:
        """Say nothing more until the client goes away."""
        while await self.reader.read(65_536):
            pass


# True: the connection may carry another request.
Strike = Callable[[Exchange], Awaitable[bool | None]]


def answer_body(prompt: str) -> bytes:
    """The mock provider's answer to a prompt, as a chat completion."""
    message = {"role": "assistant", "content": expected_answer(prompt)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    return json.dumps({"id": "r", "model": "mock", "choices": [choice], "usage": usage}).encode()


def framed(body: bytes, extra: bytes = b"", length: bytes | None = None) -> bytes:
    """A reply of status 200. ``length``: what Content-Length states instead of the truth."""
    stated = b"%d" % len(body) if length is None else length
    front = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %b\r\n\r\n"
    return front % (extra, stated) + body


class Rogue:
    """Answers every ``every``-th request by a strike, by turns where there are several; or resets connections.

    ``refuses``: every ``every``-th connection is reset as soon as it is accepted. ``closes``: one request a connection.
    ``match``: strikes count only requests whose prompt holds it. ``listener``: a socket to listen on.
    """

    def __init__(
        self,
        strikes: dict[str, Strike] | None = None,
        *,
        every: int = 1,
        latency_s: float = 0.02,
        refuses: bool = False,
        closes: bool = False,
        match: str = "",
        tls: ssl.SSLContext | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self._strikes = list((strikes or {}).items())
        self._every, self._latency_s, self._match = every, latency_s, match
        self._refuses, self._closes = refuses, closes
        self._tls = tls
        self._listener = listener
        self._records: list[dict[str, Any]] = []
        self._drawn = 0  # requests that a strike might have met
        self.connections = 0  # with their handshake done
        self.faults: Counter[str] = Counter()
        self.plain_bytes = 0  # that arrived on accepted connections, after any handshake
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.Task[None]] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    # --- what a test asks ---------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """Where OpenAI's paths begin."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{'127.0.0.1' if self._tls is None else 'localhost'}:{self.port}/v1"

    def stats(self) -> dict[str, Any]:
        """How many requests came."""
        return {"requests": len(self._records)}

    def log(self) -> list[dict[str, Any]]:
        """Every request, in the order they came."""
        return [dict(record) for record in list(self._records)]

    def heal(self) -> None:
        """Strike no more."""
        self._every = 0

    # --- its life -----------------------------------------------------------------------------------------

    def __enter__(self) -> "Rogue":
        self._thread.start()
        assert self._started.wait(10.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        loop.set_exception_handler(
            lambda loop, context: None
        )  # handshakes that fail are the client's to tell
        listener = self._listener or socket.create_server(("127.0.0.1", 0))
        server = loop.run_until_complete(
            asyncio.start_server(self._serve, sock=listener, ssl=self._tls, backlog=1024)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        loop.run_forever()
        server.close()
        for task in self._open:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*self._open, return_exceptions=True))
        loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        number = self.connections
        self.connections += 1
        try:
            if self._refuses and self._every and number % self._every == self._every // 2:
                self.faults["accept"] += 1
                Exchange(reader, writer, "", 0, {}).reset()
                return
            nth = 1
            while await self._exchange(reader, writer, number, nth):
                nth += 1
        except (
            ConnectionError,
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.CancelledError,
            ssl.SSLError,
        ):
            pass
        finally:
            self._open.discard(task)
            writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int, nth: int
    ) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        self.plain_bytes += len(head)
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(int(lengths[0].split(b":")[1]))
        self.plain_bytes += len(body)
        prompt = json.loads(body)["messages"][-1]["content"]
        record: dict[str, Any] = {
            "number": len(self._records) + 1, "at_s": time.monotonic(), "connection": connection,
            "row": row_name(prompt), "status": 0, "full": False, "done_s": 0.0, "fault": "",
        }  # fmt: skip
        self._records.append(record)
        exchange = Exchange(reader, writer, prompt, nth, record)
        name, strike = self._drawn_for(prompt)
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        if strike is None:
            await exchange.send_whole(exchange.good)
            keeps: bool | None = True
        else:
            record["fault"] = name
            self.faults[name] += 1
            keeps = await strike(exchange)
        record["done_s"] = time.monotonic()
        return bool(keeps) and not self._closes

    def _drawn_for(self, prompt: str) -> tuple[str, Strike | None]:
        if not self._strikes or not self._every or self._match not in prompt:
            return "", None
        number = self._drawn
        self._drawn += 1
        if number % self._every != self._every // 2:
            return "", None
        return self._strikes[number // self._every % len(self._strikes)]
