"""One request of a load test while it is under way: its stamps, and what its reply is.

Rules of this file:
1. A reply is a success or has exactly one error of ``core.load_errors``. Nothing is ever tried again.
2. Plain HTTP is judged by its status, an answer by its provider, a stream by its events: it is a success when it has
   said that it is whole, and has brought content. JSON is no stream, and none that was cut off.
3. Stamps are ``time.monotonic``'s. A request counts as sent when it is handed to the wire: waiting for a connection is
   the endpoint's time, not the client's.
"""

from collections.abc import Callable, Mapping
from typing import Final

from engine.core.errors import ErrorKind
from engine.core.load_errors import LoadError, error_of, error_of_status
from engine.core.measuring import Timing
from engine.core.model import Answer, Call, Failure, Reply
from engine.providers.base import Provider
from engine.providers.streams import Content, Stream
from engine.worker.exchange import Flight, Sink
from engine.worker.failures import SHORTAGE
from engine.worker.fault import die_of

HEAD_BYTES: Final = 64  # of a body, to see what it is
_BROKEN_OFF = (ErrorKind.PROTOCOL_ERROR, ErrorKind.CONNECTION_RESET, ErrorKind.STALE_KEEPALIVE)
OnLanded = Callable[["Exchange", Reply | Failure], None]


class Exchange(Flight):
    """A slot for plain HTTP. It is used for one request after the other."""

    __slots__ = ("_on_landed", "at_s", "call", "gaps_us", "generation", "streamed_bytes", "timing")

    def __init__(self, on_landed: OnLanded) -> None:
        super().__init__()
        self._on_landed = on_landed
        self.timing = Timing()
        self.at_s = 0.0  # when it was intended, after the schedule's start
        self.call: Call | None = None
        self.generation = 0  # of its permit
        self.gaps_us: list[int] = []  # between pieces of content
        self.streamed_bytes = 0  # of a reply that came piece by piece

    @property
    def sink(self) -> Sink | None:
        """Who listens to the reply while it arrives."""
        return None

    def begin(self, call: Call, at_s: float, intended: float) -> None:
        """The slot is for this request now."""
        self.call = call
        self.at_s = at_s
        self.timing.intended = intended

    def landed(self, result: Reply | Failure) -> None:
        """Its request has ended."""
        try:
            self._on_landed(self, result)
        except Exception as error:
            die_of(error)

    def judge(self, result: Reply | Failure, now: float) -> str:
        """The error's name, "" for a success; its stamps are complete after it."""
        timing = self.timing
        timing.first_byte = self.first_byte
        timing.end = now
        timing.is_sent = self.sent > 0.0
        if type(result) is Reply:
            return error_of_status(result.status) or ""
        return self._error(result)

    def _error(self, result: Reply | Failure) -> str:
        assert isinstance(result, Failure)
        if result.message.startswith(SHORTAGE):
            return LoadError.CLIENT_INTERNAL  # the endpoint was never asked
        return error_of(
            result.kind, result.status, is_sent=self.sent > 0.0, has_begun=self.timing.first_byte > 0.0
        )


class AnswerExchange(Exchange):
    """A slot for answers that come whole."""

    __slots__ = ("_parse",)

    def __init__(self, on_landed: OnLanded, provider: Provider) -> None:
        super().__init__(on_landed)
        self._parse = provider.parse

    def judge(self, result: Reply | Failure, now: float) -> str:
        timing = self.timing
        timing.tokens_in = timing.tokens_out = -1
        error = super().judge(result, now)
        if error or not isinstance(result, Reply):
            return error
        answer = self._parse(result)
        timing.tokens_in, timing.tokens_out, _ = answer.usage
        if isinstance(answer, Answer):
            return LoadError.EMPTY_RESPONSE if answer.value == "" else ""
        return error_of(answer.kind, result.status, is_sent=True, has_begun=True)


class StreamExchange(Exchange):
    """A slot for answers that come piece by piece; it listens to them itself."""

    __slots__ = ("_dialect", "_head", "_stream")

    def __init__(self, on_landed: OnLanded, dialect: str) -> None:
        super().__init__(on_landed)
        self._dialect = dialect
        self._head = b""  # the first bytes of the body
        self._stream: Stream | None = None

    @property
    def sink(self) -> Sink | None:
        return self

    def begin(self, call: Call, at_s: float, intended: float) -> None:
        super().begin(call, at_s, intended)
        timing = self.timing
        timing.first_content = timing.first_answer = timing.last_content = 0.0
        timing.tail_us = 0
        timing.tokens_in = timing.tokens_out = -1
        self.gaps_us.clear()
        self.streamed_bytes = 0
        self._head = b""
        self._stream = None

    def on_headers(self, status: int, headers: Mapping[str, str], at: float) -> bool:
        """See ``exchange.Sink``: errors come whole."""
        if not 200 <= status < 300:
            return False
        self._stream = Stream(self._dialect)
        return True

    def on_data(self, data: bytes, at: float) -> None:
        """See ``exchange.Sink``."""
        assert self._stream is not None
        if not self._head:
            self._head = data[:HEAD_BYTES]
        self.streamed_bytes += len(data)
        content = self._stream.feed(data)
        if not content:
            return
        timing = self.timing
        last, timing.last_content = timing.last_content, at
        if last:
            self.gaps_us.append(int((at - last) * 1e6 + 0.5))
        else:
            timing.first_content = at
        if not timing.first_answer and content is Content.ANSWER:
            timing.first_answer = at

    def judge(self, result: Reply | Failure, now: float) -> str:
        error = super().judge(result, now)
        stream, timing = self._stream, self.timing
        timing.stall_us = max(self.gaps_us, default=0)
        if error or isinstance(result, Failure):
            return error
        if stream is None:  # it came whole all the same, compressed: nothing is known of its pieces
            stream = Stream(self._dialect)
            self._head = result.body[:HEAD_BYTES]
            if stream.feed(result.body):
                timing.first_content = timing.last_content = now
        timing.tokens_in, timing.tokens_out, _ = stream.usage
        if stream.failure:
            return LoadError.SSE_ERROR_EVENT
        if not stream.is_whole:
            # No line of an event begins so, and with Ollama's lines, which do, a whole one is a whole answer.
            is_json = self._head.lstrip()[:1] in (b"{", b"[") and not timing.first_content
            return LoadError.BAD_REPLY if is_json else LoadError.TRUNCATED_STREAM
        if not timing.first_content:
            return LoadError.EMPTY_RESPONSE
        self._end_with_content()
        return ""

    def _end_with_content(self) -> None:
        """What follows the last content counts tokens, and is no part of the answer: it has a figure of its own."""
        timing = self.timing
        timing.tail_us = round((timing.end - timing.last_content) * 1e6)
        timing.end = timing.last_content

    def _error(self, result: Reply | Failure) -> str:
        assert isinstance(result, Failure)
        stream, begun = self._stream, self.timing.first_content > 0.0
        if stream is None:
            return super()._error(result)
        if stream.is_whole and begun and not stream.failure:
            # It has said that it is whole; that the server leaves the connection open then is no part of the answer.
            self.timing.tokens_in, self.timing.tokens_out, _ = stream.usage
            self._end_with_content()
            return ""
        if result.kind in _BROKEN_OFF:
            return LoadError.TRUNCATED_STREAM
        return error_of(result.kind, result.status, is_sent=True, has_begun=begun)
