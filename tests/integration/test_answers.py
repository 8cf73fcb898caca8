"""Whole runs over other formats, with schemas, conversations and plain HTTP."""

import csv
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from runs import Run, ask_flags, read_rows, write_rows

from engine.mock.answers import expected_answer
from engine.mock.settings import MockSettings, parse_fault
from engine.mock.spawn import MockProcess

pytestmark = pytest.mark.slow

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"enum": ["good", "bad"]},
        "score": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["label", "score"],
    "additionalProperties": False,
}


def test_the_properties_of_a_schema_become_columns(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 40), tmp_path / "out.csv"
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    with MockProcess() as mock:
        summary = Run(*ask_flags(mock.base_url, source, output, "--schema", str(schema))).summary()
    assert summary["ok"] == 40
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert list(rows[0]) == ["id", "text", "label", "score", "_status", "_error"]
    assert {row["label"] for row in rows} <= {"good", "bad"}
    assert all(0 <= int(row["score"]) <= 9 for row in rows)


def test_an_answer_that_does_not_fit_is_asked_for_again_and_then_fails_its_row(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 5), tmp_path / "out.jsonl"
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    wrong = parse_fault("malformed,match=row 3 says,attempts=1")
    with MockProcess(MockSettings(faults=(wrong,))) as mock:
        summary = Run(*ask_flags(mock.base_url, source, output, "--schema", str(schema))).summary()
    assert (summary["ok"], summary["retries"]) == (5, 1)
    with MockProcess(MockSettings(faults=(parse_fault("malformed,match=row 3 says"),))) as mock:
        flags = ask_flags(mock.base_url, source, output, "--schema", str(schema), "--retries", "2", "--fresh")
        summary = Run(*flags).summary()
        requests = mock.stats()["requests"]
    assert summary["failures"] == {"bad_reply": 1}
    assert requests == 4 + 3


def test_a_column_of_messages_is_sent_as_a_conversation(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    turns = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "x"},
    ]
    source.write_text(json.dumps({"chat": turns}) + "\n" + json.dumps({"chat": "no list"}) + "\n")
    with MockProcess() as mock:
        summary = Run(
            "run", str(source), "-o", str(output), "--base-url", mock.base_url, "--model", "m", "--messages", "chat",
            "--json", "--no-progress",
        ).summary()  # fmt: skip
    assert summary["failures"] == {"bad_input": 1}
    assert read_rows(output)[0]["response"] == expected_answer("one\ntwo\nx")


def test_batch_lines_come_back_as_batch_lines_in_input_order(tmp_path: Path) -> None:
    source, output = tmp_path / "batch.jsonl", tmp_path / "out.jsonl"
    with source.open("w") as file:
        for number in range(20):
            body = {"model": "m", "messages": [{"role": "user", "content": f"row {number}"}]}
            line = {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    with MockProcess(MockSettings(latency="uniform:1:40", faults=(parse_fault('400,match=row 7"'),))) as mock:
        flags = (
            "run",
            str(source),
            "-o",
            str(output),
            "--base-url",
            mock.base_url,
            "--json",
            "--no-progress",
        )
        summary = Run(*flags).summary()
    assert (summary["ok"], summary["failed"]) == (19, 1)
    records = read_rows(output)
    assert [record["custom_id"] for record in records] == [f"c{number}" for number in range(20)]
    assert records[7]["error"]["code"] == "bad_request"
    text = records[3]["response"]["body"]["choices"][0]["message"]["content"]
    assert text == expected_answer("row 3")


def test_any_http_endpoint_is_called_with_rows_that_cannot_break_out(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    hostile = 'quote " brace } {{ text }} \u2028'
    source.write_text(json.dumps({"text": hostile, "n": 5}) + "\n")
    with MockProcess() as mock:
        summary = Run(
            "run", str(source), "-o", str(output), "--provider", "http", "--url", f"{mock.origin}/echo?q={{{{ text }}}}",
            "--body", '{"t": "{{ text }}", "n": "{{ n }}"}', "--select", "t", "--json", "--no-progress",
        ).summary()  # fmt: skip
    assert summary["ok"] == 1, summary
    assert read_rows(output)[0]["response"] == hostile
    assert len(output.read_text().splitlines()) == 1


def test_the_first_rows_tell_what_the_whole_input_would_take(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 1000), tmp_path / "out.jsonl"
    with MockProcess() as mock:
        summary = Run(*ask_flags(mock.base_url, source, output, "--rows", "100")).summary()
    assert summary["rows"] == 100
    assert 500 < summary["extrapolation"]["rows"] < 1500


def test_meta_columns_say_what_a_row_took(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 3), tmp_path / "out.jsonl"
    with MockProcess(MockSettings(faults=(parse_fault("500,nth=1"),))) as mock:
        Run(*ask_flags(mock.base_url, source, output, "--meta")).summary()
    records = read_rows(output)
    assert sum(record["_attempts"] for record in records) == 4
    assert all(record["_tokens_in"] > 0 and record["_model"] == "mock" for record in records)


def test_too_few_open_files_lower_what_is_in_flight_with_a_warning(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 300), tmp_path / "out.jsonl"

    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    with MockProcess(MockSettings(latency="20ms")) as mock:
        flags = ask_flags(mock.base_url, source, output, "--procs", "2", "--in-flight", "500")
        done = subprocess.run(
            [sys.executable, "-m", "engine", *flags],
            preexec_fn=few_files,
            capture_output=True,
            text=True,
            check=False,
        )
        stats = mock.stats()
    assert done.returncode == 0, done.stderr
    assert "open files" in done.stderr
    assert stats["in_flight_max"] <= 72


def test_a_run_without_rows_ends_well(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("")
    with MockProcess() as mock:
        started = Run(*ask_flags(mock.base_url, source, output))
        assert started.summary()["rows"] == 0
    assert started.wait() == 0
    assert output.read_bytes() == b""
