"""Rows from a program's own objects instead of a file: numbered, encoded, and read no further than they are wanted.

Rules of this file:
1. Nothing is listed: of the rows that were read, at most ``ahead_max`` wait for their results to be taken.
2. The caller's objects are iterated on one thread of ours, from the first row to the last, and never touched otherwise.
3. An object that is no row (it cannot be written as JSON) becomes a bad row; its neighbours do not suffer.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from typing import Any

from engine.core.errors import EngineError, ExitCode
from engine.formats.plain import encode_plain
from engine.source import Rows, SourceRow, digest_of

AHEAD_BYTES = 256 * 1024 * 1024  # of rows whose results were not taken yet; one row alone may have more

Numbered = tuple[int, object]
_BYTES = (bytes, bytearray, memoryview)


class RowsFailed(EngineError):
    """The caller's iterable raised; ``__cause__`` is what it raised."""

    exit_code = ExitCode.USAGE


def payload_of(row: object) -> bytes:
    """A row's JSON object: of a mapping, a dataclass, a named tuple or the like its fields, of a text ``{"text": ...}``.

    Anything else that is JSON becomes ``{"value": ...}``. What objects become: see ``formats.plain``. Raises TypeError,
    ValueError, OverflowError, RecursionError or NotImplementedError for what JSON cannot say, and for bytes.
    """
    kind = type(row)  # what most rows are has a way that asks for nothing else: every row goes through here
    if kind is dict:
        return encode_plain(row)
    if kind is int or kind is float:
        return b'{"value":%b}' % encode_plain(row)
    if isinstance(row, str):
        return encode_plain({"text": row})
    payload = _encoded(row)
    return payload if payload[:1] == b"{" else b'{"value":%b}' % payload


def column_of(row: object) -> str:
    """The column that a row which is no object becomes alone; empty for one with columns of its own, or none."""
    if isinstance(row, str):
        return "text"
    try:
        return "" if _encoded(row)[:1] == b"{" else "value"
    except Exception:
        return ""


def _encoded(row: Any) -> bytes:
    if isinstance(row, _BYTES):
        raise TypeError("it is bytes; decode them to text first")
    if isinstance(row, tuple) and hasattr(row, "_asdict"):
        row = row._asdict()
    elif not isinstance(row, dict) and hasattr(row, "to_dict") and hasattr(row, "index"):
        row = row.to_dict()  # a Series: a row of a DataFrame
    return encode_plain(row)


