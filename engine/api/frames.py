"""Tables of other libraries in, the same kind out, with the answers as new columns: ``engine.enrich``.

Rules of this file:
1. No library is imported that the caller has not: what a frame is, is told by the module of its type.
2. Rows keep their order and their index. The frame that was given stays as it is.
3. A row that failed has what its steps that had ended gave, else what the column had before, else null. ``_error`` is there
   if at least one row failed or the frame has one, and is null elsewhere.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any, Protocol, TypeVar, Unpack, cast

from engine.api.columns import Mixed, column, evened, shape_of
from engine.api.plans import RunSettings, refuse_several
from engine.api.pool import PassingPool
from engine.api.results import Result
from engine.api.steps import Chain, Step, StepSettings, ask, steps_of
from engine.core.errors import UsageError

F = TypeVar("F")
_OF_THE_STEP = {*signature(ask).parameters, *StepSettings.__annotations__} - {"settings"}
ERROR_COLUMN = "_error"


class EnrichSettings(RunSettings, total=False):
    """Those of ``engine.Pool``, and of its one ``engine.ask`` where no steps are given."""

    prompt: str
    prompt_file: str
    messages: str
    schema: Any
    into: str
    params: Mapping[str, Any]
    take: Mapping[str, str]
    when: str
    name: str
    keep: bool


def enrich(
    frame: F, steps: Step | Chain | Sequence[Step | Chain] | None = None, **settings: Unpack[EnrichSettings]
) -> F:
    """The frame with an answer for each row.

    frame: of pandas or polars, an Arrow table, or a Dataset of Hugging Face. steps: what to do; without it, one ``ask``
    of the settings prompt, into (the new column, ``response`` without it), model, schema, ... The other settings: see
    ``engine.Pool``. New columns: of each step its result, of a schema its properties; a column of the same name is
    replaced. Rows that failed have there what steps that had ended gave, or what that column had, or null, and what went
    wrong in ``_error``, which is only there if some did or the frame had it. Where a column needs one type, numbers of
    which some are fractions are floats, objects have the keys of all of them, and answers with no type in common are
    JSON texts. Of a Dataset every column can
    be named, whatever its format shows, but pictures, sounds and films.

    Raises UsageError for what is no such frame, RunStopped where the endpoint will not serve; what came by then is in the
    exception's ``results``.
    """
    kind = _kind_of(frame)
    of_the_run: dict[str, Any] = dict(settings)
    if steps is None:
        own = {name: of_the_run.pop(name) for name in sorted(_OF_THE_STEP & settings.keys())}
        steps = ask(**own)
    steps = steps_of(steps)
    with PassingPool(steps, _Rows(kind, frame), **of_the_run) as pool:
        results = pool.run()
        columns = _columns(pool.answers, results, as_dict=pool.gives_dicts)
    return cast(F, kind.with_columns(frame, columns, _texts_of(steps)))


def _columns(names: tuple[str, ...], results: list[Result], *, as_dict: bool) -> dict[str, list[Any]]:
    columns = {name: [_answer(result, name, as_dict) for result in results] for name in names}
    if any(not result.ok or ERROR_COLUMN in result.row for result in results):
        columns[ERROR_COLUMN] = [result.error or None for result in results]
    return columns


def _answer(result: Result, name: str, as_dict: bool) -> Any:
    """See rule 3."""
    if not result.ok:
        return result.partial.get(name, result.row.get(name))
    return result.value.get(name) if as_dict else result.value


def _texts_of(steps: Sequence[Step]) -> set[str]:
    """The columns that hold texts, or nothing at all."""
    plain = [step.settings for step in steps if step.kind == "ask" and "schema" not in step.settings]
    return {ERROR_COLUMN, *(told.get("into") or told.get("name") or "response" for told in plain)}


class Kind(Protocol):
    """One library's tables."""

    def length(self, frame: Any) -> int:
        """How many rows."""

    def rows(self, frame: Any) -> Iterator[Mapping[str, Any]]:
        """Every row by column names, in order."""

    def with_columns(self, frame: Any, columns: Mapping[str, list[Any]], texts: Collection[str]) -> Any:
        """Another frame with these columns, in place of those of the same names; ``texts``: those that hold texts."""


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
        _refuse_twins(names)
        for values in frame.itertuples(index=False, name=None):
            yield {name: _or_null(value) for name, value in zip(names, values, strict=True)}

    def with_columns(self, frame: Any, columns: Mapping[str, list[Any]], texts: Collection[str]) -> Any:
        # By place, not by index: an index may have the same label twice.
        return frame.assign(**{name: _series_of_pandas(values).array for name, values in columns.items()})


def _series_of_pandas(values: list[Any]) -> Any:
    """Whole numbers stay whole beside nulls and fractions; what has no type in common stays as it is."""
    from pandas import Series

    kinds = {type(value) for value in values}
    if int not in kinds:
        return Series(values)
    try:
        if kinds <= {int, type(None)}:
            return Series(values, dtype="Int64" if type(None) in kinds else "int64")
        return Series(evened(values), dtype="float64")
    except (Mixed, TypeError, ValueError, OverflowError):
        return Series(values, dtype="object")


