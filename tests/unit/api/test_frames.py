"""Frames in, the same kind out: columns, order, index, nulls. The pool is a stand-in: its rows answer themselves."""

from collections.abc import Iterator
from typing import Any, Self

import pandas
import polars
import pyarrow
import pytest

from engine import UsageError, enrich
from engine.api import frames
from engine.api.results import Result, Usage

TEXTS = ["a", "b", "c"]


class EchoPool:
    """Answers each row with its text; "b" fails."""

    gives_dicts = False
    answers = ("answer",)
    fails: str | None = None
    rows: list[dict[str, Any]]

    def __init__(self, steps: Any, rows: Any, **settings: Any) -> None:
        assert len(rows) == 3
        type(self).rows = list(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def value_of(self, row: dict[str, Any]) -> Any:
        return row["text"].upper()

    def run(self) -> list[Result]:
        return [
            Result(None, "failed", "timeout: slow", row, index, Usage(0, 0), 0.0, 1)
            if row["text"] == self.fails
            else Result(self.value_of(row), "ok", "", row, index, Usage(0, 0), 0.0, 1)
            for index, row in enumerate(self.rows)
        ]


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> type[EchoPool]:
    class Own(EchoPool):
        pass

    monkeypatch.setattr(frames, "PassingPool", Own)
    return Own


class Dataset:
    """As Hugging Face's: what ``enrich`` uses of it."""

    __module__ = "datasets.arrow_dataset"

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    def __len__(self) -> int:
        return len(self.columns["text"])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(zip(self.columns, row, strict=True)) for row in zip(*self.columns.values(), strict=True))

    def remove_columns(self, names: list[str]) -> "Dataset":
        return Dataset({name: values for name, values in self.columns.items() if name not in names})

    def add_column(self, name: str, values: list[Any]) -> "Dataset":
        return Dataset({**self.columns, name: values})


MAKERS: dict[str, Any] = {
    "pandas": pandas.DataFrame,
    "polars": polars.DataFrame,
    "pyarrow": pyarrow.table,
    "datasets": Dataset,
}


def columns_of(frame: Any) -> dict[str, list[Any]]:
    if isinstance(frame, pandas.DataFrame):
        return {
            name: [None if pandas.isna(value) else value for value in column]
            for name, column in frame.items()
        }
    if isinstance(frame, polars.DataFrame):
        return frame.to_dict(as_series=False)
    return dict(frame.to_pydict()) if isinstance(frame, pyarrow.Table) else frame.columns


@pytest.mark.parametrize("kind", MAKERS)
def test_the_same_kind_comes_out_with_one_more_column(kind: str, pool: type[EchoPool]) -> None:
    frame = MAKERS[kind]({"text": TEXTS, "n": [1, 2, 3]})
    found = enrich(frame, prompt="{{ text }}", into="answer")
    assert type(found) is type(frame)
    assert columns_of(found) == {"text": TEXTS, "n": [1, 2, 3], "answer": ["A", "B", "C"]}
    assert "answer" not in columns_of(frame)
    assert pool.rows == [{"text": text, "n": number} for text, number in zip(TEXTS, [1, 2, 3], strict=True)]


@pytest.mark.parametrize("kind", MAKERS)
def test_failed_rows_are_null_and_say_why_in_a_column_of_their_own(kind: str, pool: type[EchoPool]) -> None:
    pool.fails = "b"
    found = columns_of(enrich(MAKERS[kind]({"text": TEXTS, "answer": [0, 0, 0]}), prompt="x"))
    assert found == {"text": TEXTS, "answer": ["A", None, "C"], "_error": [None, "timeout: slow", None]}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_schemas_properties_are_columns(kind: str, pool: type[EchoPool]) -> None:
    pool.gives_dicts, pool.answers, pool.fails = True, ("one", "two"), "c"
    pool.value_of = lambda self, row: {"one": row["text"], "two": 2}  # type: ignore[method-assign]
    found = columns_of(enrich(MAKERS[kind]({"text": TEXTS}), prompt="x"))
    assert (found["one"], found["two"]) == (["a", "b", None], [2, 2, None])


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_answers_without_a_type_in_common_are_json_texts_where_the_kind_needs_one(
    kind: str, pool: type[EchoPool]
) -> None:
    values = {"a": 1, "b": "word", "c": [1]}
    pool.value_of = lambda self, row: values[row["text"]]  # type: ignore[method-assign]
    found = columns_of(enrich(MAKERS[kind]({"text": TEXTS}), prompt="x"))["answer"]
    assert found in ([1, "word", [1]], ["1", "word", "[1]"])


def test_a_frames_index_stays_whatever_it_is(pool: type[EchoPool]) -> None:
    frame = pandas.DataFrame({"text": TEXTS}, index=[5, 5, 1])
    found = enrich(frame, prompt="x")
    assert list(found.index) == [5, 5, 1] and list(found["answer"]) == ["A", "B", "C"]


def test_what_pandas_says_for_nothing_is_null(pool: type[EchoPool]) -> None:
    frame = pandas.DataFrame({"text": TEXTS, 7: [1.5, None, float("nan")]})
    frame["when"] = pandas.to_datetime(["2026-01-02", None, None])
    enrich(frame, prompt="x")
    assert [row["7"] for row in pool.rows] == [1.5, None, None]
    assert [row["when"] is None for row in pool.rows] == [False, True, True]


@pytest.mark.parametrize(
    "frame", [[1], {"a": [1]}, polars.LazyFrame({"text": TEXTS}), pandas.Series(TEXTS)], ids=str
)
def test_what_is_no_frame_is_refused(frame: Any) -> None:
    with pytest.raises(UsageError, match=r"enrich\(\) takes a DataFrame"):
        enrich(frame, prompt="x")


def test_columns_of_one_name_are_refused() -> None:
    frame = pandas.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(UsageError, match="several columns of one name"):
        enrich(frame, prompt="x", provider="mock")
