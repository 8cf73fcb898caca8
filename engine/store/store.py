"""The store: outcomes, open leases and the run's identity. SQLite, one file, one transaction per group.

Rules of this file:
1. Every fault of SQLite leaves it as a StoreFailure that says what to do.
2. What ``apply`` was given is on disk when it returns, whole or not at all. After one failure nothing is
   written any more: what the disk holds is then unknown until the store is opened again.
3. Reads have connections of their own and no transaction outlives a page, so that a slow reader neither
   waits for a commit nor keeps the write-ahead log from being emptied. Memory does not grow with the run.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from operator import lt
from pathlib import Path
from typing import Any, Self

from engine.core.commit import Commit, Counts, StepRow, Sums, checksum
from engine.core.errors import StoreFailure, UsageError
from engine.store.faults import damaged
from engine.store.folder import FolderHold, create_private_file, hold_folder
from engine.store.opening import DATABASE_NAME, SYNCHRONOUS, connect, named_faults, prepare, version_of
from engine.store.reopening import (
    close_run,
    drop_steps_of_others_than_ok,
    keep_identity,
    open_all,
    open_failed,
)
from engine.store.schema import FINISHED_AFTER, RECORDS_AFTER, SENT, SENT_SINCE, STEP_NUMBERS
from engine.store.writing import read_steps, unpack, write_leases, write_outcomes, write_steps

_FINISHED_PAGE = 8192  # rows
_RECORDS_PAGE = 512  # rows, or fewer where they are large:
_RECORDS_PAGE_BYTES = 4 * 1024 * 1024


class Store:
    """One run's store. Made by ``open`` (to write; one process at a time) or ``view`` (to read, at any time).

    All methods may be called from any thread. Those that write wait for each other and for the disk, those
    that read do not wait for writers. Every method raises StoreFailure when the disk or the file is at fault.
    """

    def __init__(
        self,
        folder: Path,
        reader: sqlite3.Connection,
        writer: sqlite3.Connection | None,
        hold: FolderHold | None,
    ) -> None:
        self._folder = folder
        self._reader = reader
        self._writer = writer
        self._hold = hold
        self._read_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._failure: StoreFailure | None = None

    # --- opening and closing ----------------------------------------------------------------------------

    @classmethod
    def open(cls, folder: Path, *, durability: str) -> Self:
        """Create or open the store in ``folder``, for this process alone.

        ``durability``: "fsync" or "os". Raises UsageError when another run has the folder, when it cannot be
        made (its parent must exist), or when it holds something else or something newer.
        """
        with ExitStack() as undo, named_faults(folder):
            hold = hold_folder(folder)
            undo.callback(hold.release)
            create_private_file(folder / DATABASE_NAME)
            writer = connect(folder, mode="rw")
            undo.callback(writer.close)
            prepare(writer, folder, synchronous=SYNCHRONOUS[durability])
            store = cls(folder, connect(folder, mode="ro"), writer, hold)
            undo.pop_all()
        return store

    @classmethod
    def view(cls, folder: Path) -> Self:
        """Read the store in ``folder``, also while a run writes to it. Raises UsageError if no run is there."""
        with ExitStack() as undo, named_faults(folder):
            if (folder / DATABASE_NAME).is_file():
                reader = connect(folder, mode="ro")
                undo.callback(reader.close)
                if version_of(reader, folder) > 0:
                    undo.pop_all()
                    return cls(folder, reader, None, None)
        raise UsageError(f"There is no run in {folder}. Give the folder that a run keeps its state in.")

    def close(self) -> None:
        """Let the folder go. Safe to call twice; what was committed does not depend on it."""
        with self._write_lock, self._read_lock:
            # The writer goes last: the last connection empties the write-ahead log and removes it.
            self._reader.close()
            if self._writer is not None:
                self._writer.close()
            if self._hold is not None:
                self._hold.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- writing ----------------------------------------------------------------------------------------

    def apply(self, commits: Sequence[Commit]) -> None:
        """Write a group of commits in one transaction; on return all of it is as durable as was asked for.

        Raises StoreFailure, on every later call too: nothing of the group counts as written then.
        """
        with self._transaction() as writer:
            write_outcomes(writer, [line for commit in commits for line in commit.outcomes])
            write_steps(writer, [line for commit in commits for line in commit.steps])
            write_leases(writer, commits, self._folder)
            in_doubt = sum(commit.in_doubt for commit in commits)
            if in_doubt:
                writer.execute("UPDATE run SET in_doubt = in_doubt + ?", (in_doubt,))
            for commit in commits:
                if commit.total_rows is not None:
                    writer.execute("UPDATE run SET total_rows = ?", (commit.total_rows,))

    def recover(self) -> int:
        """Settle an interruption: count rows that were leased and have no outcome, then close all leases.

        Returns how many there were this time; they are added to ``in_doubt_total``. To be called once, when a
        run starts, before anything is leased.
        """
        with self._transaction() as writer:
            rows: set[int] = set()
            for lease, packed in writer.execute("SELECT lease, rows FROM lease"):
                rows.update(unpack(packed, lease, self._folder))
            known = "SELECT 1 FROM outcome INDEXED BY finished WHERE row = ?"
            finished = sum(writer.execute(known, (row,)).fetchone() is not None for row in rows)
            in_doubt = len(rows) - finished
            writer.execute("DELETE FROM lease")
            writer.execute("UPDATE run SET in_doubt = in_doubt + ?", (in_doubt,))
        return in_doubt

    def forget_failed(
        self,
        kind: str | None = None,
        *,
        steps: Sequence[str] = (),
        identity: dict[str, Any] | None = None,
    ) -> int:
        """Drop the outcomes of failed rows, of one kind or of all, so that they are open again; how many.

        What they cost stays counted. The run is no longer finished if there were any. In the same transaction
        ``identity`` is kept, and what ``steps`` came to is dropped in all rows but those that are ok.
        """
        numbers = self.step_numbers(steps)
        with self._transaction() as writer:
            drop_steps_of_others_than_ok(writer, numbers)
            if identity is not None:
                keep_identity(writer, identity)
            return open_failed(writer, kind)

    def forget_from(self, steps: Sequence[str], identity: dict[str, Any]) -> bool:
        """Open all rows again, drop what these steps came to, and keep ``identity``, in one transaction.

        False, and nothing is dropped, where the same was begun before and has not come to its end: then the run is
        to go on. What rows cost stays counted.
        """
        numbers = self.step_numbers(steps)
        with self._transaction() as writer:
            keep_identity(writer, identity)
            return open_all(writer, numbers, {"steps": list(steps), "identity": identity})

    # --- steps, of jobs that have several ---------------------------------------------------------------

    def step_numbers(self, names: Sequence[str]) -> list[int]:
        """The numbers of steps by their names; a new name gets a new one. Raises UsageError when there are too many."""
        known = {name: number for number, name in self._rows("SELECT number, name FROM step_name")}
        new = [name for name in names if name not in known]
        if len(known) + len(new) > STEP_NUMBERS:
            raise UsageError(f"A run knows {STEP_NUMBERS} names of steps; start over with --fresh.")
        if new:
            with self._transaction() as writer:
                for name in new:
                    number = len(known)
                    writer.execute("INSERT INTO step_name VALUES (?, ?)", (number, name))
                    known[name] = number
        return [known[name] for name in names]

    def has_steps(self) -> bool:
        """Whether any step of any row has ended."""
        return bool(self._rows("SELECT 1 FROM step LIMIT 1"))

    def steps_of(self, rows: Sequence[int]) -> list[StepRow]:
        """The steps that have ended of these rows, by row."""
        found: list[StepRow] = []
        wanted = set(rows)
        with self._read_lock, named_faults(self._folder):
            for first, last in _runs(sorted(wanted)):
                found += list(read_steps(self._reader, first, last, self._folder))
        return found

    def set_identity(self, identity: dict[str, Any]) -> None:
        """Keep what makes a resumed run the same job; a JSON object."""
        with self._transaction() as writer:
            keep_identity(writer, identity)

    def set_meta(self, key: str, value: str) -> None:
        """Keep a further text about the run under a name of the caller's choice."""
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)

    def set_total_rows(self, rows: int) -> None:
        """Keep how many rows the input has, once it was read to its end."""
        self._write("UPDATE run SET total_rows = ?", rows)

    def finish(self) -> None:
        """Mark the run finished: every row of the input has its outcome."""
        with self._transaction() as writer:
            close_run(writer)

    def _write(self, statement: str, *values: object) -> None:
        with self._transaction() as writer:
            writer.execute(statement, values)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        writer = self._writer
        if writer is None:
            raise TypeError("this store was opened to be read only")
        with self._write_lock:
            if self._failure is not None:
                raise StoreFailure(str(self._failure))
            try:
                with named_faults(self._folder):
                    writer.execute("BEGIN IMMEDIATE")
                    yield writer
                    writer.execute("COMMIT")
            except BaseException as error:
                if isinstance(error, StoreFailure):
                    self._failure = error
                with suppress(sqlite3.Error):  # most faults have rolled back already
                    writer.execute("ROLLBACK")
                raise

    # --- reading ----------------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any] | None:
        """What ``set_identity`` was given; None before that."""
        text = self._value("SELECT identity FROM run")
        if text is None:
            return None
        try:
            identity: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise damaged("the run's identity is not what was written", self._folder) from error
        return identity

    def get_meta(self, key: str) -> str | None:
        """What ``set_meta`` was given under this name."""
        value: str | None = self._value("SELECT value FROM meta WHERE key = ?", key)
        return value

    def total_rows(self) -> int | None:
        """How many rows the input has; None until that is known."""
        return self._number("SELECT total_rows FROM run")

    def is_finished(self) -> bool:
        """Whether the run was marked finished, and no failed row was opened again since."""
        return bool(self._number("SELECT finished FROM run"))

    def in_doubt_total(self) -> int:
        """Rows that were leased and unfinished at interruptions, all of them added up."""
        return self._number("SELECT in_doubt FROM run") or 0

    def counts(self) -> Counts:
        """What the outcomes add up to. Kept up to date by every commit, so it costs the same at any size."""
        kinds: dict[str, Sums] = {}
        for kind, *sums in self._rows("SELECT kind, rows, attempts, tokens_in, tokens_out FROM tally"):
            if set(map(type, sums)) != {int}:
                raise damaged("a sum is not what was written", self._folder)
            kinds[kind] = Sums(*sums)
        ok = kinds[""].rows if "" in kinds else 0
        failed = {kind: sums.rows for kind, sums in kinds.items() if kind and sums.rows}
        every = [sum(column) for column in zip(*kinds.values(), strict=True)] or [0, 0, 0, 0]
        return Counts(ok, failed, *every[1:])

    def finished(self) -> Iterator[tuple[int, int, bool]]:
        """(row, digest, ok) of every row with an outcome, by row. May be read step by step beside a writer.

        Memory holds one page. Rows that finish meanwhile appear if the reading has not yet come to them.
        """
        for page in self._pages(FINISHED_AFTER, _FINISHED_PAGE):
            yield from [(row, digest, ok == 1) for row, digest, ok in page]

    def records(self, before: int | None = None) -> Iterator[bytes]:
        """Every record, by row; as ``numbered_records`` otherwise."""
        return (record for _, record in self.numbered_records(before))

    def numbered_records(self, before: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(row, record), by row, each checked against its checksum; ``before``: only of rows before that one.

        Memory holds one page, about 4 MB. What was read step by step beside a writer is as with ``finished``.

        Raises StoreFailure, naming the row, for a record that is not what was written.
        """
        for page in self._pages(RECORDS_AFTER, _RECORDS_PAGE, _RECORDS_PAGE_BYTES):
            for row, ok, digest, crc, record in page:
                if before is not None and row >= before:
                    return
                if type(digest) is not int or checksum(row, ok == 1, digest, record) != crc:
                    raise damaged(f"the record of row {row} is not what was written", self._folder)
                yield row, record

    def sent_moments(self) -> Iterator[float]:
        """When each row's last attempt was sent, by the monotonic clock of that time's boot, in no order.

        None for rows that were never sent, and for those of a store of before these moments were kept.
        """
        with named_faults(self._folder), closing(self._own_reader()) as reader:
            if version_of(reader, self._folder) < SENT_SINCE:
                return
            for (moment,) in reader.execute(SENT):
                if type(moment) is not float:
                    raise damaged("a moment is not what was written", self._folder)
                yield moment

    def _pages(self, statement: str, rows_max: int, bytes_max: int = 0) -> Iterator[list[tuple[Any, ...]]]:
        """All rows of the run that a statement gives, in order, page by page. Raises StoreFailure if any are missing."""
        given, after = 0, -1
        expected = self.counts().rows
        with closing(self._own_reader()) as reader:
            while page := self._page(reader, statement, after, rows_max, bytes_max):
                rows = [after, *[line[0] for line in page]]
                if set(map(type, rows)) != {int} or not all(map(lt, rows, rows[1:])):
                    raise damaged(f"the rows after row {after} are out of order", self._folder)
                yield page
                after = rows[-1]
                given += len(page)
        # Both counts, for a run may have gone on meanwhile, or had its failed rows opened again.
        expected = min(expected, self.counts().rows)
        if given < expected:
            raise damaged(f"{expected - given} of {expected} rows are missing", self._folder)

    def _page(
        self, reader: sqlite3.Connection, statement: str, after: int, rows_max: int, bytes_max: int
    ) -> list[tuple[Any, ...]]:
        """The next rows after ``after``, fewer than ``rows_max`` once their last columns reach ``bytes_max``.

        On return the statement is over, so that no view of the file is held while the caller is at work.
        """
        page: list[tuple[Any, ...]] = []
        size = 0
        with named_faults(self._folder), closing(reader.execute(statement, (after, rows_max))) as cursor:
            if not bytes_max:
                return cursor.fetchall()
            for line in cursor:
                page.append(line)
                size += len(line[-1])
                if size >= bytes_max:
                    break
        return page

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._read_lock, named_faults(self._folder):
            return self._reader.execute(statement, values).fetchall()

    def _value(self, statement: str, *values: object) -> Any:
        rows = self._rows(statement, *values)
        return rows[0][0] if rows else None

    def _number(self, statement: str) -> int | None:
        value = self._value(statement)
        if value is not None and type(value) is not int:
            raise damaged("a number is not what was written", self._folder)
        return value

    def _own_reader(self) -> sqlite3.Connection:
        with named_faults(self._folder):
            return connect(self._folder, mode="ro")


def _runs(rows: list[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of every run of neighbours among sorted rows."""
    first = last = -1
    for row in rows:
        if row != last + 1 or first < 0:
            if first >= 0:
                yield first, last
            first = row
        last = row
    if first >= 0:
        yield first, last
