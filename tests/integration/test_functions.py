"""Whole runs whose steps are Python functions: found in the working folder, run in their places, failing alone."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from runs import Run, read_rows

from engine.core.errors import ErrorKind

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SOURCE = """
import asyncio, os, time

async def nap(row):
    await asyncio.sleep(0.05)
    return {"plus": row["x"] + 1}

def check(number):
    if number["plus"] == 4:
        raise ValueError(f"{number['plus']} is not for us")
    return number["plus"]

def spin(x):
    if x == 5:
        os._exit(9)
    return sum(range(x))

def hang(row):
    time.sleep(3600 if row["x"] == 1 else 0)
    return "done"

def odd(row):
    return object()
"""


def start(folder: Path, steps: str, rows: int, *more: str) -> Run:
    (folder / "sample.py").write_text(SOURCE)
    (folder / "job.toml").write_text(steps)
    (folder / "in.jsonl").write_text("".join(f'{{"x": {number}}}\n' for number in range(rows)))
    return Run(
        "run", "in.jsonl", "-o", "out.jsonl", "--job", "job.toml", "--procs", "2", "--json", "--no-progress", *more,
        prefix=("env", "-C", str(folder)), environment={"PYTHONPATH": str(ROOT) + path_rest()},
    )  # fmt: skip


def path_rest() -> str:
    """What is on Python's path beside the project, for packages that are installed elsewhere."""
    known = os.environ.get("PYTHONPATH", "")
    return f":{known}" if known else ""


THREE = """
[[steps]]
name = "nap"
function = "sample:nap"
into = "found"
keep = false
[[steps]]
name = "check"
kind = "call"
function = "sample:check"
take = { number = "found" }
into = "number"
[[steps]]
name = "spin"
function = "sample:spin"
take = { x = "x" }
mode = "process"
"""


def test_functions_run_on_the_loop_in_threads_and_in_processes_and_fail_their_own_rows_only(
    tmp_path: Path,
) -> None:
    summary = start(tmp_path, THREE, 40).summary()
    assert (summary["ok"], summary["failed"], summary["exit_code"]) == (38, 2, 1)
    assert summary["failures"] == {ErrorKind.FUNCTION_ERROR: 2} and summary["worker_deaths"] == 0
    assert summary["requests"] == 0
    records = {record["x"]: record for record in read_rows(tmp_path / "out.jsonl")}
    assert records[7] == {"x": 7, "number": 8, "spin": 21, "_status": "ok", "_error": ""}
    assert records[3]["_error"] == "function_error: step check: ValueError: 4 is not for us"
    # What does not need the failed step is there.
    assert (records[3]["number"], records[3]["spin"]) == (None, 3)
    assert records[5]["_error"] == (
        "function_error: step spin: the function's process ended with exit code 9 while it ran"
    )


def test_the_traceback_of_an_exception_is_kept_with_the_run(tmp_path: Path) -> None:
    start(tmp_path, THREE, 5).summary()
    kept = [line for line in steps_of(tmp_path / "out.jsonl.run") if not line["ok"]]
    assert len(kept) == 1
    told = kept[0]["data"]
    assert (told["kind"], told["message"]) == ("function_error", "ValueError: 4 is not for us")
    assert 'sample.py", line 10, in check' in told["traceback"] and "engine/worker" not in told["traceback"]


def steps_of(folder: Path) -> list[dict[str, Any]]:
    """The finished steps in a run's store."""
    with sqlite3.connect(f"file:{folder}/store.db?mode=ro", uri=True) as store:
        rows = store.execute("SELECT ok, CAST(data AS BLOB) FROM step").fetchall()
    return [{"ok": bool(ok), "data": json.loads(data)} for ok, data in rows]


def test_a_thread_that_hangs_costs_its_row_and_its_time_out(tmp_path: Path) -> None:
    steps = '[[steps]]\nname = "hang"\nfunction = "sample:hang"\ntimeout = 1\n'
    summary = start(tmp_path, steps, 30).summary()
    assert (summary["ok"], summary["failures"], summary["worker_deaths"]) == (29, {"timeout": 1}, 0)
    assert summary["seconds"] < 20
    (late,) = [record for record in read_rows(tmp_path / "out.jsonl") if record["_status"] == "failed"]
    assert late["x"] == 1 and "the function took longer than 1 s" in late["_error"]


def test_what_is_no_json_fails_its_row_with_a_sentence(tmp_path: Path) -> None:
    summary = start(tmp_path, '[[steps]]\nname = "odd"\nfunction = "sample:odd"\n', 2).summary()
    assert summary["failures"] == {"function_error": 2}
    (error, _) = (record["_error"] for record in read_rows(tmp_path / "out.jsonl"))
    assert error.startswith("function_error: step odd: the function returned what is no JSON (")


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("sample:napp", "Step nap: The module sample has no function napp. Did you mean nap?"),
        ("simple:nap", "Step nap: There is no module simple."),
        ("nap", "Step nap: 'nap' names no function. Write module:function"),
    ],
)
def test_a_function_that_is_not_there_is_refused_before_anything_is_read(
    tmp_path: Path, function: str, says: str
) -> None:
    started = start(tmp_path, f'[[steps]]\nname = "nap"\nfunction = "{function}"\n', 3)
    assert started.wait() == 2
    assert says in " ".join(started.err.split())
    assert not (tmp_path / "out.jsonl").exists()


def test_pages_are_fetched_made_text_of_and_summarised(tmp_path: Path) -> None:
    example = ROOT / "examples" / "pages"
    server = subprocess.Popen(
        [sys.executable, str(example / "serve.py"), "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        pages = (example / "pages.jsonl").read_text().replace("http://127.0.0.1:8765", address)
        (tmp_path / "pages.jsonl").write_text(pages)
        started = Run(
            "run", str(tmp_path / "pages.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--job", str(example / "job.toml"),
            "--procs", "2", "--json", "--no-progress",
        )  # fmt: skip
        summary = started.summary()
    finally:
        server.terminate()
        server.wait(10)
        if server.stdout is not None:
            server.stdout.close()
    assert (summary["ok"], summary["failed"]) == (6, 0), started.err
    records = {record["url"].rpartition("/")[2]: record for record in read_rows(tmp_path / "out.jsonl")}
    assert all("html" not in record and record["summary"] for record in records.values())
    text = records["kettle.html"]["text"]
    assert text.startswith("# Harbour kettle") and "[the manual](/manuals/harbour.pdf)" in text
    assert "| Power | 2,200 W |" in text
    for noise in ("dataLayer", "partners", "Imprint", "Log in", "Ten things", "Search"):
        assert all(noise not in record["text"] for record in records.values()), noise
