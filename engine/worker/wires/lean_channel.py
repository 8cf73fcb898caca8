"""One connection of the lean wire: a transport, a parser, and the one request that is under way on it.

Rules of this file:
1. Everything happens within the loop's reading: no coroutine, no future, and of the usual reply no copy.
2. The parser calls C functions where it can (lists' own methods): a call into Python costs more than what it would
   bring. So many ends of replies are awaited as ``_unended`` holds; a reply that nobody awaits finds ``_unbegun``
   empty, and the parser fails.
3. A server that sends faster than its stream is read waits: after a large piece the other requests have their turn.
4. A connection is fit for another request only if its reply was whole, the server keeps it open, and nothing followed.
5. A piece that is exactly one chunk of a body, where the parser stands between two, is handed on past the parser.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from time import monotonic
from typing import Any, Final

import httptools
from aiohttp import ClientPayloadError, ServerDisconnectedError
from aiohttp.connector import Connection

from engine.core.model import Failure, Reply
from engine.worker.connections import HEADER_LINE_BYTES_MAX, HEADERS_MAX
from engine.worker.exchange import NEVER, NOTES_MAX, Flight, OnDone, Rules, Sink, encoding_of
from engine.worker.failures import BrokenReply

TURN_BYTES: Final = (
    64 * 1024
)  # of one reply; the loop would read up to 32 such pieces before it does anything else
BARREN_BYTES_MAX: Final = 4 * HEADER_LINE_BYTES_MAX  # that follow each other and bring nothing of a body
CHUNK_SIZES: Final = {  # by how they are written: what is written otherwise is for the parser
    written % size: size for size in range(1, 0x1000) for written in (b"%x", b"%X")
}
_ENCODING: Final = b"content-encoding"
_ENCODING_CHARS: Final = len(_ENCODING)
_PARSER_ERRORS: Final = (httptools.HttpParserError, httptools.HttpParserUpgrade)


class RawHeaders(Mapping[str, str]):
    """A reply's headers as they came, made readable once somebody reads them. Of those of one name the first."""

    __slots__ = ("_raw", "_text")

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._raw = raw
        self._text: dict[str, str] | None = None

    def _read(self) -> dict[str, str]:
        text = self._text
        if text is None:
            text = self._text = {}
            for name, value in self._raw:
                said = value.decode("utf-8", "surrogateescape").strip(" \t")
                text.setdefault(name.decode("latin-1").lower(), said)
        return text

    def get(self, name: str, default: Any = None) -> Any:
        """As of any mapping; names in lower case."""
        return self._read().get(name, default)

    def __getitem__(self, name: str) -> str:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


