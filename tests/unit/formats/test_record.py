"""Records are one line, keep the input as it was, and say what became of the row."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.formats.record import Recorder, decode_row, one_line, plain_text
from engine.formats.rows import encode_values

META: dict[str, Any] = {
    "attempts": 2, "latency_ms": 12.34567, "tokens_in": 10, "tokens_out": -1, "model": "m",
}  # fmt: skip


def recorder(**changes: Any) -> Recorder:
    return Recorder(**{"batch": False, "meta": False, "error_chars_max": 100, **changes})


def ok(payload: bytes, fields: dict[str, Any], **changes: Any) -> bytes:
    return recorder(**changes).ok(payload, decode_row(payload), fields, **META)


def test_the_input_is_spliced_in_as_it_was_written() -> None:
    payload = b'{"n":1.10,"big":%b,"t":"\\u00e9"}' % (b"9" * 5000)
    expected = payload[:-1] + b',"response":"x","_status":"ok","_error":""}'
    assert ok(payload, {"response": "x"}) == expected


def test_an_empty_object_and_space_after_the_brace_splice_well() -> None:
    assert json.loads(ok(b"{}", {"r": 1})) == {"r": 1, "_status": "ok", "_error": ""}
    assert json.loads(ok(b'{"a":1} ', {"r": 1})) == {"a": 1, "r": 1, "_status": "ok", "_error": ""}


def test_a_column_of_the_same_name_is_replaced_and_the_others_stay_exact() -> None:
    record = ok(b'{"response":"old","n":1.10,"_status":"failed"}', {"response": "new"})
    assert record == b'{"n":1.10,"response":"new","_status":"ok","_error":""}'


def test_meta_columns_come_last_and_say_null_where_nothing_is_known() -> None:
    record = json.loads(ok(b'{"a":1}', {"r": 1}, meta=True))
    assert list(record)[-7:] == [
        "_status", "_error", "_attempts", "_latency_ms", "_tokens_in", "_tokens_out", "_model",
    ]  # fmt: skip
    assert record["_latency_ms"] == 12.346
    assert record["_tokens_out"] is None


def test_a_failed_row_keeps_its_input_and_loses_an_old_answer() -> None:
    payload = b'{"a":1,"response":"old"}'
    made = recorder(answers=("response",)).failed(payload, decode_row(payload), "timeout", "no reply", **META)
    assert json.loads(made) == {
        "a": 1, "response": None, "_status": "failed", "_error": "timeout: no reply",
    }  # fmt: skip


def test_a_row_that_could_not_be_read_has_a_record_without_input() -> None:
    made = recorder().failed(b"\xff", None, "bad_input", "line 3 is not UTF-8", **META)
    assert json.loads(made) == {"_status": "failed", "_error": "bad_input: line 3 is not UTF-8"}


def test_error_messages_are_one_short_line_without_control_characters() -> None:
    assert plain_text("a\x1b[31m\r\nb\u202ec\u2028d\ud800e", 100) == "a [31m b c d e"
    assert plain_text("x" * 200, 100) == "x" * 99 + "…"
    assert len(plain_text("\n" + "y" * 10_000_000, 100)) <= 100


def test_lone_surrogates_in_an_answer_do_not_end_the_worker() -> None:
    assert json.loads(ok(b"{}", {"r": ["a\ud800b", {"\udc00": 1}]}))["r"] == ["a?b", {"?": 1}]


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), max_size=4), st.text())
def test_one_row_is_one_line_for_every_reader(values: dict[str, Any], answer: str) -> None:
    payload = encode_values(values)
    record = ok(payload, {"response": answer})
    assert len(record.decode().splitlines()) == 1
    assert len(record.splitlines()) == 1
    assert json.loads(record) == {**values, "response": answer, "_status": "ok", "_error": ""}


@pytest.mark.parametrize("end", ["\r", "\n", "\u2028", "\u2029", "\u0085"])
def test_raw_line_ends_in_the_input_do_not_break_the_record(end: str) -> None:
    between = end if end in "\r\n" else ""
    text = "" if between else end
    payload = f'{{"a":{between}"x{text}y"}}'.encode()
    record = one_line(payload)
    assert len(record.decode().splitlines()) == 1
    assert json.loads(record) == {"a": f"x{text}y"}


def batch(body: bytes) -> dict[str, Any]:
    payload = b'{"custom_id":"r1","url":"/v1/x","body":{}}'
    fields = {"status_code": 200, "request_id": "q", "body": body}
    made = recorder(batch=True).ok(payload, decode_row(payload), fields, **META)
    assert len(made.decode().splitlines()) == 1
    line: dict[str, Any] = json.loads(made)
    return line


def test_a_batch_line_holds_the_reply_as_it_came() -> None:
    line = batch(b'{\n  "id": "c",\r\n  "n": 1\n}\n')
    assert list(line) == ["id", "custom_id", "response", "error"]
    assert line["custom_id"] == "r1"
    assert line["response"] == {"status_code": 200, "request_id": "q", "body": {"id": "c", "n": 1}}
    assert line["error"] is None


@pytest.mark.parametrize("body", [b"<html>\n\xff", b'{"a": "\xff"}', b"{", b'{"a": NaN}'])
def test_a_body_that_is_no_json_cannot_break_the_batch_line(body: bytes) -> None:
    assert batch(body)["response"]["body"] == body.decode(errors="replace")


def test_batch_ids_depend_on_the_row_alone() -> None:
    assert batch(b"{}")["id"] == batch(b'{"other": 1}')["id"]


def test_a_failed_batch_line_has_an_error_instead_of_a_response() -> None:
    make = recorder(batch=True).failed
    line = json.loads(make(b'{"custom_id":"r1"}', {"custom_id": "r1"}, "timeout", "no reply", **META))
    assert (line["custom_id"], line["response"]) == ("r1", None)
    assert line["error"] == {"code": "timeout", "message": "no reply"}
    first, second = (
        json.loads(make(b"", None, "bad_input", f"line {n} is not UTF-8", **META)) for n in (1, 2)
    )
    assert first["custom_id"] is None
    assert first["id"] != second["id"]
