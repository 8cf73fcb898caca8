"""Whole runs: every row once, in order, with its own answer, whatever happens."""

import json
import signal
from pathlib import Path

import pytest
from runs import Run, ask_flags, is_alive, read_rows, run, until, write_rows

from engine.mock.answers import expected_answer
from engine.mock.settings import MockSettings, QuotaSettings, parse_fault
from engine.mock.spawn import MockProcess

pytestmark = pytest.mark.slow


def assert_whole(output: Path, count: int) -> None:
    """Every row once, in order, with the answer to its own prompt."""
    records = read_rows(output)
    assert [record["id"] for record in records] == list(range(count))
    for record in records:
        assert record["_status"] == "ok", record
        assert record["response"] == expected_answer(record["text"])


def test_every_row_gets_its_own_answer_once_and_in_order(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 1500), tmp_path / "out.jsonl"
    with MockProcess(MockSettings(latency="lognormal:30:0.5")) as mock:
        started = Run(*ask_flags(mock.base_url, source, output, "--procs", "3"))
        summary = started.summary()
        stats = mock.stats()
    assert started.wait() == 0
    assert_whole(output, 1500)
    assert (summary["rows"], summary["ok"], summary["failed"], summary["in_doubt"]) == (1500, 1500, 0, 0)
    assert stats["requests"] == summary["requests"] == 1500
    assert stats["replies_repeated"] == 0


def test_the_whole_run_stays_under_its_rpm_and_uses_it(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 1500), tmp_path / "out.jsonl"
    exact = QuotaSettings(kind="sliding", rpm=12_000)
    second = QuotaSettings(kind="second", rpm=12_000, tolerance=0.1)
    with MockProcess(MockSettings(latency="50ms", quota=(exact, second))) as mock:
        summary = Run(*ask_flags(mock.base_url, source, output, "--procs", "4", "--rpm", "12000")).summary()
        stats = mock.stats()
    assert stats["throttled"] == summary["throttled"] == 0
    assert stats["max_in_clock_second"] <= 220
    assert stats["requests"] / (stats["last_s"] - stats["first_s"]) > 0.9 * 200
    assert_whole(output, 1500)


def test_a_token_limit_holds_as_well(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 500), tmp_path / "out.jsonl"
    limit = QuotaSettings(kind="second", tpm=600_000, tolerance=0.1)
    with MockProcess(MockSettings(latency="20ms", quota=(limit,))) as mock:
        flags = ask_flags(
            mock.base_url, source, output, "--procs", "2", "--tpm", "600000", "--max-tokens", "100"
        )
        summary = Run(*flags).summary()
        stats = mock.stats()
    assert (stats["throttled"], summary["ok"]) == (0, 500)
    assert stats["max_tokens_in_1s"] <= 11_000


def test_a_killed_coordinator_leaves_no_orphan_and_the_same_command_goes_on(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 1200), tmp_path / "out.jsonl"
    with MockProcess(MockSettings(latency="100ms")) as mock:
        flags = ask_flags(mock.base_url, source, output, "--procs", "2", "--rpm", "18000")
        first = Run(*flags)
        until(lambda: mock.stats()["ok"] > 400)
        children = first.children()
        first.kill(signal.SIGKILL)
        first.wait()
        until(lambda: not any(is_alive(child.pid) for child in children), 2.0)
        assert not output.exists()
        summary = Run(*flags).summary()
        stats = mock.stats()
    assert_whole(output, 1200)
    assert summary["resumed"] > 200
    repeated = stats["requests"] - 1200
    assert repeated <= summary["in_doubt"]
    assert summary["in_doubt"] < 400


def test_a_killed_worker_is_replaced_and_no_row_is_lost(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 1500), tmp_path / "out.jsonl"
    with MockProcess(MockSettings(latency="100ms")) as mock:
        started = Run(*ask_flags(mock.base_url, source, output, "--procs", "3", "--rpm", "18000"))
        for goal in (100, 400, 800):
            until(lambda goal=goal: mock.stats()["ok"] > goal and started.children("engine.worker"))
            started.children("engine.worker")[0].kill()
        summary = started.summary()
    assert_whole(output, 1500)
    assert summary["worker_deaths"] == 3
    assert summary["in_doubt"] > 0


