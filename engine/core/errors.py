"""Every way a call or a run can fail, and what follows from it, as one table.

Rules of this file:
1. ``ErrorKind`` is the closed set; ``POLICY`` has exactly one line per kind. Code elsewhere asks the
   table, it never compares kinds to decide whether to retry.
2. Nothing here reads a clock, a file or a socket.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any


class ExitCode(IntEnum):
    """What the process says when it ends."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    STOPPED = 3
    INTERRUPTED = 4
    STORE = 5
    INTERNAL = 6
    THRESHOLD = 99


class ErrorKind(StrEnum):
    """Why a row (or a run) failed. The value is what users see in ``_error`` and in the summary."""

    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    NOT_FOUND = "not_found"
    REQUEST_TOO_LARGE = "request_too_large"
    BAD_REQUEST = "bad_request"
    CONTENT_REFUSED = "content_refused"
    TEMPLATE_ERROR = "template_error"
    BAD_INPUT = "bad_input"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION_RESET = "connection_reset"
    PROTOCOL_ERROR = "protocol_error"
    STALE_KEEPALIVE = "stale_keepalive"
    DNS = "dns"
    CONNECT_REFUSED = "connect_refused"
    TLS = "tls"
    REDIRECT_REFUSED = "redirect_refused"
    BODY_TOO_LARGE = "body_too_large"
    UNAUTHORISED = "unauthorised"
    BAD_REPLY = "bad_reply"
    SCHEMA_MISMATCH = "schema_mismatch"
    FUNCTION_ERROR = "function_error"
    POISON = "poison"
    STORE_FAILURE = "store_failure"


class Retry(StrEnum):
    """Whether and how a failed attempt is repeated."""

    NEVER = "never"
    BACKOFF = "backoff"  # exponential, full jitter, or the server's wait
    SERVER_WAIT = "server_wait"  # the server's wait if it named one, else backoff
    SLOW = "slow"  # backoff with a higher base: the endpoint is not there
    ONCE_FREE = "once_free"  # at once, once, outside the attempt count
    REASK = "reask"  # the reply was bad, not the transport: ask again, bounded


class Signal(StrEnum):
    """What an attempt tells the in-flight controller."""

    NONE = "none"
    HOLD = "hold"  # stop growing
    CUT = "cut"  # lower the limit, once per burst
    PAUSE = "pause"  # cut, and pause the quota


class RunEffect(StrEnum):
    """What a failure means for the whole run."""

    NONE = "none"
    STOP = "stop"  # exit 3 at the first one
    STOP_AFTER_STREAK = "stop_after_streak"  # exit 3 after STREAK identical ones in a row
    STOP_IF_NEVER_ANSWERED = "stop_if_never_answered"  # exit 3 after NEVER_ANSWERED_S without any answer
    STOP_STORE = "stop_store"  # exit 5


class Health(StrEnum):
    """What a failure says of the endpoint it came from; it matters where there is another one."""

    WELL = "well"  # it answered: this row is at fault, or the answer
    FAILS = "fails"
    REFUSES = "refuses"  # it is well, and has enough to do
    NOTHING = "nothing"  # it was not asked, or not heard
    OUT = "out"  # it will not serve this job until somebody mends it


STREAK = 5
NEVER_ANSWERED_S = 15.0
NO_SUCCESS_S = 600.0


@dataclass(frozen=True, slots=True)
class Policy:
    """One line of the table: what happens after a failure of this kind."""

    retry: Retry
    costs_attempt: bool
    signal: Signal
    run: RunEffect
    says: str
    health: Health = Health.WELL


_NEVER = (Retry.NEVER, True, Signal.NONE, RunEffect.NONE)

