"""CSV and, for files that end in .tsv, tab-separated values: a header, then one record per row.

Rules of this file:
1. Every value of an input row is a string. A missing cell is the empty string, like an empty one: spreadsheets
   leave trailing cells out, and a template should not say "None". Cells too many are dropped if they are
   empty; else the row is bad, because its columns cannot be told.
2. Header names are stripped; a second ``name`` becomes ``name_2``, a nameless column ``column_3``.
3. A quote that is never closed costs its own line only. A record over several lines that does not fit
   (text after a closing quote, cells too few or too many, over the cap, end of file inside quotes) is such a
   quote: its first line is bad, the others are read afresh, and then have to have all their cells.
4. Cells that a spreadsheet would run are written with an apostrophe before them, unless switched off.
"""

import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import msgspec

from engine.core.errors import UsageError
from engine.formats.base import RawRow, Reader, Surveyor, UnknownColumn, Writer
from engine.formats.lines import blocks, size_text
from engine.formats.record import TAIL_COLUMNS
from engine.formats.rows import decode_row, encode_values

_encode = msgspec.json.Encoder().encode
# OWASP's CSV injection page and ASVS 1.2.10: = + - @ tab, line ends, NUL, and the signs in the width of Asian scripts.
_RISKY = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_PLAIN_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z")


class _Unusable(Exception):
    """The line that comes next cannot be used; the message says why."""

    def __init__(self, number: int, data: bytes, reason: str) -> None:
        super().__init__(reason)
        self.row = RawRow(data, number, reason)


class _Torn(Exception):
    """The record cannot be read to its end; the message says why."""


class _Feed:
    """Gives ``csv.reader`` its lines, remembers those of the current record, and takes them back."""

    def __init__(self, stream: BinaryIO, row_bytes_max: int) -> None:
        self._lines = self._all(stream, row_bytes_max)
        self._bytes_max = row_bytes_max
        self._waiting: deque[tuple[int, bytes, str]] = deque()
        self._held = 0
        self.record: list[tuple[int, bytes]] = []
        self.doubtful_to = 0  # lines up to here belonged to a torn record

    @staticmethod
    def _all(stream: BinaryIO, row_bytes_max: int) -> Iterator[tuple[int, bytes, str]]:
        for first, lines, bad in blocks(stream, line_bytes_max=row_bytes_max):
            for number, line in enumerate(lines, first):
                yield number, line, bad

    def begin(self) -> None:
        """A new record starts with the next line."""
        if self.record:
            self.record = []
        self._held = 0

    def tear(self) -> tuple[int, bytes]:
        """Give the first line of the record up, and have the others read again."""
        first, *rest = self.record
        if rest:
            self._waiting.extendleft((number, line, "") for number, line in reversed(rest))
            self.doubtful_to = max(self.doubtful_to, rest[-1][0])
        return first

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        number, line, bad = self._waiting.popleft() if self._waiting else next(self._lines)
        self._held += len(line) + 1
        if bad and not self.record:
            raise _Unusable(number, line, bad)
        if bad or (self._held > self._bytes_max and self.record):
            self._waiting.appendleft((number, line, bad))
            raise _Torn(
                bad or f"a quoted cell goes on over {size_text(self._bytes_max)}, the limit for one row"
            )
        self.record.append((number, line))
        # Bytes that are not UTF-8 become lone surrogates, which the JSON encoder refuses later, for that row.
        return line.decode("utf-8", "surrogateescape") + "\n"


