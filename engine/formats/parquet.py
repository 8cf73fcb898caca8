"""Parquet, through pyarrow (the ``parquet`` extra): typed columns in, typed columns out.

Rules of this file:
1. Read in record batches, written in row groups: memory does not grow with the file.
2. A value JSON has no type for travels as text: times as ISO 8601, decimals as digits, bytes as base64;
   durations as seconds. The input's schema travels beside it, so that its columns get their own types back.
3. What a column really holds is found out in a first pass over all records. A column that does not fit its
   own type any more (an answer took its place) gets the type that fits; where none does, JSON text.
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any, BinaryIO

from engine.core.errors import UsageError
from engine.core.model import RowValues
from engine.formats.base import RawRow, Reader, Surveyor, UnknownColumn, Writer
from engine.formats.csv import ordered_columns, unique_names
from engine.formats.lines import size_text
from engine.formats.rows import decode_row, encode_values

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise UsageError(
        "Parquet needs the package pyarrow. Install it with: pip install 'throughput-engine[parquet]'"
    ) from None

BATCH_ROWS = 64  # of the largest rows allowed, a gigabyte
GROUP_ROWS = 16_384
GROUP_BYTES = 32 * 1024 * 1024  # of records, as JSON
DECIMAL_EXPONENT_MAX = (
    200  # Arrow's widest decimals have 76 digits, and it would write out all the others first
)
_EXACT_MAX = 2**53  # integers up to here are the same as doubles
_MISFITS = (pa.ArrowException, TypeError, ValueError, ArithmeticError, AttributeError, LookupError)


class _Unreadable:
    """Stands for a value that Python has nothing for."""


_UNREADABLE = _Unreadable()


class ParquetReader:
    """Rows of a Parquet file. It has to be seekable, as its index is at its end."""

    def __init__(self, stream: BinaryIO, *, row_bytes_max: int) -> None:
        if not stream.seekable():
            raise UsageError("A Parquet input has its index at its end and cannot be streamed. Give a file.")
        try:
            self._file = pq.ParquetFile(stream)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UsageError(f"The input is not a whole Parquet file: {_first_line(error)}.") from None
        fields = list(self._file.schema_arrow)
        names = unique_names([field.name for field in fields])
        schema = pa.schema([field.with_name(name) for field, name in zip(fields, names, strict=True)])
        self.columns: tuple[str, ...] | None = names
        self.notes: Mapping[str, Any] = {
            "arrow_schema": base64.b64encode(schema.serialize().to_pybytes()).decode()
        }
        self._row_bytes_max = row_bytes_max

    def __iter__(self) -> Iterator[RawRow]:
        number = 0
        names = self.columns or ()
        try:
            for batch in self._file.iter_batches(batch_size=BATCH_ROWS):
                for part in _parts(batch):
                    columns = [_json_values(column) for column in part.columns]
                    for cells in zip(*columns, strict=True):
                        number += 1
                        yield self._row(dict(zip(names, cells, strict=True)), number)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(
                f"The Parquet input is damaged after row {number}: {_first_line(error)}. "
                "Rows that were finished are kept."
            ) from None

    def _row(self, values: RowValues, number: int) -> RawRow:
        unreadable = [name for name, value in values.items() if value is _UNREADABLE]
        if unreadable:
            return RawRow(
                b"", number, f"record {number}: the value in column {unreadable[0]!r} cannot be read"
            )
        payload = encode_values(values)
        if len(payload) > self._row_bytes_max:
            reason = f"record {number} is longer than {size_text(self._row_bytes_max)}, the limit for one row"
            return RawRow(blake2b(payload, digest_size=16).digest(), number, reason)
        return RawRow(payload, number)

    def close(self) -> None:
        """Let the file go; the stream is its owner's to close."""
        self._file.close()


def _parts(batch: Any) -> Iterator[Any]:
    """A batch as it is, or row by row where its rows are large: as Python values they take several times the room."""
    if batch.nbytes <= GROUP_BYTES:
        yield batch
    else:
        yield from (batch.slice(row, 1) for row in range(batch.num_rows))


