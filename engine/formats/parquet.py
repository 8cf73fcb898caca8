"""Parquet, through pyarrow (the ``parquet`` extra): typed columns in, typed columns out.

Rules of this file:
1. Read in record batches, written in row groups: memory does not grow with the file.
2. A value JSON has no type for travels as text (times as ISO 8601, decimals as digits, bytes as base64). The input's
   schema travels beside it, so that its columns get their own types back in the output.
"""

import base64
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, BinaryIO

import msgspec

from engine.core.errors import UsageError
from engine.formats.base import RawRow, Reader, Surveyor, UnknownColumn, Writer
from engine.formats.rows import encode_values

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise UsageError(
        "Parquet needs the package pyarrow. Install it with: pip install 'throughput-engine[parquet]'"
    ) from None

BATCH_ROWS = 1024
GROUP_ROWS = 16_384
_decode = msgspec.json.Decoder().decode


class ParquetReader:
    """Rows of a Parquet file. It has to be seekable, as its index is at its end."""

    def __init__(self, stream: BinaryIO, *, row_bytes_max: int) -> None:
        if not stream.seekable():
            raise UsageError("A Parquet input has its index at its end and cannot be streamed. Give a file.")
        try:
            self._file = pq.ParquetFile(stream)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UsageError(f"The input is not a whole Parquet file: {_first_line(error)}.") from None
        schema = self._file.schema_arrow
        self.columns: tuple[str, ...] | None = tuple(schema.names)
        self.notes: Mapping[str, Any] = {"arrow_schema": base64.b64encode(schema.serialize()).decode()}
        self._row_bytes_max = row_bytes_max

    def __iter__(self) -> Iterator[RawRow]:
        number = 0
        try:
            for batch in self._file.iter_batches(batch_size=BATCH_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield self._row(values, number)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(
                f"The Parquet input is damaged after row {number}: {_first_line(error)}."
            ) from None

    def _row(self, values: dict[str, Any], number: int) -> RawRow:
        try:
            payload = encode_values(plain(values))
        except (TypeError, ValueError, UnicodeEncodeError) as error:
            return RawRow(
                b"", number, f"line {number}: a value cannot be written as JSON ({_first_line(error)})"
            )
        if len(payload) > self._row_bytes_max:
            return RawRow(b"", number, f"line {number} is longer than {self._row_bytes_max} bytes")
        return RawRow(payload, number)

    def close(self) -> None:
        """Let the file go; the stream is its owner's to close."""
        self._file.close()


def plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, float) and value != value:
        return None
    return value


class Columns:
    """A first pass: the columns of all records, and a type for each that the input's schema does not give."""

    def __init__(self, columns: tuple[str, ...], notes: Mapping[str, Any]) -> None:
        self._notes = notes
        self._types: dict[str, str] = dict.fromkeys(columns, "")

    def see(self, records: list[bytes]) -> None:
        """Look at records."""
        for record in records:
            for name, value in _decode(record).items():
                known = self._types.get(name, "")
                self._types[name] = _wider(known, _type_of(value))

    def result(self) -> tuple[tuple[str, ...], Mapping[str, Any]]:
        """Columns, and notes with their types."""
        return tuple(self._types), {**self._notes, "types": self._types}


def _type_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if -(2**63) <= value < 2**63 else "json"
    if isinstance(value, float):
        return "double"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list) and value and all(isinstance(item, (int, float)) for item in value):
        return "vector"
    return "json"


def _wider(one: str, other: str) -> str:
    """The type that holds both."""
    if one == other or not other:
        return one
    if not one:
        return other
    return "double" if {one, other} == {"int64", "double"} else "json"


_ARROW = {
    "": pa.string(),
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "string": pa.string(),
    "json": pa.string(),
    "vector": pa.list_(pa.float64()),
}


class ParquetWriter:
    """Records into row groups."""

    def __init__(self, stream: BinaryIO, *, columns: tuple[str, ...], notes: Mapping[str, Any]) -> None:
        self._types: Mapping[str, str] = notes.get("types", {})
        known = _input_schema(notes)
        self._known = {field.name: field.type for field in known} if known is not None else {}
        fields = [
            pa.field(name, self._known.get(name, _ARROW[self._types.get(name, "")])) for name in columns
        ]
        self._schema = pa.schema(fields)
        self._writer = pq.ParquetWriter(stream, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def write(self, records: list[bytes]) -> None:
        """Append records. Raises UnknownColumn for a column that was not surveyed."""
        for record in records:
            values = _decode(record)
            if not values.keys() <= set(self._schema.names):
                raise UnknownColumn(", ".join(values.keys() - set(self._schema.names)))
            self._rows.append(values)
        if len(self._rows) >= GROUP_ROWS:
            self._flush()

    def finish(self) -> None:
        """The last group and the index."""
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        arrays = [self._array(field, [row.get(field.name) for row in rows]) for field in self._schema]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def _array(self, field: Any, values: list[Any]) -> Any:
        if field.name in self._known:
            return _typed(values, field.type)
        if self._types.get(field.name) == "json":
            values = [value if value is None else msgspec.json.encode(value).decode() for value in values]
        return pa.array(values, type=field.type)


def _input_schema(notes: Mapping[str, Any]) -> Any:
    text = notes.get("arrow_schema")
    return pa.ipc.read_schema(pa.BufferReader(base64.b64decode(text))) if isinstance(text, str) else None


def _typed(values: list[Any], kind: Any) -> Any:
    """JSON values back in a column's own type."""
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.array([None if value is None else base64.b64decode(value) for value in values], type=kind)
    if pa.types.is_decimal(kind):
        return pa.array([None if value is None else Decimal(value) for value in values], type=kind)
    if pa.types.is_timestamp(kind):
        return pa.array(
            [None if value is None else datetime.fromisoformat(value) for value in values], type=kind
        )
    if pa.types.is_date(kind):
        return pa.array([None if value is None else date.fromisoformat(value) for value in values], type=kind)
    if pa.types.is_time(kind):
        return pa.array([None if value is None else time.fromisoformat(value) for value in values], type=kind)
    if pa.types.is_duration(kind):
        return pa.array([None if value is None else timedelta(seconds=value) for value in values], type=kind)
    return pa.array(values, type=kind)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


class Parquet:
    """The format."""

    name = "parquet"
    endings: tuple[str, ...] = (".parquet", ".pq")
    text = False

    def reader(self, stream: BinaryIO, *, row_bytes_max: int) -> Reader:
        """Open an input."""
        return ParquetReader(stream, row_bytes_max=row_bytes_max)

    def writer(
        self, stream: BinaryIO, *, columns: tuple[str, ...], notes: Mapping[str, Any], escape_cells: bool
    ) -> Writer:
        """Open an output; columns and types are those that the surveyor found."""
        return ParquetWriter(stream, columns=columns, notes=notes)

    def surveyor(self, *, columns: tuple[str, ...], notes: Mapping[str, Any]) -> Surveyor | None:
        """Types and columns are only known when every record was seen."""
        return Columns(columns, notes)


PARQUET = Parquet()