class RowsSource(Rows):
    """The rows of an iterable of objects, each kept until its result is taken.

    ``again``: makes the iterable once more from its beginning, where that can be done. ``total``: how many there are,
    where that is known. Numbers count from 0.
    """

    def __init__(
        self,
        rows: Iterable[object],
        *,
        ahead_max: int,
        row_bytes_max: int,
        again: Callable[[], Iterable[object]] | None = None,
        total: int | None = None,
    ) -> None:
        super().__init__(self._arrivals(), columns=None, notes={})
        self._objects: Iterator[Numbered] = enumerate(rows)
        self._again = again
        self._total = total
        self._ahead_max = ahead_max
        self._low = ahead_max - max(
            1, ahead_max // 4
        )  # read on by many at once: waking a thread costs more than a row
        self._row_bytes_max = row_bytes_max
        self._on_wait: Callable[[], None] = _nothing
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)  # rows to read, or the end
        self._room = threading.Condition(self._lock)
        self._ready: list[SourceRow] = []
        self._is_awaited = False  # somebody waits for ``_arrived``
        self._held: dict[int, tuple[object, int]] = {}  # by number: the object and its bytes
        self._read_bytes = self._taken_bytes = 0  # each counted by one thread alone
        self._is_waiting = False  # the thread that reads waits for room
        self._is_over = self._is_closed = False
        self._failure: BaseException | None = None
        self._within = copy_context().run  # what the caller's iterable sees of context variables
        self._thread: threading.Thread | None = None

    def rows_estimate(self) -> int | None:
        """How many rows there are, where the caller said so."""
        return self._total

    def again(self) -> Rows | None:
        """The same rows from the beginning, kept by nobody."""
        if self._again is None:
            return None
        return _Unkept(self._again(), ahead_max=self._ahead_max, row_bytes_max=self._row_bytes_max)

    def tell_waits(self, on_wait: Callable[[], None]) -> None:
        """As the base's."""
        self._on_wait = on_wait

    def take(self, number: int) -> object:
        """The object that row ``number`` was made of, as its result is taken: there is room for one more then.

        Bounds: once for each row; one thread at a time.
        """
        row, size = self._held.pop(number)
        self._taken_bytes += size
        if self._is_waiting and len(self._held) <= self._low and self._held_bytes <= AHEAD_BYTES // 2:
            with self._lock:
                self._room.notify()
        return row

    @property
    def _held_bytes(self) -> int:
        return self._read_bytes - self._taken_bytes

    def close(self) -> None:
        """Read no further. Does not wait for an iterable that hangs. Objects can still be taken."""
        with self._lock:
            self._is_closed = self._is_over = True
            self._arrived.notify_all()
            self._room.notify_all()

    # --- the reading thread of the run ------------------------------------------------------------------------

    def _arrivals(self) -> Iterator[SourceRow]:
        if self._thread is None and not self._is_closed:
            self._thread = threading.Thread(target=self._within, args=(self._read,), name="rows", daemon=True)
            self._thread.start()
        while True:
            if not self._ready:
                self._on_wait()
            with self._lock:
                self._is_awaited = True
                self._arrived.wait_for(lambda: self._ready or self._is_over)
                self._is_awaited = False
                batch, self._ready = self._ready, []
            if not batch or self._is_closed:
                break
            yield from batch
        if self._failure is not None:
            message = (
                f"The rows could not be read any further: {type(self._failure).__name__}: {self._failure}"
            )
            raise RowsFailed(message) from self._failure

    # --- the thread that iterates over the caller's objects -----------------------------------------------------

    def _read(self) -> None:
        try:
            while self._waited_for_room():
                numbered = next(self._objects, None)
                if numbered is None:
                    break
                self._arrive(*numbered)
        except BaseException as error:  # whatever the caller's iterable raises belongs to the caller
            self._failure = error
            _hint(error)
        with self._lock:
            self._is_over = True
            self._arrived.notify_all()

    def _waited_for_room(self) -> bool:
        """Wait until one more row may be read; False when none is wanted any more."""
        with self._lock:
            # Said before looking, so that whoever takes a row after the look sees that somebody waits.
            self._is_waiting = True
            while not self._is_closed and self._is_full():
                self._room.wait()
            self._is_waiting = False
            return not self._is_closed

    def _is_full(self) -> bool:
        return len(self._held) >= self._ahead_max or self._held_bytes >= AHEAD_BYTES

    def _arrive(self, number: int, row: object) -> None:
        payload, bad = b"", ""
        try:
            payload = payload_of(row)
            if len(payload) > self._row_bytes_max:
                payload, bad = b"", f"the row has {len(payload):,} bytes, more than {self._row_bytes_max:,}"
        except Exception as error:  # an object's own conversion may raise anything
            bad = f"the row cannot be written as JSON: {error}"
        line = SourceRow(number, number + 1, payload, digest_of(payload), bad)
        with self._lock:
            self._hold(number, row, len(payload))
            self._ready.append(line)
            if self._is_awaited:
                self._arrived.notify()

    def _hold(self, number: int, row: object, size: int) -> None:
        self._held[number] = (row, size)
        self._read_bytes += size


class PartSource(RowsSource):
    """Some of a run's rows, each with the number it has there, in rising order."""

    is_part = True

    def __init__(self, rows: Iterable[Numbered], *, ahead_max: int, row_bytes_max: int) -> None:
        super().__init__((), ahead_max=ahead_max, row_bytes_max=row_bytes_max)
        self._objects = iter(rows)


class _Unkept(RowsSource):
    """Rows that are read to be compared: what was handed on is no longer held."""

    def _arrivals(self) -> Iterator[SourceRow]:
        for row in super()._arrivals():
            self.take(row.row)
            yield row


def _hint(error: BaseException) -> None:
    """Say more to those whose rows can only be read in the thread that they were made in, like sqlite3's cursors."""
    try:
        if "thread" in str(error):
            error.add_note(
                "Rows are read in a thread of their own. Make what belongs to one thread inside the generator of the rows, or "
                "let it be used in others (sqlite3.connect(..., check_same_thread=False))."
            )
    except Exception:  # an exception that cannot even be shown
        return


def _nothing() -> None:
    """Nobody wants to be told of waits."""
