"""What objects of a program and its libraries are in JSON."""

import collections
import datetime
import enum
import pathlib
import uuid
from decimal import Decimal
from typing import Any

import numpy
import pandas
import pytest

from engine.formats.plain import encode_plain


class Kind(enum.Enum):
    GOOD = "good"


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Span(datetime.timedelta):
    pass


class Model:
    """As pydantic's are."""

    def model_dump(self) -> dict[str, Any]:
        return {"path": pathlib.Path("/x"), "kind": Kind.GOOD}


ONE_NS = "2024-05-01T00:00:00.000000001"


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (pandas.Timestamp("2024-05-01T10:00"), '"2024-05-01T10:00:00"'),
        (pandas.Timestamp(ONE_NS), f'"{ONE_NS}"'),
        (pandas.Timestamp("2024-05-01", tz="UTC"), '"2024-05-01T00:00:00+00:00"'),
        (pandas.Timedelta(1500, "ms"), '"P0DT0H0M1.5S"'),
        (pandas.Period("2024-05", "M"), '"2024-05"'),
        (pandas.Interval(0, 1), '"(0, 1]"'),
        ([pandas.NaT, pandas.NA, float("nan"), numpy.float64("nan")], "[null,null,null,null]"),
        (numpy.datetime64(ONE_NS), f'"{ONE_NS}"'),
        (numpy.datetime64("2024-05-01"), '"2024-05-01"'),
        (numpy.datetime64("NaT"), "null"),
        (numpy.array([[ONE_NS]], "datetime64[ns]"), f'[["{ONE_NS}"]]'),
        (numpy.timedelta64(90, "s"), '"PT90S"'),
        (
            [numpy.int64(2**53 + 1), numpy.float32(0.5), numpy.True_, numpy.str_("a")],
            '[9007199254740993,0.5,true,"a"]',
        ),
        (numpy.array([[1, 2], [3, 4]]), "[[1,2],[3,4]]"),
        ([Text("a"), Whole(3), Span(seconds=5)], '["a",3,"PT5S"]'),
        (pathlib.Path("/a/b"), '"/a/b"'),
        (Model(), '{"path":"/x","kind":"good"}'),
        (collections.UserDict(a=1), '{"a":1}'),
        ([Decimal("0.10"), uuid.UUID(int=1)], '[0.10,"00000000-0000-0000-0000-000000000001"]'),
    ],
)
def test_what_has_one_meaning_in_json_becomes_that(value: Any, json: str) -> None:
    assert encode_plain(value).decode() == json


@pytest.mark.parametrize("value", [object(), 1j, iter([1]), [len]])
def test_what_has_none_is_refused(value: Any) -> None:
    with pytest.raises(NotImplementedError, match="objects of type .* are not JSON"):
        encode_plain(value)
