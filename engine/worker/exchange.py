"""What both wires share of one exchange: its slot, who listens to it, and the rules that a reply has to pass.

Rules of this file:
1. No socket. A wire brings what arrived; what becomes of it is the same whatever it came over.
2. A body passes the cap before and after decompression; decompression stops at the cap.
3. Messages hold no secret, and are short.
"""

import asyncio
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from engine.config import Limits, Timeouts
from engine.core.errors import CannotStart, ErrorKind
from engine.core.model import Failure, Reply
from engine.credentials import Secret, redact
from engine.worker.failures import classify, detail

NEVER: Final = float("inf")
NOTES_MAX: Final = 100  # 1xx replies before the final one; a server may send any number (RFC 9110, 15.2)
OnDone = Callable[[Reply | Failure], None]


class Sink(Protocol):
    """Listens to one reply while it arrives. It must not raise, nor keep what it is told waiting: it is called from
    within the loop's reading. Times are ``time.monotonic``'s, of when the bytes were read.
    """

    def on_headers(self, status: int, headers: Mapping[str, str], at: float) -> bool:
        """The head of the final reply is here. Whether its body is wanted in pieces; if not, it comes whole in the Reply.

        Not called for redirects, which are refused, nor for compressed replies, which come whole.
        """

    def on_data(self, data: bytes, at: float) -> None:
        """The next piece of the body, cut anywhere, never empty."""


class Flight:
    """One request slot: when its request went out and was answered, until when it may go on, and what carries it."""

    __slots__ = ("carrier", "deadline", "expired", "first_byte", "on_done", "sent", "stage", "task")

    def __init__(self) -> None:
        self.sent = 0.0  # time.monotonic() when the request was written; 0.0 while it is not
        self.first_byte = 0.0  # when the first bytes of a reply were read; 0.0 while there are none
        self.deadline = NEVER
        self.stage = ""
        self.expired = False
        self.task: asyncio.Task[None] | None = None  # what the sweep cancels, where a wire runs in a task
        self.carrier: object = None  # a wire's own
        self.on_done: OnDone | None = None


class Wire(Protocol):
    """One way to carry requests: ``engine.worker.wires``. ``has_body``: whether a body follows the reply's head."""

    async def send(
        self, request: bytes, has_body: bool, flight: Flight, sink: Sink | None, anew: bool
    ) -> Reply | Failure:
        """Send it and wait. Raises nothing but cancellation from outside."""

    def start(
        self, request: bytes, has_body: bool, flight: Flight, on_done: OnDone, sink: Sink | None, anew: bool
    ) -> None:
        """Send it; ``on_done`` is called when it has ended, once, and never before this returns."""

    def expire(self, flight: Flight) -> None:
        """Its time is up."""

    @property
    def idle_count(self) -> int:
        """How many connections are open that nothing is sent on."""

    def prune(self) -> None:
        """Close what has been idle for too long."""

    def drop_idle(self) -> None:
        """Close the connections that nothing is sent on."""

    async def close(self) -> None:
        """Close all connections."""


def works_otherwise(package: str, version: str) -> CannotStart:
    """A rehearsal of a wire went wrong."""
    return CannotStart(
        f"the installed {package} {version} works otherwise than the engine needs; install a version that this one was "
        "released with, or use another --wire. Nothing was sent."
    )


class Rules:
    """How long a stage may take, how large a reply may be, and what is said where that or anything else fails."""

    def __init__(self, timeouts: Timeouts, limits: Limits, secrets: tuple[Secret, ...]) -> None:
        self.timeouts = timeouts
        self.bytes_max = limits.reply_bytes_max
        self._error_chars_max = limits.error_chars_max
        self._secrets = secrets

    def whole(self, status: int, headers: Mapping[str, str], body: bytes, encoding: str) -> Reply | Failure:
        """The reply with all of its body, whose Content-Encoding is ``encoding``."""
        if len(body) > self.bytes_max:
            return self.too_large(status)
        return self._inflate(status, headers, body, encoding) if encoding else Reply(status, headers, body)

    def _inflate(
        self, status: int, headers: Mapping[str, str], body: bytes, encoding: str
    ) -> Reply | Failure:
        """Decompress gzip and deflate within the cap; other encodings were never asked for."""
        if encoding not in ("gzip", "x-gzip", "deflate"):
            return Failure(
                ErrorKind.PROTOCOL_ERROR,
                f"the reply is compressed as {encoding[:20]!r}, which was not asked for",
                status=status,
            )
        # 32 + 15: zlib or gzip by its own header; a few servers send deflate without any header at all.
        for window_bits in (47, -15) if encoding == "deflate" else (47,):
            machine = zlib.decompressobj(window_bits)
            try:
                plain = machine.decompress(body, self.bytes_max + 1)
            except zlib.error:
                continue
            if len(plain) > self.bytes_max or machine.unconsumed_tail:
                return self.too_large(status)
            # Further members are not unpacked: no server sends them, and thousands of small ones cost more than a bomb.
            if not machine.eof or machine.unused_data:
                break
            return Reply(status, headers, plain)
        return Failure(ErrorKind.PROTOCOL_ERROR, "the reply's compressed body is damaged", status=status)

    def declares_too_much(self, headers: Mapping[str, str]) -> bool:
        """Whether a body says of itself that it is over the cap."""
        declared = headers.get("content-length", "")
        return declared.isdecimal() and int(declared) > self.bytes_max

    def refused(self, status: int) -> Failure | None:
        """What a status alone rules out: a redirect, another protocol."""
        if 300 <= status < 400:
            return Failure(
                ErrorKind.REDIRECT_REFUSED,
                f"the endpoint answered {status} and tried to send the request elsewhere; give its final address",
                status=status,
            )
        if status == 101:
            return Failure(
                ErrorKind.PROTOCOL_ERROR, "the server changed to another protocol unasked", status=status
            )
        return None

    def too_large(self, status: int) -> Failure:
        """A body over the cap."""
        return Failure(
            ErrorKind.BODY_TOO_LARGE,
            f"the reply is larger than {self.bytes_max // (1024 * 1024)} MB and was cut off",
            status=status,
        )

    def timed_out(self, stage: str) -> Failure:
        """A stage that took too long."""
        times = self.timeouts
        if stage == "connection":
            says = f"no connection within {times.connect_s:g} s; nothing was sent"
        elif stage == "first byte":
            says = f"no reply within {times.first_byte_s:g} s; the call may have been billed"
        else:
            says = (
                f"the reply's body stalled (over {times.read_s:g} s without data, or "
                f"{times.total_s:g} s in all); the call may have been billed"
            )
        return Failure(ErrorKind.TIMEOUT, says)

    def failure(self, error: Exception, *, is_sent: bool, reused: bool) -> Failure:
        """A foreign exception as a failure. ``reused``: on a connection that had carried a request before."""
        kind, says = classify(error, reused=reused)
        if is_sent and kind is ErrorKind.BAD_REQUEST:
            kind, says = (
                ErrorKind.PROTOCOL_ERROR,
                "the reply could not be read; the call may have been billed",
            )
        more = detail(error)
        text = redact(f"{says}: {more}" if more else says, self._secrets)
        return Failure(kind, " ".join(text.split())[: self._error_chars_max])


def encoding_of(lines: Iterable[str]) -> str:
    """What all lines of Content-Encoding say together, in lower case; empty where the body is as it is."""
    encoding = ", ".join(lines).strip().lower()
    return "" if encoding == "identity" else encoding