def test_a_killed_limiter_is_restarted_and_the_limit_holds(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 1200), tmp_path / "out.jsonl"
    limit = QuotaSettings(kind="second", rpm=12_000, tolerance=0.1)
    with MockProcess(MockSettings(latency="50ms", quota=(limit,))) as mock:
        started = Run(*ask_flags(mock.base_url, source, output, "--procs", "3", "--rpm", "12000"))
        for goal in (200, 600):
            until(lambda goal=goal: mock.stats()["ok"] > goal and started.children("engine.limiter"))
            started.children("engine.limiter")[0].kill()
        summary = started.summary()
        stats = mock.stats()
    assert_whole(output, 1200)
    assert stats["throttled"] == 0
    assert summary["ok"] == 1200


def test_ctrl_c_lets_calls_end_and_the_same_command_goes_on(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 1000), tmp_path / "out.jsonl"
    with MockProcess(MockSettings(latency="100ms")) as mock:
        flags = ask_flags(mock.base_url, source, output, "--procs", "2", "--rpm", "18000")
        first = Run(*flags)
        until(lambda: mock.stats()["ok"] > 200)
        first.kill(signal.SIGINT)
        summary = first.summary()
        assert first.wait() == 4
        assert summary["in_doubt"] == 0
        assert not output.exists()
        again = Run(*flags).summary()
        stats = mock.stats()
    assert again["resumed"] == summary["ok"]
    assert stats["requests"] == 1000
    assert_whole(output, 1000)


def test_trouble_of_every_kind_is_retried_and_ends_well(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 300), tmp_path / "out.jsonl"
    names = ("500", "503", "429", "html502", "reset", "truncate", "malformed", "stale")
    faults = tuple(parse_fault(f"{name}=0.03,attempts=1") for name in names)
    with MockProcess(MockSettings(latency="10ms", faults=faults)) as mock:
        summary = Run(*ask_flags(mock.base_url, source, output, "--procs", "2")).summary()
    assert summary["failed"] == 0
    assert summary["retries"] > 0
    assert_whole(output, 300)


def test_a_retried_call_keeps_its_idempotency_key_and_every_row_has_its_own(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 30), tmp_path / "out.jsonl"
    with MockProcess(MockSettings(log=True, faults=(parse_fault("500,attempts=1"),))) as mock:
        Run(*ask_flags(mock.base_url, source, output, "--procs", "2")).summary()
        records = mock.log()
    keys = {record["row"]: set() for record in records}
    for record in records:
        keys[record["row"]].add(record["key"])
    assert len(records) == 60
    assert all(len(found) == 1 for found in keys.values())
    assert len({key for found in keys.values() for key in found}) == 30


def test_what_cannot_pass_is_not_retried_and_keeps_its_place(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 50), tmp_path / "out.jsonl"
    faults = (parse_fault("400,match=row 7 says"), parse_fault("content_filter_400,match=row 9 says"))
    with MockProcess(MockSettings(faults=faults)) as mock:
        started = Run(*ask_flags(mock.base_url, source, output, "--procs", "2"))
        summary = started.summary()
        stats = mock.stats()
    assert started.wait() == 1
    assert summary["failures"] == {"bad_request": 1, "content_refused": 1}
    assert stats["requests"] == 50
    records = read_rows(output)
    assert records[7]["_error"].startswith("bad_request: ")
    assert records[7]["response"] is None
    assert records[9]["_error"].startswith("content_refused: ")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("401", "unauthorised"), ("insufficient_quota", "quota_exhausted"), ("404", "not_found")],
)
def test_a_refused_key_a_spent_quota_or_a_wrong_model_stops_the_run_with_open_rows(
    tmp_path: Path, fault: str, kind: str
) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 200), tmp_path / "out.jsonl"
    with MockProcess(MockSettings(faults=(parse_fault(fault),))) as mock:
        flags = ask_flags(mock.base_url, source, output, "--procs", "2")
        started = Run(*flags)
        summary = started.summary()
        assert summary["exit_code"] == 3
        assert f"({kind})" in started.out
        assert (summary["ok"], summary["failed"]) == (0, 0)
        assert mock.stats()["requests"] <= 40  # sixteen at once, until five were refused
        mock.control({"faults": []})
        assert Run(*flags).summary()["ok"] == 200
    assert_whole(output, 200)


