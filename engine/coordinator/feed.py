"""Rows from the source to the ledger, read in a thread, without those that are finished already.

Rules of this file:
1. The thread reads only as far as it has credit, so that memory stays flat however long the input is. Rows
   that come slowly (a pipe) are handed on before the next read waits.
2. A finished row is skipped only if its bytes are still the ones it was finished with. That is checked for all
   finished rows before the first open row is handed out, unless the input can be read only once.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from engine.core.errors import EngineError, InternalFault, UsageError
from engine.core.ledger import LedgerRow
from engine.source import Rows, SourceRow

CHUNK_ROWS = 512
CHUNK_BYTES = 4 * 1024 * 1024
FIRST_CHUNK_ROWS = 64  # small, so that the first worker that is ready finds rows


class Chunk(NamedTuple):
    """Open rows read in one go, and the rows among them that cannot be used."""

    rows: list[LedgerRow]
    bad: list[SourceRow]
    resumed: int  # finished rows passed over on the way


Finished = Callable[[], Iterator[tuple[int, int, bool]]]


class Feed:
    """The reading thread of one run."""

    def __init__(
        self,
        source: Rows,
        *,
        again: Callable[[], Rows | None] | None,
        finished: Finished,
        rows_max: int | None,
        on_chunk: Callable[[Chunk], None],
        on_end: Callable[[int], None],
        on_error: Callable[[EngineError], None],
        on_finished: Callable[[int], None] | None = None,
    ) -> None:
        """``again`` opens the input a second time, to check it first; it gives None where it can be read only once.

        ``on_chunk``, ``on_end`` (with the number of rows) and ``on_error`` are called on the loop; ``on_finished`` on
        the reading thread, with the number of each finished row that is passed over.
        """
        self._source = source
        self._again = again
        self._finished = finished
        self._rows_max = rows_max
        self._on_chunk, self._on_end, self._on_error = on_chunk, on_end, on_error
        self._on_finished = on_finished
        self._loop = asyncio.get_running_loop()
        self._credit = threading.Semaphore(0)
        self._stopped = False
        self._open: list[LedgerRow] = []  # read and not yet handed on; the thread's own
        self._bad: list[SourceRow] = []
        self._resumed = self._held_bytes = 0
        self._size = FIRST_CHUNK_ROWS
        self._thread = threading.Thread(target=self._read, name="feed", daemon=True)
        self.rows_read = 0

    def start(self) -> None:
        """Begin; the first chunk comes without asking."""
        self._credit.release()
        self._thread.start()

    def more(self) -> None:
        """Credit for one more chunk."""
        self._credit.release()

    def stop(self) -> None:
        """Read no further. Does not wait for a read that hangs (standard input)."""
        self._stopped = True
        self._credit.release()

    def _read(self) -> None:
        try:
            twin = self._again() if self._again is not None else None
            if twin is not None:
                self._verify(twin)
            self._read_all()
        except _Stopped:
            return
        except EngineError as error:
            self._post(self._on_error, error)
        except Exception as error:
            # A thread that ends in silence would leave a run that waits for rows for ever.
            self._post(self._on_error, InternalFault("reading the input", error))

    def _read_all(self) -> None:
        finished = self._finished()
        done = next(finished, None)
        self._source.tell_waits(self._hand_on)
        for row in self._rows(self._source):
            self.rows_read = row.row + 1
            if done is not None and done[0] == row.row:
                _compare(row, done[1])
                self._resumed += 1
                if self._on_finished is not None:
                    self._on_finished(row.row)
                done = next(finished, None)
                continue
            if row.bad:
                self._bad.append(row)
            else:
                self._open.append(LedgerRow(row.row, row.line, row.payload, row.digest))
            self._held_bytes += len(row.payload)
            if len(self._open) + len(self._bad) >= self._size or self._held_bytes >= CHUNK_BYTES:
                self._hand_on()
        if done is not None and self._rows_max is None:
            raise _shorter(self.rows_read)
        self._post(self._on_chunk, self._gathered())
        self._post(self._on_end, self.rows_read)

    def _hand_on(self) -> None:
        """Hand on what was read so far, once there is credit for it: a chunk is full, or the input has no more now."""
        if not self._open and not self._bad:
            return
        self._credit.acquire()
        if self._stopped:
            raise _Stopped
        self._size = CHUNK_ROWS
        self._post(self._on_chunk, self._gathered())

    def _gathered(self) -> Chunk:
        chunk = Chunk(self._open, self._bad, self._resumed)
        self._open, self._bad, self._resumed, self._held_bytes = [], [], 0, 0
        return chunk

    def _verify(self, source: Rows) -> None:
        """Compare every finished row with the input, before anything is sent."""
        finished = self._finished()
        done = next(finished, None)
        try:
            if done is None:
                return
            for row in self._rows(source):
                if self._stopped:
                    return
                if done[0] == row.row:
                    _compare(row, done[1])
                    done = next(finished, None)
                    if done is None:
                        return
            if self._rows_max is None:
                raise _shorter(done[0])
        finally:
            source.close()

    def _rows(self, source: Rows) -> Iterator[SourceRow]:
        for row in source:
            if self._rows_max is not None and row.row >= self._rows_max:
                return
            yield row

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            self._stopped = True  # the loop is closed: the run is over


class _Stopped(Exception):
    """The run is over; the thread is to end."""


def _compare(row: SourceRow, digest: int) -> None:
    if row.digest != digest:
        raise changed_input(row.row, row.line)


def changed_input(row: int, line: int) -> UsageError:
    """What is said where a row, or a step of it, was finished with other bytes than the input has now."""
    return UsageError(
        f"The input has changed: row {row} (line {line}) was finished with other bytes. Nothing of it is "
        "sent again. Restore the input, or start over with --fresh (the results so far are moved aside)."
    )


def _shorter(rows: int) -> UsageError:
    return UsageError(
        f"The input has changed: it ends after {rows} rows, but later rows were finished before. "
        "Restore the input, or start over with --fresh (the results so far are moved aside)."
    )