POLICY: dict[ErrorKind, Policy] = {
    ErrorKind.RATE_LIMITED: Policy(
        Retry.SERVER_WAIT,
        False,
        Signal.PAUSE,
        RunEffect.NONE,
        "the endpoint's rate limit was hit",
        Health.REFUSES,
    ),
    ErrorKind.QUOTA_EXHAUSTED: Policy(
        Retry.NEVER, True, Signal.NONE, RunEffect.STOP, "the account has no quota or money left", Health.OUT
    ),
    ErrorKind.NOT_FOUND: Policy(
        Retry.NEVER,
        True,
        Signal.NONE,
        RunEffect.STOP_AFTER_STREAK,
        "wrong model, deployment or path",
        Health.OUT,
    ),
    ErrorKind.REQUEST_TOO_LARGE: Policy(
        *_NEVER, "one call alone is larger than the endpoint or quota allows"
    ),
    ErrorKind.BAD_REQUEST: Policy(*_NEVER, "the endpoint refused the request as malformed"),
    ErrorKind.CONTENT_REFUSED: Policy(*_NEVER, "the model or a content filter refused to answer"),
    ErrorKind.TEMPLATE_ERROR: Policy(*_NEVER, "the prompt could not be made from this row"),
    ErrorKind.BAD_INPUT: Policy(*_NEVER, "the input row could not be read"),
    ErrorKind.OVERLOADED: Policy(
        Retry.BACKOFF,
        True,
        Signal.CUT,
        RunEffect.NONE,
        "the endpoint is overloaded (503, 529)",
        Health.REFUSES,
    ),
    ErrorKind.SERVER_ERROR: Policy(
        Retry.BACKOFF, True, Signal.HOLD, RunEffect.NONE, "the endpoint failed (5xx)", Health.FAILS
    ),
    ErrorKind.TIMEOUT: Policy(
        Retry.BACKOFF,
        True,
        Signal.HOLD,
        RunEffect.NONE,
        "no reply in time; the call may have been billed",
        Health.FAILS,
    ),
    ErrorKind.CONNECTION_RESET: Policy(
        Retry.BACKOFF,
        True,
        Signal.HOLD,
        RunEffect.NONE,
        "the connection broke before the reply was whole",
        Health.FAILS,
    ),
    ErrorKind.PROTOCOL_ERROR: Policy(
        Retry.BACKOFF, True, Signal.HOLD, RunEffect.NONE, "the reply broke the rules of HTTP", Health.FAILS
    ),
    ErrorKind.STALE_KEEPALIVE: Policy(
        Retry.ONCE_FREE,
        False,
        Signal.NONE,
        RunEffect.NONE,
        "an idle connection was closed under the request",
        Health.NOTHING,
    ),
    ErrorKind.DNS: Policy(
        Retry.SLOW,
        True,
        Signal.HOLD,
        RunEffect.STOP_IF_NEVER_ANSWERED,
        "the host name did not resolve",
        Health.FAILS,
    ),
    ErrorKind.CONNECT_REFUSED: Policy(
        Retry.SLOW,
        True,
        Signal.HOLD,
        RunEffect.STOP_IF_NEVER_ANSWERED,
        "nothing accepts connections there",
        Health.FAILS,
    ),
    ErrorKind.TLS: Policy(*_NEVER, "the server's certificate or TLS handshake was refused", Health.OUT),
    ErrorKind.REDIRECT_REFUSED: Policy(
        *_NEVER, "the endpoint tried to redirect; redirects are never followed", Health.OUT
    ),
    ErrorKind.BODY_TOO_LARGE: Policy(*_NEVER, "the reply was larger than the cap"),
    ErrorKind.UNAUTHORISED: Policy(
        Retry.NEVER,
        True,
        Signal.NONE,
        RunEffect.STOP_AFTER_STREAK,
        "the key was refused (401, 403)",
        Health.OUT,
    ),
    ErrorKind.BAD_REPLY: Policy(
        Retry.REASK, True, Signal.NONE, RunEffect.NONE, "a 200 that does not parse or misses the answer"
    ),
    ErrorKind.SCHEMA_MISMATCH: Policy(
        Retry.REASK, True, Signal.NONE, RunEffect.NONE, "the answer does not fit the schema"
    ),
    # Final unless its step asks for retries, which functions have none of by default.
    ErrorKind.FUNCTION_ERROR: Policy(
        Retry.BACKOFF,
        True,
        Signal.NONE,
        RunEffect.NONE,
        "the function raised, or returned what is no JSON",
        Health.NOTHING,
    ),
    ErrorKind.POISON: Policy(*_NEVER, "the row was in flight at three worker deaths"),
    ErrorKind.STORE_FAILURE: Policy(
        Retry.NEVER, True, Signal.NONE, RunEffect.STOP_STORE, "the results could not be written to disk"
    ),
}

# Statuses that mean the same at every provider; a body may say more (see providers/).
STATUS_KIND: dict[int, ErrorKind] = {
    400: ErrorKind.BAD_REQUEST,
    401: ErrorKind.UNAUTHORISED,
    402: ErrorKind.QUOTA_EXHAUSTED,
    403: ErrorKind.UNAUTHORISED,
    404: ErrorKind.NOT_FOUND,
    408: ErrorKind.TIMEOUT,
    409: ErrorKind.SERVER_ERROR,
    413: ErrorKind.REQUEST_TOO_LARGE,
    422: ErrorKind.BAD_REQUEST,
    424: ErrorKind.SERVER_ERROR,
    425: ErrorKind.SERVER_ERROR,
    429: ErrorKind.RATE_LIMITED,
    498: ErrorKind.OVERLOADED,
    499: ErrorKind.SERVER_ERROR,
    503: ErrorKind.OVERLOADED,
    504: ErrorKind.TIMEOUT,
    529: ErrorKind.OVERLOADED,
}


def kind_of_status(status: int) -> ErrorKind:
    """The kind that an HTTP status alone stands for. Bounds: 300 and above; 2xx is not a failure."""
    if 300 <= status < 400:
        return ErrorKind.REDIRECT_REFUSED
    known = STATUS_KIND.get(status)
    if known is not None:
        return known
    return ErrorKind.SERVER_ERROR if status >= 500 else ErrorKind.BAD_REQUEST


class EngineError(Exception):
    """A run cannot go on. ``str()`` is one sentence for the user: what, what it means, what to do."""

    exit_code: ExitCode = ExitCode.INTERNAL

    def __reduce__(self) -> tuple[Any, ...]:
        """It may travel between a caller's processes: children of this class take other arguments than the sentence."""
        return _the_same, (type(self), self.args, self.__dict__)


def _the_same(kind: type[EngineError], arguments: tuple[Any, ...], fields: dict[str, Any]) -> EngineError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(fields)
    return error


class UsageError(EngineError):
    """The command, the job or the input is unusable; nothing was sent."""

    exit_code = ExitCode.USAGE


class CannotStart(EngineError):
    """The run could not start, or was stopped by authentication or quota."""

    exit_code = ExitCode.STOPPED


class StoreFailure(EngineError):
    """The results could not be written; what was committed before stays."""

    exit_code = ExitCode.STORE


class InternalFault(EngineError):
    """The engine itself is at fault. ``__cause__`` is what happened; ``means``: a sentence on the user's data."""

    def __init__(
        self,
        where: str,
        cause: BaseException,
        means: str = "What was committed before stays; the same command goes on from there.",
    ) -> None:
        super().__init__(
            f"{where} failed: {type(cause).__name__}: {cause}. This is a fault of the engine: please report it. {means}"
        )
        self.__cause__ = cause


class RowError(Exception):
    """One row failed before anything was sent for it. Raised by steps and providers, never leaves a worker."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