class _Polars:
    def length(self, frame: Any) -> int:
        return int(frame.height)

    def rows(self, frame: Any) -> Iterator[Mapping[str, Any]]:
        yield from frame.iter_rows(named=True)

    def with_columns(self, frame: Any, columns: Mapping[str, list[Any]], texts: Collection[str]) -> Any:
        made = [
            column(partial(_series_of_polars, name, is_text=name in texts), values)
            for name, values in columns.items()
        ]
        return frame.with_columns(made)


def _series_of_polars(name: str, values: list[Any], *, is_text: bool) -> Any:
    """With its type said where polars, which looks at the first values alone, would lose or refuse later ones."""
    import polars

    plain = {str: polars.String, bool: polars.Boolean, int: polars.Int64, float: polars.Float64}

    def type_of(shape: Any) -> Any:
        if isinstance(shape, list):
            return polars.List(type_of(shape[0]))
        if isinstance(shape, dict):
            return polars.Struct({key: type_of(part) for key, part in shape.items()})
        return plain.get(shape, polars.Null)

    shape = shape_of(values)
    if shape is type(None):
        return polars.Series(name, values, polars.String if is_text else None)
    return polars.Series(name, values, type_of(shape) if isinstance(shape, list | dict) else None)


class _Arrow:
    def length(self, frame: Any) -> int:
        return int(frame.num_rows)

    def rows(self, frame: Any) -> Iterator[Mapping[str, Any]]:
        _refuse_twins(frame.column_names)
        for batch in frame.to_batches(max_chunksize=1024):
            yield from batch.to_pylist()

    def with_columns(self, frame: Any, columns: Mapping[str, list[Any]], texts: Collection[str]) -> Any:
        from pyarrow import array, string

        for name, values in columns.items():
            is_empty = name in texts and not any(value is not None for value in values)
            made = column(partial(array, type=string() if is_empty else None), values)
            at = frame.schema.get_field_index(name)
            frame = frame.append_column(name, made) if at < 0 else frame.set_column(at, name, made)
        return frame


class _Datasets:
    def length(self, frame: Any) -> int:
        return len(frame)

    def rows(self, frame: Any) -> Iterator[Mapping[str, Any]]:
        # Whatever its format shows of it, and how. Pictures and sounds are no part of a row: JSON cannot say them.
        media = [name for name, feature in frame.features.items() if _is_media(feature)]
        plain = frame.remove_columns(media).with_format(None)
        for batch in plain.iter(batch_size=1024):  # a tenth of what row after row costs
            yield from (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))

    def with_columns(self, frame: Any, columns: Mapping[str, list[Any]], texts: Collection[str]) -> Any:
        order = [*frame.column_names, *(name for name in columns if name not in frame.column_names)]
        for name, values in columns.items():
            if name not in frame.column_names:
                frame = column(partial(frame.add_column, name), values)
                continue
            # The new one comes first: without a column a dataset would have no rows.
            spare = f"{name}_"
            while spare in order:
                spare += "_"
            frame = (
                column(partial(frame.add_column, spare), values)
                .remove_columns(name)
                .rename_column(spare, name)
            )
        return frame.select_columns(order)


def _is_media(feature: Any) -> bool:
    """Whether a feature, or a part of it, is decoded to an object of another library: a picture, a sound, a film."""
    if isinstance(feature, Mapping):
        return any(_is_media(part) for part in feature.values())
    if isinstance(feature, list | tuple):
        return any(_is_media(part) for part in feature)
    if (inner := getattr(feature, "feature", None)) is not None:
        return _is_media(inner)
    # Those are in modules of their own; what is beside the plain features is decoded to plain values.
    return hasattr(feature, "decode_example") and not type(feature).__module__.endswith(".features.features")


_KINDS: dict[tuple[str, str], Kind] = {
    ("pandas", "DataFrame"): _Pandas(),
    ("polars", "DataFrame"): _Polars(),
    ("pyarrow", "Table"): _Arrow(),
    ("datasets", "Dataset"): _Datasets(),
}
_IN_ANOTHER_WAY = {
    ("polars", "LazyFrame"): "Collect it first: enrich(frame.collect(), ...).",
    ("datasets", "IterableDataset"): "Rows as a stream are for a pool: engine.Pool(steps, dataset).stream().",
}


def _kind_of(frame: object) -> Kind:
    refuse_several(frame)
    names = [(base.__module__.partition(".")[0], base.__name__) for base in type(frame).__mro__]
    for name in names:
        if name in _KINDS:
            return _KINDS[name]
    advice = [_IN_ANOTHER_WAY[name] for name in names if name in _IN_ANOTHER_WAY]
    raise UsageError(
        f"enrich() takes a DataFrame of pandas or polars, an Arrow Table or a Hugging Face Dataset, not "
        f"{type(frame).__module__}.{type(frame).__name__}. {(advice or ['Other rows are for engine.Pool.'])[0]} "
        "Nothing was sent."
    )


def _or_null(value: Any) -> Any:
    """pandas' ways of saying that there is nothing (NaN, NaT, NA) as None."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return None if type(value).__name__ in ("NaTType", "NAType") else value


def _refuse_twins(names: Sequence[str]) -> None:
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        raise UsageError(
            f"The frame has several columns of one name: {', '.join(twins)}. Give each its own. Nothing was sent."
        )