def test_bad_lines_fail_alone_with_their_line_number(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b'{"text": "a"}\n\nnot json\n\xff\xfe\n[1]\n{"text": "b"}\r\n')
    with MockProcess() as mock:
        summary = Run(*ask_flags(mock.base_url, source, output)).summary()
    assert (summary["ok"], summary["failures"]) == (2, {"bad_input": 3})
    errors = [record["_error"] for record in read_rows(output)]
    assert "line 3" in errors[1]
    assert "line 4" in errors[2]
    assert "line 5" in errors[3]


def test_standard_input_streams_to_standard_output(tmp_path: Path) -> None:
    rows = b"".join(b'{"text": "row %d"}\n' % number for number in range(50))
    with MockProcess() as mock:
        started = Run(
            "run", "-", "-o", "-", "--base-url", mock.base_url, "--model", "m", "--prompt", "{{ text }}",
            "--no-progress", stdin=rows,
        )  # fmt: skip
        assert started.wait() == 0
    records = [json.loads(line) for line in started.out.splitlines()]
    assert sorted(record["text"] for record in records) == sorted(f"row {number}" for number in range(50))
    assert "50 rows: 50 ok" in started.err


def test_a_second_run_on_the_same_output_is_refused(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 400), tmp_path / "out.jsonl"
    with MockProcess(MockSettings(latency="200ms")) as mock:
        flags = ask_flags(mock.base_url, source, output, "--rpm", "6000")
        first = Run(*flags)
        until(lambda: mock.stats()["requests"] > 20)
        second = run(*flags)
        assert second.wait() == 2
        assert "another" in second.err.lower() or "running" in second.err.lower()
        first.kill(signal.SIGINT)
        first.wait()


def test_status_and_export_work_on_a_running_run_and_retry_on_a_finished_one(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 600), tmp_path / "out.jsonl"
    bad = parse_fault("400,match=row 5 says")
    with MockProcess(MockSettings(latency="100ms", faults=(bad,))) as mock:
        first = Run(*ask_flags(mock.base_url, source, output, "--rpm", "12000", "--procs", "2"))
        until(lambda: mock.stats()["ok"] > 200)
        until(lambda: (tmp_path / "out.jsonl.run" / "live.json").exists())
        status = json.loads(run("status", str(output), "--json").out)
        assert status["state"] == "running"
        assert len(status["live"]["workers"]) == 2
        partial = tmp_path / "partial.csv"
        assert run("export", str(output), "-o", str(partial)).wait() == 0
        assert partial.read_text().startswith("id,text,response,_status,_error")
        assert first.summary()["failed"] == 1
        mock.control({"faults": []})
        assert Run("retry", str(output), "--json", "--no-progress").summary()["ok"] == 600
        status = json.loads(run("status", str(output), "--json").out)
    assert (status["state"], status["failed"]) == ("finished", 0)
    assert_whole(output, 600)


def test_the_key_is_in_no_artefact_no_argument_and_no_environment_of_a_child(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 300), tmp_path / "out.jsonl"
    canary = "sk-canary-7f3a9"
    with MockProcess(MockSettings(latency="50ms", api_key=canary)) as mock:
        started = Run(
            *ask_flags(mock.base_url, source, output, "--rpm", "6000"), environment={"OPENAI_API_KEY": canary}
        )
        until(lambda: mock.stats()["ok"] > 20)
        for child in started.children("engine."):
            assert canary not in " ".join(child.cmdline())
            assert canary not in str(child.environ())
        assert started.summary()["ok"] == 300
    found = [path for path in tmp_path.rglob("*") if path.is_file() and canary.encode() in path.read_bytes()]
    assert not found
    assert canary not in started.out + started.err


def test_the_state_is_private_whatever_the_umask(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 10), tmp_path / "out.jsonl"
    with MockProcess() as mock:
        Run(*ask_flags(mock.base_url, source, output)).summary()
    folder = tmp_path / "out.jsonl.run"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
