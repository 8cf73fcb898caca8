"""Rows that take their workers with them are given up: with what there is of them, and with what it may have been."""

import ctypes
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from runs import read_rows, run, write_rows

from engine import Pool, call
from engine.coordinator import supervise

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]


def holds(row: dict[str, Any]) -> int:
    """Of one row without end, and without letting go of the interpreter."""
    if row["x"] == 3:
        ctypes.PyDLL(None).sleep(3600)
    return int(row["x"]) * 2


def test_a_function_that_holds_the_interpreter_is_named_in_the_note_and_in_its_rows_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervise, "SILENT_S", 3.0)
    caplog.set_level(logging.INFO, "engine")
    rows = [{"x": number} for number in range(12)]
    with Pool(call(holds, into="y"), rows, procs=1) as pool:
        results = pool.run()
    assert [result.value for result in results if result.ok] == [2 * x for x in range(12) if x != 3]
    (failed,) = [result for result in results if not result.ok]
    assert failed.index == 3
    for says in (failed.error, next(text for text in caplog.messages if "silent" in text)):
        assert "holds" in says and 'mode="process"' in says
    assert failed.error.startswith("poison: step step_1: in flight at ")


SOURCE = """
import os, signal, time


def first(row):
    return row["text"].upper()


def deadly(first, id):
    if id == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return len(first)


async def beside(id):
    return ["beside", id]


async def after(deadly):
    return deadly + 1
"""
STEPS = """
[[steps]]
name = "first"
function = "own_functions:first"
[[steps]]
name = "deadly"
function = "own_functions:deadly"
take = { first = "first", id = "id" }
mode = "loop"
[[steps]]
name = "beside"
function = "own_functions:beside"
take = { id = "id" }
[[steps]]
name = "after"
function = "own_functions:after"
take = { deadly = "deadly" }
"""


def test_a_row_that_is_given_up_keeps_what_was_finished_of_it_and_names_the_step_under_way(
    tmp_path: Path,
) -> None:
    (tmp_path / "own_functions.py").write_text(SOURCE)
    (tmp_path / "job.toml").write_text(STEPS)
    write_rows(tmp_path / "in.jsonl", 40)
    flags = ("--job", "job.toml", "--procs", "2", "--in-flight", "8", "--meta", "--json", "--no-progress")
    summary = run("run", "in.jsonl", "-o", "out.jsonl", *flags, folder=tmp_path).last_json()
    assert (summary["ok"], summary["failures"]) == (39, {"poison": 1})
    (record,) = [one for one in read_rows(tmp_path / "out.jsonl") if one["_error"].startswith("poison")]
    assert (record["id"], record["first"], record["beside"]) == (5, record["text"].upper(), ["beside", 5])
    assert (record["deadly"], record["after"]) == (None, None)
    assert re.fullmatch(r"poison: step deadly: in flight at \d worker deaths", record["_error"])
    assert record["_attempts"] == 2 and record["_latency_ms"] > 0
