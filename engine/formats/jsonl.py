"""JSON Lines: one JSON object per line, passed on as it is.

Rules of this file:
1. Lines are split at the newline byte only; blank lines are no rows but count as lines.
2. Whether a line is valid JSON is found out in the worker (``decode_row``); here only length and UTF-8 are.
"""

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from engine.formats.base import RawRow, Reader, Surveyor, Writer
from engine.formats.lines import blocks

_SPACE = b" \t\r\n"


class LineReader:
    """Reads rows that are lines."""

    def __init__(self, stream: BinaryIO, *, row_bytes_max: int) -> None:
        self.columns: tuple[str, ...] | None = None
        self.notes: Mapping[str, Any] = {}
        self._blocks = blocks(stream, line_bytes_max=row_bytes_max)

    def __iter__(self) -> Iterator[RawRow]:
        for number, lines, bad in self._blocks:
            if bad:
                yield RawRow(lines[0], number, bad)
                continue
            for line_number, line in enumerate(lines, number):
                payload = line.strip(_SPACE)
                if not payload:
                    continue
                if not payload.isascii() and not _is_utf8(payload):
                    yield RawRow(payload, line_number, f"line {line_number} is not UTF-8")
                    continue
                yield RawRow(payload, line_number)

    def close(self) -> None:
        """Nothing is held; the stream is its owner's to close."""


class LineWriter:
    """Writes records as lines. Records are one line each already (see ``record.py``)."""

    def __init__(self, stream: BinaryIO) -> None:
        self._write = stream.write

    def write(self, records: list[bytes]) -> None:
        """Append records."""
        if records:
            self._write(b"\n".join(records) + b"\n")

    def finish(self) -> None:
        """A file of lines needs no end."""


class JSONLines:
    """The format."""

    name = "jsonl"
    endings: tuple[str, ...] = (".jsonl", ".ndjson", ".json")
    text = True

    def reader(self, stream: BinaryIO, *, row_bytes_max: int) -> Reader:
        """Open an input."""
        return LineReader(stream, row_bytes_max=row_bytes_max)

    def writer(
        self, stream: BinaryIO, *, columns: tuple[str, ...], notes: Mapping[str, Any], escape_cells: bool
    ) -> Writer:
        """Open an output. Lines name their own columns, so none of the further arguments matters."""
        return LineWriter(stream)

    def surveyor(self, *, columns: tuple[str, ...], notes: Mapping[str, Any]) -> Surveyor | None:
        """Lines need no survey."""
        return None


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


JSONL = JSONLines()
