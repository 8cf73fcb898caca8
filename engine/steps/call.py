"""A Python function per row, run in the worker: what it is given, what it may return, what its exceptions become.

Rules of this file:
1. What a function returns is JSON, as ``formats.plain`` makes it of dataclasses, dates, numpy's numbers and the like, and
   read back: a step gets the same value now as after a resume. NaN becomes null.
2. Whatever a function returns or raises is one row's business: nothing here raises for it.
"""

import traceback
from collections.abc import Mapping
from typing import Any, Final

from engine.config import MODES, StepSettings
from engine.core.errors import ErrorKind, RowError, UsageError
from engine.core.model import UNKNOWN_USAGE, Failure, Reply, RowValues, Target
from engine.core.model import Call as Sending
from engine.core.nesting import ANSWER_NESTING_MAX
from engine.credentials import redact_all
from engine.formats.plain import encode_plain
from engine.formats.rows import decode_json
from engine.providers.base import Provider
from engine.steps.base import Again, Done
from engine.steps.functions import SCRIPT_MODULE

TRACE_CHARS_MAX: Final = 20_000
MESSAGE_CHARS_MAX: Final = 2_000
_OURS: Final = ("engine.worker.", "engine.api.functions")  # modules whose frames are not the user's
_NO_HEADERS: Final[Mapping[str, str]] = {}
_NESTED: Final = frozenset((list, dict))  # of what a row holds, what can be changed where it is
_BYTES: Final = (bytes, bytearray, memoryview)
NO_CALL: Final = Sending("", "", (), None)  # nothing is sent


class Called:
    """One row on its way through a function. See ``steps.base.Asking``; what the function returned stands as the reply."""

    __slots__ = ("_into", "arguments", "call")

    def __init__(self, into: str, arguments: RowValues) -> None:
        self._into = into
        self.arguments = arguments
        self.call = NO_CALL

    def absorb(self, reply: Reply) -> Done | Again | Failure:
        """The row's column, out of what ``checked`` made."""
        try:
            return Done({self._into: decode_json(reply.body, ANSWER_NESTING_MAX)}, UNKNOWN_USAGE, "")
        except RowError as error:
            return _no_json(f"what is {error.message}")


class Call:
    """The step of Python functions. Raises UsageError for a mode that there is not; the function is found elsewhere."""

    def __init__(
        self, settings: StepSettings, target: Target | None = None, provider: Provider | None = None
    ) -> None:
        """``target`` and ``provider`` are other kinds': nothing is sent."""
        if settings.mode not in MODES:
            raise UsageError(f"There is no mode {settings.mode!r}. Known: {', '.join(MODES[1:])}.")
        self.into = settings.into
        self.columns = self.needed = frozenset[str]()
        self.answer_columns = (settings.into,)

    def start(self, row: RowValues) -> Called:
        """The row's arguments."""
        return Called(self.into, row)


def own_copy(row: RowValues) -> dict[str, Any]:
    """The row for a function to do with as it likes: no list and no dict in it is anybody else's.

    A row without any costs a third of a microsecond more than ``dict(row)``. Its nesting is bounded where it is decoded.
    """
    copy = dict(row)
    if not _NESTED.isdisjoint(map(type, copy.values())):
        for name, value in copy.items():
            copy[name] = _own(value)
    return copy


def _own(value: Any) -> Any:
    kind = type(value)
    if kind is list:
        return value.copy() if _NESTED.isdisjoint(map(type, value)) else [_own(one) for one in value]
    return own_copy(value) if kind is dict else value


def checked(value: Any, bytes_max: int) -> Reply | Failure:
    """What a function returned, as a reply of at most ``bytes_max`` bytes of JSON; the failure where it is none.

    Never raises.
    """
    if isinstance(value, _BYTES):
        return _no_json("bytes: decode them to text first")
    try:
        data = encode_plain(value)
        if len(data) > bytes_max:
            return _no_json(f"{len(data):,} bytes of JSON; {bytes_max:,} are allowed")
        return Reply(200, _NO_HEADERS, data)
    except RecursionError:
        return _no_json("a value that is nested too deeply, or contains itself")
    except UnicodeError:
        return _no_json("text that is not Unicode (half of a surrogate pair)")
    except Exception as error:  # an object's own conversion may raise anything
        return _no_json(
            f"what is no JSON ({text_of(error)}). Return text, numbers, booleans, None, lists and dicts"
        )


def _no_json(what: str) -> Failure:
    return Failure(ErrorKind.FUNCTION_ERROR, f"the function returned {what}"[:MESSAGE_CHARS_MAX])


def raised(error: BaseException) -> Failure:
    """What a function raised, with its traceback: the user's frames only, and the end of it if it is long. Never raises."""
    name = type(error).__name__
    text = text_of(error)
    message = redact_all((f"{name}: {text}" if text else name) + _hint_of(error))
    return Failure(ErrorKind.FUNCTION_ERROR, message[:MESSAGE_CHARS_MAX], trace=trace_of(error))


def _hint_of(error: BaseException) -> str:
    """What a missing name of a script, or of a notebook, comes from; empty for anything else."""
    tb = error.__traceback__
    if type(error) is not NameError or tb is None:
        return ""
    while tb.tb_next is not None:
        tb = tb.tb_next
    known = tb.tb_frame.f_globals
    if error.name in known or known.get("__name__") not in ("__main__", SCRIPT_MODULE):
        return ""
    return ". A worker has the names that there were when its Pool was made, or the script first ran rows: define it before that"


def trace_of(error: BaseException) -> str:
    """The traceback, from the first frame that is not the worker's; at most ``TRACE_CHARS_MAX`` characters, no secrets."""
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_globals.get("__name__", "").startswith(_OURS):
        tb = tb.tb_next
    try:
        lines = list(traceback.TracebackException(type(error), error, tb).format())
    except Exception:  # an exception that cannot even be shown
        lines = [f"{type(error).__name__}: (it could not be shown)\n"]
    text = redact_all("".join(lines))
    return text if len(text) <= TRACE_CHARS_MAX else f"…{text[1 - TRACE_CHARS_MAX :]}"


def text_of(error: BaseException) -> str:
    """What an exception says; empty where even that raises."""
    try:
        return str(error)[:MESSAGE_CHARS_MAX]
    except Exception:
        return ""