def _json_values(column: Any) -> list[Any]:
    """A column's values as JSON has them; _UNREADABLE for one that Python has no value for."""
    try:
        values = column.to_pylist()
    except _MISFITS:  # one value in it is the cause; the others are good
        values = [_json_value(scalar) for scalar in column]
    return [plain(value) for value in values] if _needs_text(column.type) else values


def _json_value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except _MISFITS:
        if not pa.types.is_temporal(scalar.type):
            return _UNREADABLE
    # Nanoseconds, and years over 9999: Python's own types end before them, Arrow's text does not.
    try:
        return str(scalar.cast(pa.string()).as_py()).replace(" ", "T", 1)
    except _MISFITS:
        return _UNREADABLE


def _needs_text(kind: Any) -> bool:
    types = pa.types
    simple = (types.is_integer, types.is_floating, types.is_boolean, types.is_string, types.is_large_string)
    return not any(is_simple(kind) for is_simple in simple)


def plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value


class Survey:
    """A first pass: the columns of all records, and which type fits each of them."""

    def __init__(self, columns: tuple[str, ...], notes: Mapping[str, Any]) -> None:
        self._input = _input_types(notes)
        self._notes = notes
        self._kinds: dict[str, str] = dict.fromkeys(columns, "")
        self._misfits: set[str] = set()

    def see(self, records: list[bytes]) -> None:
        """Look at records."""
        kinds = self._kinds
        rows = [decode_row(record) for record in records]
        for row in rows:
            for name, value in row.items():
                kinds[name] = _wider(kinds.get(name, ""), _kind_of(value))
        for name in self._input.keys() - self._misfits:
            try:
                _restored([row.get(name) for row in rows], self._input[name])
            except _MISFITS:
                self._misfits.add(name)

    def result(self) -> tuple[tuple[str, ...], Mapping[str, Any]]:
        """All columns in order, and notes with the kind of each: ``input`` or one of _ARROW's."""
        kinds = {
            name: "input" if name in self._input and name not in self._misfits else kind or _OWN.get(name, "")
            for name, kind in self._kinds.items()
        }
        return ordered_columns(kinds), {**self._notes, "kinds": kinds}


_ARROW = {
    "": pa.string(),  # nothing but null
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "string": pa.string(),
    "vector": pa.list_(pa.float64()),
    "json": pa.string(),
}
# The type of the engine's own columns where a run's records hold nothing but null in them.
_OWN = {"_attempts": "int64", "_latency_ms": "double", "_tokens_in": "int64", "_tokens_out": "int64"}


def _kind_of(value: Any) -> str:
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
    if isinstance(value, list) and all(
        type(item) is float or (type(item) is int and -_EXACT_MAX <= item <= _EXACT_MAX) for item in value
    ):
        return "vector"
    return "json"


def _wider(one: str, other: str) -> str:
    """The kind that holds both."""
    if one == other or not other:
        return one
    if not one:
        return other
    return "double" if {one, other} == {"int64", "double"} else "json"


