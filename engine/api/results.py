"""What came of a row, for programs: made from the row's record as it is stored.

Rules of this file:
1. What a record's columns of figures say is here as fields; their names are not a caller's concern.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import astuple

from engine.core.errors import EngineError, ExitCode
from engine.formats.record import decode_row

_FIGURES = ("_status", "_error", "_attempts", "_latency_ms", "_tokens_in", "_tokens_out")


class Usage(msgspec.Struct, frozen=True):
    """Tokens that a row cost, all its attempts together; None where the endpoint did not say."""

    tokens_in: int | None
    tokens_out: int | None


class Result(msgspec.Struct, frozen=True):
    """One row's result."""

    value: Any
    """The answer; None where the row failed. Of several steps, or of a schema's properties, a dict by column."""
    status: str
    """``"ok"`` or ``"failed"``."""
    error: str
    """Why it failed, ``"kind: sentence"``; ``""`` where it did not."""
    row: Any
    """The object that was given, as it was given."""
    index: int
    """Its place among the rows, from 0."""
    usage: Usage
    latency_ms: float | None
    """Of the last attempt, in milliseconds; of several steps, each one's added up. None where nothing was tried."""
    attempts: int
    """Requests that were sent for it and functions that were called, retries included."""
    traceback: str = ""
    """Of the user's function that raised, where one did."""
    partial: dict[str, Any] = {}
    """Where a row of several steps failed: what the steps that had ended gave, by column."""

    @property
    def ok(self) -> bool:
        """Whether the row has its answer."""
        return self.status == "ok"


class RowFailed(EngineError):
    """A row failed, and ``on_error="raise"`` was asked for. ``result`` is the row's.

    ``results``: of the rows that were done by then, where all results had been asked for at once (``run``, ``map``, ...).
    """

    exit_code = ExitCode.SOME_FAILED

    def __init__(self, result: Result, goes_on: str = "") -> None:
        super().__init__(
            f"Row {result.index} failed: {result.error.rstrip('.')}. The run was stopped. {goes_on}".rstrip()
        )
        self.result = result
        self.results: list[Result] = []


class RunStopped(EngineError):
    """The run stopped before every row had its outcome: the endpoint will not serve, or too many rows failed.

    ``results``: of the rows that were done by then, where all results had been asked for at once (``run``, ``map``, ...).
    """

    exit_code = ExitCode.STOPPED

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.results: list[Result] = []


@lru_cache(maxsize=16)
def reader_of(answers: tuple[str, ...], as_dict: bool) -> "Reader":
    """The reader for these columns: to make one costs as much as to read a hundred records."""
    return Reader(answers, as_dict=as_dict)


class Reader:
    """Makes results of records. ``answers``: the answer columns; ``as_dict``: the value is a dict of them."""

    def __init__(self, answers: tuple[str, ...], *, as_dict: bool) -> None:
        self._answers = answers
        self._is_dict = as_dict
        # Only these columns are decoded: records hold the whole input row as well.
        names = {f"f{at}": name for at, name in enumerate((*_FIGURES, *answers))}
        shape = msgspec.defstruct(
            "Shape", [(field, Any, None) for field in names], rename=names, gc=False, module=__name__
        )
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(shape)

    def read(self, index: int, record: bytes, row: Any, traceback_of: Callable[[int, str], str]) -> Result:
        """The result of row ``index``; ``row`` is the caller's own object.

        ``traceback_of``: asked with index and error where the row failed.
        """
        values = self._values(record)
        status, error, attempts, latency_ms, tokens_in, tokens_out, *answers = values
        value: Any = None
        partial: dict[str, Any] = {}
        if status != "ok":
            given = zip(self._answers, answers, strict=True)
            partial = {name: one for name, one in given if one is not None} if self._is_dict else partial
        elif self._is_dict:
            value = dict(zip(self._answers, answers, strict=True))
        else:
            value = answers[0]
        usage = Usage(tokens_in, tokens_out)
        trace = "" if status == "ok" else traceback_of(index, error)
        return Result(value, status, error, row, index, usage, latency_ms, attempts or 0, trace, partial)

    def _values(self, record: bytes) -> Sequence[Any]:
        try:
            shape = self._decoder.decode(record)
        except msgspec.DecodeError:  # a number out of range, which only the exact way can read
            found = decode_row(record)
            return [found.get(name) for name in (*_FIGURES, *self._answers)]
        return astuple(shape)