class CellReader:
    """Reads records; ``columns`` is the header. Raises UsageError for a header that cannot be used."""

    def __init__(self, stream: BinaryIO, *, row_bytes_max: int, delimiter: str) -> None:
        # The limit is the module's, for all readers of the process; its default of 131,072 is too low for texts.
        csv.field_size_limit(max(csv.field_size_limit(), row_bytes_max))
        self._feed = _Feed(stream, row_bytes_max)
        self._delimiter = delimiter
        self._strict = csv.reader(self._feed, delimiter=delimiter, strict=True)
        header = self._header()
        self.columns: tuple[str, ...] | None = unique_names(header)
        renamed = {new: old for new, old in zip(self.columns, header, strict=True) if new != old}
        self.notes: Mapping[str, Any] = {"renamed": renamed} if renamed else {}

    def _header(self) -> list[str]:
        cells: list[str] = []
        try:
            while not cells:
                cells = self._next_cells()
        except StopIteration:
            return []
        except (_Torn, _Unusable) as error:
            raise UsageError(
                f"The header of the CSV input cannot be read: {error}. Mend the first line of the file."
            ) from None
        try:
            "".join(cells).encode()
        except UnicodeEncodeError:
            raise UsageError(
                "The header of the CSV input is not UTF-8. Convert the file first, for example with "
                "iconv -f WINDOWS-1252 -t UTF-8 IN > OUT."
            ) from None
        return [cell.strip() for cell in cells]

    def _next_cells(self) -> list[str]:
        """The cells of the next record. Raises StopIteration, _Unusable, _Torn."""
        self._feed.begin()
        try:
            return next(self._strict)
        except csv.Error:
            if len(self._feed.record) > 1:
                raise _Torn("a quote is opened and not closed where a cell ends") from None
            return self._forgiven()

    def _forgiven(self) -> list[str]:
        # A record on one line may be as sloppy as it likes ("a" b,c), as long as its quotes end on that line.
        text = self._feed.record[0][1].decode("utf-8", "surrogateescape")
        try:
            cells = next(csv.reader([text + "\n"], delimiter=self._delimiter))
        except csv.Error as error:
            reason = "a carriage return in a cell without quotes" if "\r" in text.rstrip("\r") else str(error)
            raise _Torn(reason) from None
        if cells and cells[-1].endswith("\n"):
            raise _Torn("a quote is opened and never closed")
        return cells

    def __iter__(self) -> Iterator[RawRow]:
        feed, next_cells, columns = self._feed, self._next_cells, self.columns or ()
        width = len(columns)
        while True:
            try:
                cells = next_cells()
                if len(cells) != width:
                    if not cells or (len(cells) == 1 and not cells[0].strip()):
                        continue  # a blank line
                    self._fit(cells, width)
                yield RawRow(_encode(dict(zip(columns, cells, strict=True))), feed.record[0][0])
            except StopIteration:
                return
            except _Unusable as error:
                yield error.row
            except _Torn as error:
                number, line = feed.tear()
                yield RawRow(line, number, f"line {number}: {error}")
            except UnicodeEncodeError:
                number = feed.record[0][0]
                yield RawRow(
                    b"\n".join(line for _, line in feed.record), number, f"line {number} is not UTF-8"
                )

    def _fit(self, cells: list[str], width: int) -> None:
        """Make the cells as many as the header has. Raises _Torn where it would be a guess."""
        lines = len(self._feed.record)
        mismatch = f"{len(cells)} cell{'' if len(cells) == 1 else 's'} where the header has {width}"
        if lines > 1:
            raise _Torn(f"a record over {lines} lines has {mismatch}; probably a quote that is not closed")
        number = self._feed.record[0][0]
        if number <= self._feed.doubtful_to:
            # The doubt goes on with the next line: the torn cell may be longer than what was read of it.
            self._feed.doubtful_to = max(self._feed.doubtful_to, number + 1)
            raise _Torn(f"{mismatch}, after a line with a quote that is not closed")
        if any(cells[width:]):
            raise _Torn(f"{mismatch}; a cell with the delimiter in it needs quotes around it")
        del cells[width:]
        cells.extend([""] * (width - len(cells)))

    def close(self) -> None:
        """Nothing is held; the stream is its owner's to close."""


