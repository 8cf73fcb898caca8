"""Tables of other libraries in, the same kind out, with the answers as new columns: ``engine.enrich``.

Rules of this file:
1. No library is imported that the caller has not: what a frame is, is told by the module of its type.
2. Rows keep their order and their index. The frame that was given stays as it is.
3. A row that failed has null in the new columns, but for what its steps that had ended gave.
   ``_error`` is there if at least one row failed, and is null elsewhere.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import Any, Protocol, TypeVar, cast

import msgspec

from engine.api.pool import PassingPool
from engine.api.results import Result
from engine.api.steps import Chain, Step, StepSettings, ask
from engine.core.errors import UsageError

F = TypeVar("F")
_OF_THE_STEP = {*signature(ask).parameters, *StepSettings.__annotations__} - {"settings"}
ERROR_COLUMN = "_error"


def enrich(frame: F, steps: Step | Chain | Sequence[Step | Chain] | None = None, **settings: Any) -> F:
    """The frame with an answer for each row.

    frame: of pandas or polars, an Arrow table, or a Dataset of Hugging Face. steps: what to do; without it, one ``ask``
    of the settings prompt, into (the new column, ``response`` without it), model, schema, ... The other settings: see
    ``engine.Pool``. New columns: of each step its result, of a schema its properties; a column of the same name is
    replaced. Rows that failed have null there, but for what steps that had ended gave, and what went wrong in ``_error``,
    which is only there if some did.

    Raises UsageError for what is no such frame, RunStopped where the endpoint will not serve; what came by then is in the
    exception's ``results``.
    """
    kind = _kind_of(frame)
    if steps is None:
        own = {name: settings.pop(name) for name in sorted(_OF_THE_STEP & settings.keys())}
        steps = ask(**own)
    with PassingPool(steps, _Rows(kind, frame), **settings) as pool:
        results = pool.run()
        columns = _columns(pool.answers, results, as_dict=pool.gives_dicts)
    return cast(F, kind.with_columns(frame, columns))


def _columns(names: tuple[str, ...], results: list[Result], *, as_dict: bool) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for name in names:
        columns[name] = [
            (result.value if result.ok else result.partial).get(name) if as_dict else result.value
            for result in results
        ]
    if not all(result.ok for result in results):
        columns[ERROR_COLUMN] = [result.error or None for result in results]
    return columns


class Kind(Protocol):
    """One library's tables."""

    def length(self, frame: Any) -> int:
        """How many rows."""

    def rows(self, frame: Any) -> Iterator[Mapping[str, Any]]:
        """Every row by column names, in order."""

    def with_columns(self, frame: Any, columns: Mapping[str, list[Any]]) -> Any:
        """Another frame with these columns, in place of those of the same names."""


class _Rows:
    """The rows of a frame, as often as they are asked for."""

    def __init__(self, kind: Kind, frame: Any) -> None:
        self._kind, self._frame = kind, frame

    def __len__(self) -> int:
        return self._kind.length(self._frame)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return self._kind.rows(self._frame)


class _Pandas:
    def length(self, frame: Any) -> int:
        return len(frame)

    def rows(self, frame: Any) -> Iterator[Mapping[str, Any]]:
        names = [str(name) for name in frame.columns]
        if len(set(names)) < len(names):
            raise UsageError(
                "The frame has several columns of one name. Give each its own. Nothing was sent."
            )
        for values in frame.itertuples(index=False, name=None):
            yield {name: _or_null(value) for name, value in zip(names, values, strict=True)}

    def with_columns(self, frame: Any, columns: Mapping[str, list[Any]]) -> Any:
        from pandas import Series

        # By place, not by index: an index may have the same label twice.
        return frame.assign(**{name: Series(values).array for name, values in columns.items()})


class _Polars:
    def length(self, frame: Any) -> int:
        return int(frame.height)

    def rows(self, frame: Any) -> Iterator[Mapping[str, Any]]:
        yield from frame.iter_rows(named=True)

    def with_columns(self, frame: Any, columns: Mapping[str, list[Any]]) -> Any:
        from polars import Series

        return frame.with_columns([_made(Series, name, values) for name, values in columns.items()])


class _Arrow:
    def length(self, frame: Any) -> int:
        return int(frame.num_rows)

    def rows(self, frame: Any) -> Iterator[Mapping[str, Any]]:
        for batch in frame.to_batches(max_chunksize=1024):
            yield from batch.to_pylist()

    def with_columns(self, frame: Any, columns: Mapping[str, list[Any]]) -> Any:
        from pyarrow import array

        for name, values in columns.items():
            made = _made(lambda _, items: array(items), name, values)
            at = frame.schema.get_field_index(name)
            frame = frame.append_column(name, made) if at < 0 else frame.set_column(at, name, made)
        return frame


class _Datasets:
    def length(self, frame: Any) -> int:
        return len(frame)

    def rows(self, frame: Any) -> Iterator[Mapping[str, Any]]:
        yield from frame

    def with_columns(self, frame: Any, columns: Mapping[str, list[Any]]) -> Any:
        frame = frame.remove_columns([name for name in columns if name in frame.column_names])
        for name, values in columns.items():
            frame = _made(frame.add_column, name, values)
        return frame


_KINDS: dict[tuple[str, str], Kind] = {
    ("pandas", "DataFrame"): _Pandas(),
    ("polars", "DataFrame"): _Polars(),
    ("pyarrow", "Table"): _Arrow(),
    ("datasets", "Dataset"): _Datasets(),
}


def _kind_of(frame: object) -> Kind:
    for base in type(frame).__mro__:
        kind = _KINDS.get((base.__module__.partition(".")[0], base.__name__))
        if kind is not None:
            return kind
    raise UsageError(
        f"enrich() takes a DataFrame of pandas or polars, an Arrow Table or a Hugging Face Dataset, not "
        f"{type(frame).__module__}.{type(frame).__name__}. A lazy frame has to be collected first; other rows are for "
        "engine.Pool. Nothing was sent."
    )


def _or_null(value: Any) -> Any:
    """pandas' ways of saying that there is nothing (NaN, NaT, NA) as None."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return None if type(value).__name__ in ("NaTType", "NAType") else value


def _made(make: Any, name: str, values: list[Any]) -> Any:
    """A column of one type, of the values as they are or, where they have no type in common, of their JSON texts."""
    try:
        return make(name, values)
    except (TypeError, ValueError, OverflowError):  # the libraries' own are among them
        texts = [
            value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()
            for value in values
        ]
        return make(name, texts)