class LeanChannel(asyncio.Protocol):
    """One open connection. ``give_back`` gets it whenever it is fit for another request."""

    __slots__ = (
        "_barren", "_buffer", "_bytes_max", "_connection", "_end_s", "_feed", "_first_byte_s", "_flight",
        "_give_back", "_has_body", "_headers", "_is_between", "_is_chunked", "_is_encoded", "_is_gone", "_is_usual",
        "_keep", "_notes", "_opener", "_parser", "_parts", "_raw", "_read_s", "_rules", "_sink", "_size", "_status",
        "_transport", "_unbegun", "_unclosed", "_unended", "_wants_pieces", "idle_since", "is_fit", "on_body",
        "on_chunk_complete", "on_chunk_header", "on_message_begin", "on_message_complete", "served",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, rules: Rules, give_back: "Callable[[LeanChannel], None]"
    ) -> None:
        opener = connection.protocol
        if opener is None or not opener.is_connected() or opener.should_close or opener.transport is None:
            connection.close()
            raise ServerDisconnectedError
        self._connection = connection
        self._opener = opener  # is still told of the connection's end: its closing waits for that
        self._transport = opener.transport
        self._rules = rules
        self._bytes_max, self._first_byte_s = rules.bytes_max, rules.timeouts.first_byte_s
        self._read_s = rules.timeouts.read_s
        self._give_back = give_back
        self._is_gone = False
        self.is_fit = True
        self.served = False
        self.idle_since = 0.0
        self._flight: Flight | None = None
        self._sink: Sink | None = None
        self._has_body = self._is_usual = True
        self._unbegun: list[None] = []
        self._unended: list[None] = []
        self._raw: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._unclosed: list[None] = []  # the chunk whose head was read, and its end not yet
        self.on_chunk_header = partial(self._unclosed.append, None)
        self.on_chunk_complete = self._unclosed.clear
        self.on_message_begin = self._unbegun.pop
        self.on_body = self._parts.append
        self.on_message_complete = self._unended.pop
        self._status = 0  # of the final reply, once its head is there
        self._keep = False
        self._notes = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._is_encoded = False  # perhaps
        self._begin_body()
        self._make_parser()
        self._transport.set_protocol(self)

    def _make_parser(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._feed = self._parser.feed_data

    def _begin_body(self) -> None:
        self._wants_pieces = self._is_chunked = self._is_between = False
        self._size = self._barren = 0
        self._end_s = 0.0  # when its time is up, in all
        self._buffer = bytearray()

    # --- a request ----------------------------------------------------------------------------------------

    def begin(
        self, request: bytes, has_body: bool, flight: Flight, on_done: OnDone, sink: Sink | None
    ) -> None:
        """Write it, and call ``on_done`` when it has ended."""
        self._flight = flight
        self._sink = sink
        self._has_body = has_body
        self._is_usual = has_body and sink is None
        self._unbegun.append(None)
        self._unended.append(None)
        flight.carrier = self
        flight.on_done = on_done
        flight.stage = "first byte"
        flight.first_byte = 0.0
        flight.sent = sent = monotonic()
        flight.deadline = sent + self._first_byte_s
        self._transport.write(request)

    def drop(self, result: Failure | None) -> None:
        """Break the connection off, and end what is under way on it; with None nobody is told."""
        flight = self._flight
        self.is_fit = False
        self._transport.abort()
        self.close()
        if flight is not None:
            self._flight = self._sink = None
            flight.carrier = None
            flight.deadline = NEVER
            if result is not None and flight.on_done is not None:
                flight.on_done(result)

    def close(self) -> None:
        """Close it."""
        self.is_fit = False
        if not self._is_gone:
            self._is_gone = True
            self._connection.close()

    # --- what asyncio calls -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and see how far the reply has come."""
        flight = self._flight
        if flight is None:
            self.drop(None)  # nobody asked
            return
        at = monotonic()
        if self._is_between and self._is_one_chunk(data, flight, at):
            return
        if not flight.first_byte:
            flight.first_byte = at
        try:
            self._feed(data)
        except _PARSER_ERRORS as error:
            if self._unended or not self._status:
                self._broke(error)
                return
            self._keep = False  # the reply is whole; what follows it is never looked at
        parts = self._parts
        if self._unended or not self._is_usual or len(parts) > 1 or self._size:
            self._go_on(flight, len(data), at, data[-2:] == b"\r\n")
        elif parts:
            body = parts[0]
            parts.clear()
            self._end(flight, body)
        else:
            self._end(flight, b"")

    def _is_one_chunk(self, data: bytes, flight: Flight, at: float) -> bool:
        """Hand it on if it is one chunk from its first byte to its last, and no more (RFC 9112, 7.1).

        This is what a stream's pieces are as a rule, and it costs a third of what the parser takes for it.
        """
        head = data.find(b"\r\n", 1, 5)
        size = CHUNK_SIZES.get(data[:head])
        if size is None or len(data) != head + size + 4 or data[-2:] != b"\r\n":
            return False
        self._barren = 0
        self._size += size
        if self._size > self._bytes_max:
            self.drop(self._rules.too_large(self._status))
            return True
        deadline = at + self._read_s
        flight.deadline = deadline if deadline < self._end_s else self._end_s
        assert self._sink is not None
        self._sink.on_data(data[head + 2 : -2], at)
        return True

    def eof_received(self) -> None:
        """The server will send no more."""
        self.is_fit = False

    def connection_lost(self, error: Exception | None) -> None:
        """It is over: that may be the end of a reply, or of the connection alone."""
        self._opener.connection_lost(error)
        self.close()
        flight = self._flight
        if flight is None:
            return
        if not self._status:
            cause = error or ServerDisconnectedError()
        elif error is None and self._ends_with_connection():
            self._keep = False
            self._end(flight, bytes(self._buffer))
            return
        else:
            cause = error or ClientPayloadError("it ended too soon")
        self.drop(self._rules.failure(cause, is_sent=True, reused=self.served and not flight.first_byte))

    # --- the reply ----------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser has read a header, or a trailer."""
        self._raw.append((name, value))
        if len(name) == _ENCODING_CHARS:
            self._is_encoded = True

    def on_headers_complete(self) -> None:
        """The parser has read a head: of the reply, or of a note on the way."""
        parser, raw = self._parser, self._raw
        status = parser.get_status_code()
        if len(raw) > HEADERS_MAX:
            raise BrokenReply(f"it has more than {HEADERS_MAX} headers")
        if status < 200 and status != 101:
            self._notes += 1
            if self._notes > NOTES_MAX:
                raise BrokenReply(f"more than {NOTES_MAX} notes on the way to it")
            self._raw = []
            self._unbegun.append(None)
            self._unended.append(None)
            return
        self._status = status
        self._keep = parser.should_keep_alive()  # the parser forgets it with the reply's end
        self._notes = 0
        self._headers, self._raw = raw, []

    def _go_on(self, flight: Flight, size: int, at: float, ends_line: bool) -> None:
        """The reply has come further, perhaps to its end, and is not of the usual kind: without a sink, and in one piece."""
        parts, rules = self._parts, self._rules
        self._barren = 0 if parts else self._barren + size
        if len(self._raw) > HEADERS_MAX or self._barren > BARREN_BYTES_MAX:
            self._broke(BrokenReply("its headers are too many or too long"))
            return
        if not self._status:
            return
        if flight.stage != "body" and not self._look(flight, at):
            return
        if not parts:
            data = b""
        else:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._size += len(data)
            if self._size > self._bytes_max:
                self.drop(rules.too_large(self._status))
                return
        if self._unended:
            flight.deadline = min(self._end_s, at + self._read_s)
            # A chunk's own end follows its head's: where none is open and a line has ended, the next one begins.
            self._is_between = self._is_chunked and ends_line and not self._unclosed
            if size >= TURN_BYTES:
                self._transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._read_on)
            if not data:
                return
            if self._wants_pieces and self._sink is not None:
                self._sink.on_data(data, at)
            else:
                self._buffer += data
        elif self._wants_pieces and self._sink is not None:
            if data:
                self._sink.on_data(data, at)
            self._end(flight, b"")
        else:
            if self._buffer:
                self._buffer += data
                data = bytes(self._buffer)
                self._buffer = bytearray()  # a large body is here twice for a moment, not three times
            self._end(flight, data)

    def _read_on(self) -> None:
        """The others have had their turn."""
        if not self._is_gone and not self._transport.is_closing():
            self._transport.resume_reading()

    def _look(self, flight: Flight, at: float) -> bool:
        """The head is there: whether its body is to be read."""
        flight.stage = "body"
        self._end_s = flight.sent + self._rules.timeouts.total_s
        status, rules, is_whole = self._status, self._rules, not self._unended
        headers = RawHeaders(self._headers)
        if not self._has_body:
            if self._parts:
                self._broke(BrokenReply("it has a body, though none was asked for"))
                return False
            if not is_whole:
                # The parser awaits a body, which does not come after HEAD: it is of no use for the next reply.
                self._make_parser()
                self._unended.clear()
            self._end(flight, b"")
            return False
        refused = rules.refused(status)
        if refused is None and not is_whole and rules.declares_too_much(headers):
            refused = rules.too_large(status)
        if refused is not None and not is_whole:
            self.drop(refused)
            return False
        if self._sink is not None and refused is None and not self._encoding():
            self._wants_pieces = self._sink.on_headers(status, headers, at)
            coding = headers.get("transfer-encoding", "")
            self._is_chunked = self._wants_pieces and coding.lower() == "chunked"
        return True

    def _encoding(self) -> str:
        lines = [value.decode("latin-1") for name, value in self._headers if name.lower() == _ENCODING]
        return encoding_of(lines)

    def _ends_with_connection(self) -> bool:
        """Whether nothing but its connection's end tells the end of this reply (RFC 9112, 6.3)."""
        headers = RawHeaders(self._headers)
        return "content-length" not in headers and "transfer-encoding" not in headers

    def _end(self, flight: Flight, body: bytes) -> None:
        """The reply is whole: free the connection for the next request, then tell."""
        status = self._status
        headers = RawHeaders(self._headers)
        result: Reply | Failure | None = None if 200 <= status < 300 else self._rules.refused(status)
        if result is None:
            if self._is_encoded and self._has_body and not self._wants_pieces:
                result = self._rules.whole(status, headers, body, self._encoding())
            elif len(body) > self._bytes_max:
                result = self._rules.too_large(status)
            else:
                result = Reply(status, headers, body)
        if flight.stage == "body":
            self._begin_body()
        self._is_encoded = False
        if self._raw:
            self._raw = []  # trailers
        self._status = 0
        self._flight = self._sink = None
        flight.carrier = None
        flight.deadline = NEVER
        if self._keep and self.is_fit:
            self._give_back(self)
        else:
            self.close()
        on_done = flight.on_done
        assert on_done is not None
        on_done(result)

    def _broke(self, error: Exception) -> None:
        """The reply breaks the rules of HTTP."""
        refused = self._rules.refused(self._status)
        if refused is None or self._status != 101:
            cause = error.__context__ if isinstance(error.__context__, BrokenReply) else error
            refused = self._rules.failure(BrokenReply(str(cause)), is_sent=True, reused=False)
        self.drop(refused)
