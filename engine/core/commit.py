"""What is written to the store together: finished rows, and leases opened, shrunk and closed.

Rules of this file:
1. Data and sums of it, no I/O. The coordinator makes these values, the store writes them.
2. One ``Commit`` is written whole or not at all. Many of them may share one transaction.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from zlib import crc32


class OutcomeRow(NamedTuple):
    """One finished row as it is stored. ``row`` from 0; ``digest``: any signed 64-bit integer.

    ``record`` is the output record, JSON in UTF-8. Token counts below 0 mean unknown and add nothing.
    """

    row: int
    ok: bool
    kind: str  # ErrorKind value, empty when ok
    digest: int  # of the input row's bytes
    record: bytes
    attempts: int  # requests sent for this row
    latency_ms: float  # of the last attempt
    tokens_in: int
    tokens_out: int
    sent_s: float = 0.0  # when the last attempt was sent, by ``time.monotonic``; 0.0 where nothing was


class StepRow(NamedTuple):
    """One step of a row that has ended, in a job of several. ``step``: its number in the store.

    ``digest`` is as in ``OutcomeRow``: a row whose bytes are others has not been through this step.
    ``data`` is JSON in UTF-8: its columns, or of one that failed what is known of it. The figures after ``digest`` are
    for the row's own record, which is made anew when the row is run again.
    """

    row: int
    step: int
    ok: bool
    data: bytes
    attempts: int  # requests sent for it
    tokens_in: int
    tokens_out: int
    digest: int  # of the input row's bytes
    calls: int = 0  # of its function; they are no requests
    latency_ms: float = 0.0  # of the last attempt
    model: str = ""  # that answered, as the endpoint named it


class Commit(NamedTuple):
    """One change of a run's state. Lease ids are never used twice within a run's process.

    Within one transaction everything opened comes first, then outcomes, then releases, then closings; so a
    lease may be opened and closed in the same group.
    """

    outcomes: Sequence[OutcomeRow] = ()
    steps: Sequence[StepRow] = ()
    opened: Sequence[tuple[int, Sequence[int]]] = ()  # (lease, its rows), about to be handed out
    released: Sequence[tuple[int, Sequence[int]]] = ()  # (lease, rows given back unsent): not in doubt
    closed: Sequence[int] = ()  # leases with no open row any more
    in_doubt: int = 0  # rows to add to the run's total: a worker died holding them
    total_rows: int | None = None  # once the input was read to its end


class Counts(NamedTuple):
    """What a run's store adds up to. ``attempts`` and tokens include those of failed rows tried again later."""

    ok: int
    failed: Mapping[str, int]  # by kind; kinds with no row are left out
    attempts: int
    tokens_in: int
    tokens_out: int

    @property
    def rows(self) -> int:
        """Rows with an outcome."""
        return self.ok + sum(self.failed.values())


class Sums(NamedTuple):
    """What the outcomes of one kind add up to."""

    rows: int
    attempts: int
    tokens_in: int
    tokens_out: int


def checksum(row: int, ok: bool, digest: int, record: bytes) -> int:
    """CRC-32 of a record, begun with the row it belongs to: a whole record on a wrong row fails as well."""
    return crc32(record, ((row << 1 | ok) ^ digest) & 0xFFFFFFFF)


def sums_by_kind(outcomes: Sequence[OutcomeRow]) -> dict[str, Sums]:
    """The sums to add to a run's counts, by kind; "" stands for ok. Raises ValueError for a failed row without kind."""
    lists: dict[str, list[int]] = {}
    for _, ok, kind, _, _, attempts, _, tokens_in, tokens_out, _ in outcomes:
        if ok:
            kind = ""
        elif not kind:
            raise ValueError("a failed row must have a kind")
        sums = lists.get(kind)
        if sums is None:
            sums = lists[kind] = [0, 0, 0, 0]
        sums[0] += 1
        sums[1] += attempts
        if tokens_in > 0:
            sums[2] += tokens_in
        if tokens_out > 0:
            sums[3] += tokens_out
    return {kind: Sums(*sums) for kind, sums in lists.items()}


def pack_rows(rows: Iterable[int]) -> bytes:
    """Row indexes as bytes: 8 each, little-endian."""
    indexes = tuple(rows)
    return struct.pack(f"<{len(indexes)}q", *indexes)


def unpack_rows(packed: bytes) -> tuple[int, ...]:
    """What ``pack_rows`` packed. Raises ValueError for bytes that it cannot have made."""
    if len(packed) % 8:
        raise ValueError(f"{len(packed)} bytes are no whole number of row indexes")
    return struct.unpack(f"<{len(packed) // 8}q", packed)
