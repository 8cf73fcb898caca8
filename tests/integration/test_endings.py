"""How runs end when what is around them is slow, leaves, or kills: pipes, readers, interrupts, deadly rows."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import Run, ask_flags, is_alive, read_rows, until, write_rows

from engine.mock.settings import MockSettings, parse_fault
from engine.mock.spawn import MockProcess
from engine.observe.live import read_live

pytestmark = pytest.mark.slow


def piped(mock: MockProcess, *more: str) -> "subprocess.Popen[bytes]":
    """A run from standard input to standard output, both ours."""
    flags = (
        "--base-url",
        mock.base_url,
        "--model",
        "m",
        "--prompt",
        "{{ text }}",
        "--procs",
        "2",
        "--no-progress",
    )
    return subprocess.Popen(
        [sys.executable, "-m", "engine", "run", "-", "-o", "-", "--input-format", "jsonl", *flags, *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_rows_of_a_slow_producer_are_answered_as_they_come(tmp_path: Path) -> None:
    with MockProcess() as mock, piped(mock) as started:
        assert started.stdin is not None and started.stdout is not None
        for number in range(3):
            started.stdin.write(b'{"text": "row %d"}\n' % number)
            started.stdin.flush()
            # The answer comes although the input has not ended.
            assert json.loads(started.stdout.readline())["text"] == f"row {number}"
        _, err = started.communicate(timeout=20)
    assert started.returncode == 0
    assert b"3 rows: 3 ok" in err


def test_an_interrupt_ends_a_run_whose_input_hangs(tmp_path: Path) -> None:
    with MockProcess() as mock, piped(mock) as started:
        assert started.stdin is not None and started.stdout is not None
        started.stdin.write(b'{"text": "a"}\n')
        started.stdin.flush()
        started.stdout.readline()
        started.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert started.wait(20) == 4
        assert time.monotonic() - began < 5.0
        assert started.stderr is not None
        assert b"Fatal" not in started.stderr.read()


def test_a_reader_that_leaves_ends_the_run_at_once(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", 5000)
    with MockProcess(MockSettings(latency="300ms")) as mock:
        flags = ask_flags(mock.base_url, source, Path("-"), "--in-flight", "20")
        with subprocess.Popen(
            [sys.executable, "-m", "engine", *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as started:
            assert started.stdout is not None
            started.stdout.readline()
            started.stdout.close()
            began = time.monotonic()
            assert started.wait(20) == 4
            assert time.monotonic() - began < 3.0
            assert started.stderr is not None
            assert b"nobody reads" in started.stderr.read()
        assert mock.stats()["requests"] < 500


def test_more_workers_than_the_first_calls_may_be_still_do_every_row(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 60), tmp_path / "out.jsonl"
    bad = parse_fault("400,match=row 1")  # the first answers are refusals: no success opens the gate for long
    with MockProcess(MockSettings(faults=(bad,))) as mock:
        summary = Run(*ask_flags(mock.base_url, source, output, "--procs", "20")).summary()
    assert (summary["rows"], summary["ok"], summary["open"]) == (60, 49, 0)


def test_a_row_that_kills_its_workers_fails_alone(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 120), tmp_path / "out.jsonl"
    deadly = parse_fault("hang,match=row 57 says")  # while its request is held, we kill its worker
    with MockProcess(MockSettings(latency="20ms", faults=(deadly,))) as mock:
        started = Run(*ask_flags(mock.base_url, source, output, "--procs", "2", "--in-flight", "8", "--meta"))
        deaths = 0
        while kill_the_worker_that_waits(started, mock):
            deaths += 1
        summary = started.summary()
    assert deaths >= 3
    assert summary["failures"] == {"poison": 1}
    assert (summary["ok"], summary["worker_deaths"]) == (119, deaths)
    records = read_rows(output)
    assert [record["id"] for record in records] == list(range(120))
    assert records[57]["_error"].startswith("poison")


def kill_the_worker_that_waits(started: Run, mock: MockProcess) -> bool:
    """Once nothing but the stalled call is under way, kill whoever waits for it. False when the run is over."""
    live: dict[str, list[dict[str, int]]] = {}

    def stuck() -> bool:
        if started.is_over():
            return True
        view = read_live(Path(f"{started.output}.run")) or {}
        alive = {child.pid for child in started.children("engine.worker")}  # the view may be a second old
        live["workers"] = [
            worker for worker in view.get("workers", []) if worker["in_flight"] and worker["pid"] in alive
        ]
        return mock.stats()["in_flight"] == 1 and len(live["workers"]) == 1

    until(stuck, 40.0)
    if started.is_over():
        return False
    pid = live["workers"][0]["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid))
    return True


def test_fewer_rows_than_were_done_before_give_an_output_of_so_many(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 40), tmp_path / "out.jsonl"
    with MockProcess() as mock:
        for rows in (30, 10, 35):
            assert Run(*ask_flags(mock.base_url, source, output, "--rows", str(rows))).wait() == 0
            assert [record["id"] for record in read_rows(output)] == list(range(rows))
        assert Run(*ask_flags(mock.base_url, source, output)).wait() == 0
        assert mock.stats()["requests"] == 40
    assert len(read_rows(output)) == 40


def test_a_retry_sends_the_same_headers_and_no_more_rows_than_the_run(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 40), tmp_path / "out.jsonl"
    bad = parse_fault("400,match=row 5 says")
    with MockProcess(MockSettings(api_key="canary-1", faults=(bad,))) as mock:
        url = mock.base_url.removesuffix("/v1") + "/v1/chat/completions"
        body = '{"model": "m", "messages": [{"role": "user", "content": "{{ text }}"}]}'
        first = Run(
            "run", str(source), "-o", str(output), "--provider", "http", "--url", url, "--body", body,
            "--header", "Authorization: Bearer ${MY_TOKEN}", "--rows", "20", "--json", "--no-progress",
            environment={"MY_TOKEN": "canary-1"},
        )  # fmt: skip
        assert first.summary()["failures"] == {"bad_request": 1}
        mock.control({"faults": []})
        again = Run("retry", str(output), "--json", "--no-progress", environment={"MY_TOKEN": "canary-1"})
        assert again.summary()["ok"] == 20
        assert mock.stats()["requests"] == 21
    assert len(read_rows(output)) == 20
