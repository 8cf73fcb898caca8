"""What a file format is: rows in as JSON objects, records in the store out to a file.

Rules of this folder:
1. One file per format. Everything is streamed; memory does not grow with the file.
2. A bad line never ends the reading: it becomes a ``RawRow`` with ``bad`` set, and its place is kept.
3. Readers yield each row as the bytes of one JSON object, so that rows cross the coordinator unread.
   JSONL passes lines on as they are; whether they parse is found out in the worker.
"""

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple, Protocol


class RawRow(NamedTuple):
    """One input row: ``payload`` is a JSON object in UTF-8; ``bad`` says why the row cannot be used."""

    payload: bytes
    line: int  # line (or record, for Parquet) number in the input, from 1, for messages
    bad: str = ""


class Reader(Protocol):
    """An open input. Iterating yields every row once, in order."""

    columns: tuple[str, ...] | None  # the header (CSV, Parquet); None where rows name their own (JSONL)
    notes: Mapping[str, Any]  # what the writer of the same format wants to know again (e.g. Parquet schema)

    def __iter__(self) -> Iterator[RawRow]: ...

    def close(self) -> None: ...


class Writer(Protocol):
    """An open output of one format on a binary stream. ``write`` takes records in order, in batches."""

    def write(self, records: list[bytes]) -> None:
        """Append records, each a JSON object in UTF-8."""

    def finish(self) -> None:
        """Write what the format needs at its end. Does not close the stream."""


class Surveyor(Protocol):
    """A first pass over all records, for a format whose file begins with what only the last one may tell."""

    def see(self, records: list[bytes]) -> None:
        """Look at records, in order, in batches."""

    def result(self) -> tuple[tuple[str, ...], Mapping[str, Any]]:
        """The columns and notes to open the writer with."""


class UnknownColumn(Exception):
    """A record has a column the writer was not told of; raised by ``write``. A survey finds all of them."""


class Format(Protocol):
    """One line of the table."""

    name: str
    endings: tuple[str, ...]  # lower case, with the dot, without .gz
    text: bool  # a text format may be gzipped and may be stdin or stdout

    def reader(self, stream: BinaryIO, *, row_bytes_max: int) -> Reader:
        """Open an input. Raises UsageError for an input that is not of this format at all."""

    def writer(
        self, stream: BinaryIO, *, columns: tuple[str, ...], notes: Mapping[str, Any], escape_cells: bool
    ) -> Writer:
        """Open an output. ``columns``: the known columns in order (input's, then the answer's); () if unknown."""

    def surveyor(self, *, columns: tuple[str, ...], notes: Mapping[str, Any]) -> Surveyor | None:
        """What has to see all records before ``writer`` can be opened; None if nothing has to."""