class CellWriter:
    """Writes records as rows of cells. Lines end with ``\\n``. Nested values are written as JSON."""

    def __init__(
        self, stream: BinaryIO, *, columns: tuple[str, ...], delimiter: str, escape_cells: bool
    ) -> None:
        self._stream = stream
        self._columns = columns
        self._names = frozenset(columns)
        self._is_escaping = escape_cells
        self._text = io.StringIO(newline="")
        # Python before 3.13 quotes a lone carriage return only if the line terminator holds one.
        self._plain = csv.writer(self._text, delimiter=delimiter, lineterminator="\n")
        self._quoted = csv.writer(self._text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        if columns:
            self._row([self._cell(column) for column in columns])
            self._flush()

    def write(self, records: list[bytes]) -> None:
        """Append records. Raises UnknownColumn."""
        columns, names, cell = self._columns, self._names, self._cell
        for record in records:
            values = decode_row(record)
            if not names.issuperset(values):
                raise UnknownColumn(next(name for name in values if name not in names))
            self._row([cell(values.get(column)) for column in columns])
        self._flush()

    def finish(self) -> None:
        """Rows of cells need no end."""

    def _row(self, cells: list[str]) -> None:
        is_plain = not any("\r" in cell for cell in cells)
        (self._plain if is_plain else self._quoted).writerow(cells)

    def _flush(self) -> None:
        self._stream.write(self._text.getvalue().encode())
        self._text.seek(0)
        self._text.truncate()

    def _cell(self, value: Any) -> str:
        if isinstance(value, str):
            if self._is_escaping and value.startswith(_RISKY) and not _PLAIN_NUMBER.match(value):
                return "'" + value
            return value
        return "" if value is None else encode_values(value).decode()


class ColumnSurvey:
    """Collects the columns of records that name their own, in the order they are first seen.

    The engine's own (``_status``, ``_error``, ...) stay at the end, wherever they are met.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._seen = dict.fromkeys(columns)

    def see(self, records: list[bytes]) -> None:
        """Look at records."""
        for record in records:
            self._seen.update(dict.fromkeys(decode_row(record)))

    def result(self) -> tuple[tuple[str, ...], Mapping[str, Any]]:
        """All columns; no notes."""
        return ordered_columns(self._seen), {}


class Cells:
    """The format, with one delimiter."""

    text = True

    def __init__(self, name: str, delimiter: str) -> None:
        self.name = name
        self.endings: tuple[str, ...] = (f".{name}",)
        self._delimiter = delimiter

    def reader(self, stream: BinaryIO, *, row_bytes_max: int) -> Reader:
        """Open an input and read its header. Raises UsageError for one that cannot be used."""
        return CellReader(stream, row_bytes_max=row_bytes_max, delimiter=self._delimiter)

    def writer(
        self, stream: BinaryIO, *, columns: tuple[str, ...], notes: Mapping[str, Any], escape_cells: bool
    ) -> Writer:
        """Open an output and write its header."""
        return CellWriter(stream, columns=columns, delimiter=self._delimiter, escape_cells=escape_cells)

    def surveyor(self, *, columns: tuple[str, ...], notes: Mapping[str, Any]) -> Surveyor | None:
        """The header comes first, so columns that are not known have to be collected."""
        return None if columns else ColumnSurvey(columns)


def ordered_columns(seen: Iterable[str]) -> tuple[str, ...]:
    """Columns as they were first seen, the engine's own (``_status``, ...) after all others."""
    names = tuple(seen)
    own = tuple(name for name in TAIL_COLUMNS if name in names)
    return (*(name for name in names if name not in own), *own)


def unique_names(names: list[str]) -> tuple[str, ...]:
    """Column names, each different: a second ``a`` becomes ``a_2``, an empty third name ``column_3``."""
    taken = set(names)
    counts: dict[str, int] = {}
    given: dict[str, None] = {}
    for place, name in enumerate(names, 1):
        base = name or f"column_{place}"
        unique = base
        while unique in given or (unique != name and unique in taken):
            counts[base] = counts.get(base, 1) + 1
            unique = f"{base}_{counts[base]}"
        given[unique] = None
    return tuple(given)


CSV = Cells("csv", ",")
TSV = Cells("tsv", "\t")
