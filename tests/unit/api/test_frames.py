"""Frames in, the same kind out: columns, order, index, nulls. The pool is a stand-in: its rows answer themselves."""

from typing import Any, Self

import pandas
import polars
import pyarrow
import pytest
from packages import needs_package

from engine import UsageError, ask, call, enrich
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


MAKERS: dict[str, Any] = {
    "pandas": pandas.DataFrame,
    "polars": polars.DataFrame,
    "pyarrow": pyarrow.table,
    "datasets": lambda columns: needs_package("datasets").Dataset.from_dict(columns),
}


def columns_of(frame: Any) -> dict[str, list[Any]]:
    if isinstance(frame, pandas.DataFrame):
        return {
            name: [None if pandas.isna(value) else value for value in column]
            for name, column in frame.items()
        }
    if isinstance(frame, polars.DataFrame):
        return frame.to_dict(as_series=False)
    return dict(frame.to_pydict() if isinstance(frame, pyarrow.Table) else frame.to_dict())


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
    found = columns_of(enrich(MAKERS[kind]({"text": TEXTS}), prompt="x"))
    assert found == {"text": TEXTS, "answer": ["A", None, "C"], "_error": [None, "timeout: slow", None]}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_row_that_failed_keeps_what_it_had_in_the_column(kind: str, pool: type[EchoPool]) -> None:
    pool.fails, pool.answers = "b", ("text",)
    assert columns_of(enrich(MAKERS[kind]({"text": TEXTS}), prompt="x"))["text"] == ["A", "b", "C"]
    pool.value_of = lambda self, row: {"text": row["text"].upper()}  # type: ignore[method-assign]
    pool.gives_dicts = True
    assert columns_of(enrich(MAKERS[kind]({"text": TEXTS}), prompt="x"))["text"] == ["A", "b", "C"]


@pytest.mark.parametrize("kind", MAKERS)
def test_errors_of_an_earlier_time_do_not_stay(kind: str, pool: type[EchoPool]) -> None:
    found = columns_of(enrich(MAKERS[kind]({"text": TEXTS, "_error": ["old", None, "old"]}), prompt="x"))
    assert found["_error"] == [None, None, None]


@pytest.mark.parametrize("kind", MAKERS)
def test_a_schemas_properties_are_columns(kind: str, pool: type[EchoPool]) -> None:
    pool.gives_dicts, pool.answers, pool.fails = True, ("one", "two"), "c"
    pool.value_of = lambda self, row: {"one": row["text"], "two": 2}  # type: ignore[method-assign]
    found = columns_of(enrich(MAKERS[kind]({"text": TEXTS}), prompt="x"))
    assert (found["one"], found["two"]) == (["a", "b", None], [2, 2, None])


@pytest.mark.parametrize("kind", MAKERS)
def test_answers_without_a_type_in_common_are_json_texts_where_the_kind_needs_one(
    kind: str, pool: type[EchoPool]
) -> None:
    values = {"a": 1, "b": "word", "c": [1]}
    pool.value_of = lambda self, row: values[row["text"]]  # type: ignore[method-assign]
    found = columns_of(enrich(MAKERS[kind]({"text": TEXTS}), prompt="x"))["answer"]
    assert found in ([1, "word", [1]], ["1", "word", "[1]"])


@pytest.mark.parametrize("kind", ["polars", "pyarrow"])
@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([{"l": "good"}, {"l": "bad", "why": "broke"}, None], [("good", None), ("bad", "broke"), None]),
        ([[], [{"l": "bad", "why": None}], [{"l": "x"}]], [[], [("bad", None)], [("x", None)]]),
        (
            [{"l": None, "why": [[]]}, {"l": 1, "why": [["x"]]}, {}],
            [(None, [[]]), (1, [["x"]]), (None, None)],
        ),
        ([1, 148.5, None], [1.0, 148.5, None]),
        ([1, 0.5, 2**53 + 1], ["1", "0.5", "9007199254740993"]),
        ([[1], ["x"], None], ["[1]", '["x"]', None]),
        ([True, 1, "x"], ["true", "1", "x"]),
        ([1, {"a": 2**70}, None], ["1", '{"a":1180591620717411303424}', None]),
    ],
)
def test_no_value_is_lost_where_a_column_needs_one_type(
    kind: str, values: list[Any], kept: list[Any], pool: type[EchoPool]
) -> None:
    def bare(value: Any) -> Any:
        if isinstance(value, list):
            return [bare(item) for item in value]
        return tuple(bare(item) for item in value.values()) if isinstance(value, dict) else value

    pool.value_of = lambda self, row: values[TEXTS.index(row["text"])]  # type: ignore[method-assign]
    found = columns_of(enrich(MAKERS[kind]({"text": TEXTS}), prompt="x"))["answer"]
    assert bare(found) == kept and list(map(type, bare(found))) == list(map(type, kept))


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([2**53 + 1, None, 3], "Int64"),
        ([2**53 + 1, 0.5, 3], "object"),
        ([2, 0.5, None], "float64"),
        ([2**64, None, 3], "object"),
        ([1, 2, 3], "int64"),
        ([1, "x", None], "object"),
    ],
)
def test_whole_numbers_stay_what_they_are_in_pandas(
    values: list[Any], dtype: str, pool: type[EchoPool]
) -> None:
    pool.value_of = lambda self, row: values[TEXTS.index(row["text"])]  # type: ignore[method-assign]
    found = enrich(pandas.DataFrame({"text": TEXTS}), prompt="x")
    assert columns_of(found)["answer"] == values and found["answer"].dtype == dtype


@pytest.mark.parametrize("kind", ["polars", "pyarrow"])
def test_columns_of_texts_are_texts_when_they_are_empty(kind: str, pool: type[EchoPool]) -> None:
    pool.value_of = lambda self, row: None  # type: ignore[method-assign]
    frame = MAKERS[kind]({"text": TEXTS})
    named = enrich(frame, [ask("x", into="answer"), call(str, into="other")])
    if kind == "polars":
        assert dict(named.schema) == {"text": polars.String, "answer": polars.String}
    else:
        assert named.schema.types == [pyarrow.string()] * 2
    pool.answers = ("other",)
    untold = enrich(frame, [ask("x", into="answer"), call(str, into="other")])
    kinds = untold.schema["other"] if kind == "polars" else untold.schema.field("other").type
    assert kinds == (polars.Null if kind == "polars" else pyarrow.null())


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


@pytest.mark.parametrize(
    "frame",
    [
        pandas.DataFrame([[1, 2]], columns=["a", "a"]),
        pyarrow.table([pyarrow.array([1]), pyarrow.array([2])], names=["a", "a"]),
    ],
    ids=["pandas", "pyarrow"],
)
def test_columns_of_one_name_are_refused(frame: Any) -> None:
    with pytest.raises(UsageError, match="several columns of one name: a"):
        enrich(frame, prompt="x", provider="mock")
