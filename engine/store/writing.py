"""A group of commits as rows of the store's tables, within a transaction that somebody else began.

Rules of this file:
1. Statements only: when a transaction begins and ends is the store's to say.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.core.commit import Commit, OutcomeRow, StepRow, checksum, pack_rows, sums_by_kind, unpack_rows
from engine.store.faults import damaged
from engine.store.schema import ADD_TO_TALLY, COLUMNS, PUT_STEP, STEP_NUMBERS, STEPS_BETWEEN, insert_outcomes

# Each INSERT gives up the interpreter lock once and has to get it back, so rows go in many at a time.
_INSERT = {rows: insert_outcomes(rows) for rows in (64, 16, 4, 1)}


def write_outcomes(writer: sqlite3.Connection, outcomes: list[OutcomeRow]) -> None:
    """Insert outcomes and bring the sums up to date."""
    if not outcomes:
        return
    values: list[object] = []
    for row, ok, kind, digest, record, attempts, latency_ms, tokens_in, tokens_out, sent_s in outcomes:
        crc = checksum(row, ok, digest, record)
        values += (row, ok, kind, digest, attempts, latency_ms, tokens_in, tokens_out, crc, record, sent_s)
    start = 0
    for rows, statement in _INSERT.items():
        step = rows * COLUMNS
        while len(values) - start >= step:
            writer.execute(statement, values[start : start + step])
            start += step
    writer.executemany(ADD_TO_TALLY, [(kind, *sums) for kind, sums in sums_by_kind(outcomes).items()])


def write_steps(writer: sqlite3.Connection, steps: list[StepRow]) -> None:
    """Keep steps that have ended; one that ended before is replaced."""
    if steps:
        writer.executemany(
            PUT_STEP,
            [
                (
                    row * STEP_NUMBERS + step,
                    ok,
                    digest,
                    attempts,
                    tokens_in,
                    tokens_out,
                    _step_checksum(row, step, ok, digest, data),
                    data,
                    *figures,
                )
                for row, step, ok, data, attempts, tokens_in, tokens_out, digest, *figures in steps
            ],
        )
        # Counted with the step, and not once more with its row: a step that is done serves its row several times.
        sums = [
            sum(max(0, value) for value in column)
            for column in zip(*(one[4:7] for one in steps), strict=True)
        ]
        writer.execute(ADD_TO_TALLY, ("", 0, *sums))


def read_steps(reader: sqlite3.Connection, first: int, last: int, folder: Path) -> Iterator[StepRow]:
    """The steps that have ended of the rows from ``first`` to ``last``. Raises StoreFailure for one that is damaged."""
    values = (first * STEP_NUMBERS, (last + 1) * STEP_NUMBERS)
    for place, ok, digest, attempts, tokens_in, tokens_out, crc, data, *figures in reader.execute(
        STEPS_BETWEEN, values
    ):
        row, step = divmod(place, STEP_NUMBERS)
        numbers = (attempts, tokens_in, tokens_out, digest)
        whole = set(map(type, numbers)) == {int} and [type(figure) for figure in figures] == [int, float, str]
        if not whole or _step_checksum(row, step, ok == 1, digest, data or b"") != crc:
            raise damaged(f"a step of row {row} is not what was written", folder)
        yield StepRow(row, step, ok == 1, data, *numbers, *figures)


def _step_checksum(row: int, step: int, ok: bool, digest: int, data: bytes) -> int:
    return checksum(row, ok, step ^ digest, data)


def write_leases(writer: sqlite3.Connection, commits: Sequence[Commit], folder: Path) -> None:
    """Insert, shrink and delete leases as the commits say."""
    # A lease that is opened and closed within one group was never needed on disk.
    closed = {lease for commit in commits for lease in commit.closed}
    opened = [
        (lease, pack_rows(rows)) for commit in commits for lease, rows in commit.opened if lease not in closed
    ]
    if opened:
        writer.executemany("INSERT INTO lease VALUES (?, ?)", opened)
    for commit in commits:
        for lease, given_back in commit.released:
            if lease not in closed:
                _shrink_lease(writer, lease, given_back, folder)
    if closed:
        writer.executemany("DELETE FROM lease WHERE lease = ?", [(lease,) for lease in closed])


def _shrink_lease(writer: sqlite3.Connection, lease: int, given_back: Sequence[int], folder: Path) -> None:
    found = writer.execute("SELECT rows FROM lease WHERE lease = ?", (lease,)).fetchone()
    if found is None:
        raise ValueError(f"rows of lease {lease} were released, which is not open in the store")
    gone = set(given_back)
    left = pack_rows(row for row in unpack(found[0], lease, folder) if row not in gone)
    writer.execute("UPDATE lease SET rows = ? WHERE lease = ?", (left, lease))


def unpack(packed: bytes, lease: int, folder: Path) -> tuple[int, ...]:
    """The rows of a lease as it was kept. Raises StoreFailure for one that is damaged."""
    try:
        return unpack_rows(packed)
    except ValueError as error:
        raise damaged(f"lease {lease} is not what was written", folder) from error
