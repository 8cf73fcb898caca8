"""The input as numbered rows with digests, whatever its format and wherever it is.

Rules of this file:
1. Streamed: memory does not grow with the input. To be iterated once, in the reading thread.
2. A row's digest is of its bytes; a resumed run recognises changed rows by it.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from engine.core.errors import RowError, UsageError
from engine.formats import format_named
from engine.formats.base import RawRow
from engine.formats.detect import GZIP_MAGIC
from engine.formats.inputs import InputFile, open_input
from engine.formats.record import decode_row

_UNREADABLE = (OSError, EOFError, zlib.error)  # the latter two are what gzip raises for a file that is torn
PEEK_BYTES_MAX = 32 * 1024 * 1024  # of rows that are held to be peeked at


class SourceRow(NamedTuple):
    """One row: its index from 0, its line from 1, its bytes, their digest, and why it cannot be used."""

    row: int
    line: int
    payload: bytes
    digest: int
    bad: str


def digest_of(payload: bytes) -> int:
    """What a row's bytes are recognised by: 64 bits, signed."""
    return int.from_bytes(blake2b(payload, digest_size=8).digest(), "big", signed=True)


class Rows:
    """An input as a run sees it. ``columns`` are those of its header, None where rows name their own."""

    is_part = False  # whether only some of the run's rows come, under the numbers they have in it

    def __init__(
        self, rows: Iterator[SourceRow], *, columns: tuple[str, ...] | None, notes: Mapping[str, Any]
    ) -> None:
        self.columns = columns
        self.notes = notes
        self._rows = rows
        self._peeked: list[SourceRow] = []

    def peek(self, rows: int = 100) -> list[SourceRow]:
        """The first rows, without consuming them; fewer where they are larger than PEEK_BYTES_MAX together."""
        held = sum(len(row.payload) for row in self._peeked)
        while len(self._peeked) < rows and held < PEEK_BYTES_MAX:
            row = next(self._rows, None)
            if row is None:
                break
            self._peeked.append(row)
            held += len(row.payload)
        return self._peeked[:rows]

    def column_names(self, rows: int = 100, enough: frozenset[str] | None = None) -> set[str]:
        """The header's columns, or those of the first rows: of no more than it takes to know all in ``enough``."""
        if self.columns is not None:
            return set(self.columns)
        names: set[str] = set()
        for at in range(rows):
            # One more row at a time: rows that are produced slowly are not waited for without need.
            if enough is not None and at and enough <= names:
                break
            seen = self.peek(at + 1)
            if len(seen) <= at:
                break
            try:
                names.update(decode_row(seen[at].payload))
            except RowError:
                continue
        return names

    def __iter__(self) -> Iterator[SourceRow]:
        peeked, self._peeked = self._peeked, []
        return chain(peeked, self._rows)

    def rows_estimate(self) -> int | None:
        """About how many rows the whole input has; None if nothing tells."""
        raise NotImplementedError

    def again(self) -> "Rows | None":
        """The same input from its beginning; None where it can be read only once."""
        raise NotImplementedError

    def tell_waits(self, on_wait: Callable[[], None]) -> None:
        """``on_wait`` is called, on the reading thread, before each read that would have to wait."""
        raise NotImplementedError

    def close(self) -> None:
        """Read no further, and let go of the input."""
        raise NotImplementedError


class Source(Rows):
    """An open file. Raises UsageError for one that cannot be opened or is not of its format at all."""

    def __init__(self, path: str, format_name: str, *, row_bytes_max: int) -> None:
        self._raw = open_input(path)
        self._path = path
        self._format_name, self._row_bytes_max = format_name, row_bytes_max
        self.bytes_total = Path(path).stat().st_size if path != "-" else 0
        stream: BinaryIO = self._raw
        if self._raw.peek(2)[:2] == GZIP_MAGIC:
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=self._raw, mode="rb"))
        try:
            self._reader = format_named(format_name).reader(stream, row_bytes_max=row_bytes_max)
        except UsageError:
            self._close()
            raise
        except _UNREADABLE as error:
            self._close()
            raise UsageError(f"The input {path} cannot be read: {error}.") from None
        # Lines are read in large blocks, so the file's position says little about small files; their own bytes do.
        self._by_lines = stream is self._raw and format_name in ("jsonl", "openai-batch")
        self._seen_rows = self._seen_bytes = 0
        rows = self._numbered(iter(self._reader))
        super().__init__(rows, columns=self._reader.columns, notes=self._reader.notes)

    @property
    def bytes_read(self) -> int:
        """Bytes of the file read so far, 0 where that cannot be told."""
        if self.bytes_total == 0 or self._raw.closed:
            return self.bytes_total
        return self._raw.tell()

    def rows_estimate(self) -> int | None:
        """About how many rows the whole input has, from the bytes of those seen so far; None if nothing tells."""
        seen = self._seen_bytes if self._by_lines else self.bytes_read
        if not seen or not self._seen_rows or not self.bytes_total:
            return None
        return max(self._seen_rows, int(self._seen_rows * self.bytes_total / seen))

    def again(self) -> Rows | None:
        """The same path opened once more: a file gives the same bytes, a pipe does not."""
        if self._path == "-" or not Path(self._path).is_file():
            return None
        return Source(self._path, self._format_name, row_bytes_max=self._row_bytes_max)

    def tell_waits(self, on_wait: Callable[[], None]) -> None:
        """``on_wait`` is called, on the reading thread, before each read that would have to wait."""
        assert isinstance(self._raw.raw, InputFile)
        self._raw.raw.on_wait = on_wait

    def close(self) -> None:
        """Close the file. Standard input stays open: it is not ours."""
        self._reader.close()
        self._close()

    def _close(self) -> None:
        if self._path != "-":
            self._raw.close()

    def _numbered(self, rows: Iterator[RawRow]) -> Iterator[SourceRow]:
        number = line = 0
        try:
            for payload, line, bad in rows:
                digest = digest_of(payload)
                self._seen_rows += 1
                self._seen_bytes += len(payload) + 1
                yield SourceRow(number, line, payload, digest, bad)
                number += 1
        except _UNREADABLE as error:
            raise UsageError(f"Reading the input {self._path} failed after line {line}: {error}.") from None
