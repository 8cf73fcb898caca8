"""Results out of records."""

import json
from typing import Any

from engine.api.results import Reader, RowFailed, Usage

OK = {
    "text": "hi", "n": 1, "response": "yes", "_status": "ok", "_error": "", "_attempts": 2, "_latency_ms": 12.5,
    "_tokens_in": 3, "_tokens_out": None, "_model": "m",
}  # fmt: skip
FAILED = {
    **OK, "response": None, "_status": "failed", "_error": "timeout: too slow", "_attempts": 0, "_latency_ms": None,
}  # fmt: skip


def no_trace(index: int, error: str) -> str:
    raise AssertionError("nothing failed")


def record(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode()


def test_a_record_becomes_a_result() -> None:
    row = object()
    result = Reader(("response",), as_dict=False).read(4, record(OK), row, no_trace)
    assert (result.value, result.status, result.ok, result.error) == ("yes", "ok", True, "")
    assert result.row is row
    assert (result.index, result.attempts, result.latency_ms) == (4, 2, 12.5)
    assert result.usage == Usage(3, None)


def test_a_failed_rows_value_is_none_and_its_error_says_why() -> None:
    result = Reader(("response",), as_dict=True).read(0, record(FAILED), None, "{} {}".format)
    assert (result.value, result.ok, result.error) == (None, False, "timeout: too slow")
    assert (result.attempts, result.latency_ms, result.traceback) == (0, None, "0 timeout: too slow")
    assert "Row 0 failed: timeout: too slow" in str(RowFailed(result))


def test_what_steps_gave_before_their_row_failed_is_partial() -> None:
    line = record({**FAILED, "n": 1})
    result = Reader(("n", "response"), as_dict=True).read(0, line, None, "{} {}".format)
    assert (result.value, result.partial) == (None, {"n": 1})
    assert Reader(("response",), as_dict=False).read(0, line, None, "{} {}".format).partial == {}
    assert Reader(("n", "response"), as_dict=True).read(0, record(OK), None, no_trace).partial == {}


def test_several_columns_are_a_dict() -> None:
    result = Reader(("n", "response", "not there"), as_dict=True).read(0, record(OK), None, no_trace)
    assert result.value == {"n": 1, "response": "yes", "not there": None}


def test_columns_may_have_any_name() -> None:
    values = {**OK, "a b": 1, "class": 2, "f0": 3, "": 4}
    result = Reader(("a b", "class", "f0", ""), as_dict=True).read(0, record(values), None, no_trace)
    assert result.value == {"a b": 1, "class": 2, "f0": 3, "": 4}


def test_numbers_beyond_a_float_do_not_hide_the_answer() -> None:
    line = record(OK)[:-1] + b', "huge": 1e999, "response": 1e999}'
    assert str(Reader(("response",), as_dict=False).read(0, line, None, no_trace).value) == "1E+999"