class ParquetWriter:
    """Records into row groups."""

    def __init__(self, stream: BinaryIO, *, columns: tuple[str, ...], notes: Mapping[str, Any]) -> None:
        self._kinds: Mapping[str, str] = notes.get("kinds", {})
        known = _input_types(notes)
        types = {
            name: known[name] if self._kinds.get(name) == "input" else _ARROW[self._kinds.get(name, "json")]
            for name in columns
        }
        self._schema = pa.schema(list(types.items()))
        self._names = frozenset(columns)
        self._writer = pq.ParquetWriter(stream, self._schema, compression="zstd")
        self._rows: list[RowValues] = []
        self._held = 0

    def write(self, records: list[bytes]) -> None:
        """Append records. Raises UnknownColumn for a column, or a type in it, that was not surveyed."""
        for record in records:
            values = decode_row(record)
            if not self._names.issuperset(values):
                raise self._given_up(UnknownColumn("a record has a column that was not there before"))
            self._rows.append(values)
            self._held += len(record)
            if len(self._rows) >= GROUP_ROWS or self._held >= GROUP_BYTES:
                self._flush()

    def finish(self) -> None:
        """The last group and the index."""
        self._flush()
        try:
            self._writer.close()
        except OSError as error:
            raise self._given_up(error) from None

    def _flush(self) -> None:
        rows, self._rows, self._held = self._rows, [], 0
        if not rows:
            return
        try:
            arrays = [self._array(field, [row.get(field.name) for row in rows]) for field in self._schema]
        except _MISFITS as error:
            raise self._given_up(UnknownColumn(_first_line(error))) from None
        try:
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        except OSError as error:
            raise self._given_up(error) from None

    def _given_up(self, error: Exception) -> Exception:
        # Without this, pyarrow tries to finish the file when the writer is collected, and complains on stderr.
        self._writer.is_open = False
        return error

    def _array(self, field: Any, values: list[Any]) -> Any:
        kind = self._kinds.get(field.name, "json")
        if kind == "input":
            return _restored(values, field.type)
        if kind == "json":
            values = [value if value is None else encode_values(value).decode() for value in values]
        return pa.array(values, type=field.type)


def _input_types(notes: Mapping[str, Any]) -> dict[str, Any]:
    text = notes.get("arrow_schema")
    if not isinstance(text, str):
        return {}
    schema = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(text)))
    return {field.name: field.type for field in schema}


def _restored(values: Iterable[Any], kind: Any) -> Any:
    """JSON values back in a column's own type. Raises one of _MISFITS for values that are not of it."""
    if pa.types.is_timestamp(kind):
        # Arrow reads nanoseconds, which Python's own type does not have.
        finer = pa.timestamp("ns" if kind.unit == "ns" else "us", kind.tz)
        return pa.array(values, type=pa.string()).cast(finer).cast(kind)
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    back = _or_same(inner)
    array = pa.array([back(value) for value in values], type=inner)
    return array.cast(kind) if pa.types.is_dictionary(kind) else array


def _way_back(kind: Any) -> Callable[[Any], Any] | None:
    """What makes a Python value of a type out of the JSON value of it; None where they are the same."""
    types = pa.types
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return lambda text: base64.b64decode(text, validate=True)
    if types.is_decimal(kind):
        return _decimal
    if types.is_timestamp(kind):
        return datetime.fromisoformat
    if types.is_date(kind):
        return date.fromisoformat
    if types.is_time(kind):
        return time.fromisoformat
    if types.is_duration(kind):
        return lambda seconds: timedelta(seconds=seconds)
    if types.is_integer(kind):
        return _whole
    if types.is_map(kind):
        name, item = _or_same(kind.key_type), _or_same(kind.item_type)
        return lambda pairs: [(name(pair[0]), item(pair[1])) for pair in pairs]
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        one = _or_same(kind.value_type)
        return lambda items: [one(each) for each in items]
    if types.is_struct(kind):
        parts = {field.name: _or_same(field.type) for field in kind}
        return lambda record: {name: parts[name](value) for name, value in record.items()}
    return None


def _whole(value: Any) -> Any:
    if type(value) is float:  # Arrow would cut the fraction off without a word
        raise ValueError("a fraction where the column has integers")
    if type(value) is Decimal:  # a few characters may stand for a thousand million digits
        raise ValueError("more digits than the column's integers have")
    return value


def _decimal(text: Any) -> Decimal:
    value = Decimal(text)
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and abs(exponent) > DECIMAL_EXPONENT_MAX:
        raise ValueError("further from 1 than a decimal of the column can be")
    return value


def _or_same(kind: Any) -> Callable[[Any], Any]:
    back = _way_back(kind)
    return lambda value: value if value is None or back is None else back(value)


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
        return Survey(columns, notes)


PARQUET = Parquet()
