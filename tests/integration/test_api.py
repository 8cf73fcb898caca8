"""The engine from a program: results in order and as they come, pools that go on, and nothing left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from runs import is_alive, until

import engine
from engine import Pool, RowFailed, RunStopped, UsageError, ask, request
from engine.mock.answers import expected_answer
from engine.mock.settings import MockSettings, parse_fault
from engine.mock.spawn import MockProcess

ASK = ask("{{ text }}", model="mock")


def texts(count: int) -> list[str]:
    return [f"row {number} says hello" for number in range(count)]


def provider(latency: str, *faults: str) -> MockProcess:
    return MockProcess(MockSettings(latency=latency, faults=tuple(map(parse_fault, faults))))


def children() -> list[psutil.Process]:
    """The processes that this one has started, but for mock providers of the tests' own."""
    found = psutil.Process().children(recursive=True)
    return [child for child in found if is_alive(child.pid) and "engine.worker" in " ".join(child.cmdline())]


def folders() -> set[str]:
    """The private folders that runs of this process have now."""
    return {path.name for path in Path(tempfile.gettempdir()).glob(f"engine-{os.getpid()}-*")}


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No process, folder or thread of a run outlives its test."""
    before = folders()
    yield
    assert children() == []
    assert folders() <= before
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name in ("engine run", "feed", "writer", "rows")]


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]


def test_results_are_in_the_order_of_the_rows_whatever_the_latencies() -> None:
    with provider("lognormal:30:1.0") as mock, Pool(ASK, texts(600), base_url=mock.base_url, procs=2) as pool:
        results = pool.run()
        assert pool.status == {"total": 600, "completed": 600, "failed": 0, "running": 0, "pending": 0}
    assert [result.index for result in results] == list(range(600))
    assert [result.row for result in results] == texts(600)
    assert [result.value for result in results] == [expected_answer(text) for text in texts(600)]
    assert {result.status for result in results} == {"ok"}
    assert all(result.usage.tokens_in and result.usage.tokens_out for result in results)
    assert all(result.latency_ms and result.attempts == 1 and not result.error for result in results)


def test_one_bad_row_does_not_stop_the_others_and_only_it_is_run_again() -> None:
    bad = "400,match=row 7 "
    rows: list[Any] = [{"text": text} for text in texts(40)]
    rows[11] = {"text": object()}
    with provider("10ms", bad) as mock, Pool(ASK, rows, base_url=mock.base_url, procs=1) as pool:
        results = pool.run()
        failed = [result for result in results if not result.ok]
        assert [(result.index, result.value) for result in failed] == [(7, None), (11, None)]
        assert failed[0].error.startswith("bad_request: ")
        assert failed[1].error.startswith("bad_input: the row cannot be written as JSON")
        assert failed[1].row is rows[11]
        assert pool.status["failed"] == 2
        mock.control({"faults": []})
        before = mock.stats()["requests"]
        again = pool.retry_failed()
        assert [(result.index, result.ok) for result in again] == [(7, True), (11, False)]
        assert again[0].value == expected_answer(texts(40)[7])
        assert mock.stats()["requests"] - before == 1
        assert pool.status == {"total": 40, "completed": 39, "failed": 1, "running": 0, "pending": 0}


def test_failed_rows_of_a_generator_are_run_again_too() -> None:
    bad = "400,match=row 7 "
    with (
        provider("10ms", bad) as mock,
        Pool(ASK, (text for text in texts(20)), base_url=mock.base_url, procs=1) as pool,
    ):
        assert sum(result.ok for result in pool.stream()) == 19
        mock.control({"faults": []})
        assert [(result.index, result.row) for result in pool.retry_failed()] == [(7, texts(20)[7])]
        assert pool.status == {"total": 20, "completed": 20, "failed": 0, "running": 0, "pending": 0}
        assert pool.retry_failed() == []
        with pytest.raises(UsageError, match="can be read only once"):
            pool.run()


def test_a_stream_hands_on_results_while_the_rest_runs() -> None:
    with provider("uniform:20:2000") as mock:
        pool = Pool(ASK, texts(100), base_url=mock.base_url, procs=1, max_flows=100)
        stream = pool.stream()
        first = next(stream)
        early = pool.status
        rest = list(stream)
        pool.close()
    assert early["completed"] and early["completed"] < 50
    assert early["running"] and early["total"] == 100 == sum(early.values()) - 100
    assert {result.index for result in [first, *rest]} == set(range(100))


def test_a_generator_waits_for_results_of_its_earlier_rows() -> None:
    """Rows are sent on as they come: who makes the next one of an answer is not kept waiting."""
    answers: list[str] = []
    come = threading.Event()

    def questions() -> Iterator[str]:
        yield "first"
        assert come.wait(30)
        yield answers[0]

    with Pool(ASK, questions(), provider="mock", base_url="mock:latency=5ms", procs=1) as pool:
        for result in pool.stream():
            answers.append(result.value)
            come.set()
    assert answers == [expected_answer("first"), expected_answer(expected_answer("first"))]


def test_a_million_rows_are_not_listed_and_a_break_leaves_nothing_behind() -> None:
    made = taken = widest = 0

    def rows() -> Iterator[str]:
        nonlocal made, widest
        for number in range(1_000_000):
            made += 1
            widest = max(widest, made - taken)
            yield f"row {number}"

    pool = Pool(
        ASK, rows(), provider="mock", base_url="mock:latency=5ms", procs=1, max_flows=50, read_ahead=300
    )
    for _ in pool.stream():
        taken += 1
        if taken == 2000:
            break
    assert 250 < widest <= 301
    assert made <= 2301
    assert children() == []
    assert pool.status["total"] is None
    pool.close()


def test_what_the_rows_raise_is_raised_where_results_are_read() -> None:
    def rows() -> Iterator[str]:
        yield "one"
        raise ZeroDivisionError("no more rows")

    pool = Pool(ASK, rows(), provider="mock", base_url="mock:latency=5ms", procs=1)
    with pool, pytest.raises(ZeroDivisionError, match="no more rows"):
        pool.run()


def test_fifty_slow_answers_are_fetched_side_by_side() -> None:
    with provider("2.5s") as mock:
        with Pool(ASK, texts(50), base_url=mock.base_url, max_flows=100, procs=2) as pool:
            pool.run()
        stats = mock.stats()
    assert stats["ok"] == 50
    assert stats["last_s"] - stats["first_s"] + 2.5 < 3.0


KILLED = """
import sys
from engine import Pool, ask
rows = ({{"text": f"row {{number}} says hello"}} for number in range(3412))
step = ask("Choose one of: compute, storage, network\\n{{{{ text }}}}", model="mock", into="service")
pool = Pool(step, rows, base_url={base_url!r}, state={state!r}, procs=2, max_flows=64)
for done, result in enumerate(pool.stream(), 1):
    print(done, flush=True)
"""


def test_a_classification_that_was_killed_goes_on_from_its_state(tmp_path: Path) -> None:
    rows = [{"text": text} for text in texts(3412)]
    prompt = "Choose one of: compute, storage, network\n{{ text }}"
    with provider("20ms") as mock:
        state = tmp_path / "state"
        script = KILLED.format(base_url=mock.base_url, state=str(state))
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        while int(process.stdout.readline()) < 1000:
            pass
        workers = psutil.Process(process.pid).children()
        process.kill()
        process.wait()
        process.stdout.close()
        until(lambda: not any(is_alive(worker.pid) for worker in workers), 5.0)
        step = ask(prompt, model="mock", into="service")
        with Pool(step, rows, base_url=mock.base_url, state=state, procs=2) as pool:
            results = pool.run()
        stats = mock.stats()
    assert [result.index for result in results] == list(range(3412))
    assert {result.value for result in results} <= {"compute", "storage", "network"}
    assert [result.row for result in results] == rows
    assert 3412 <= stats["requests"] <= 3412 + 64 + 512  # those that were under way may have been sent twice


def test_a_finished_pool_gives_its_results_again_without_sending_anything(tmp_path: Path) -> None:
    with provider("5ms", "400,match=row 3 ") as mock:
        for _ in range(2):
            with Pool(ASK, texts(30), base_url=mock.base_url, state=tmp_path / "state", procs=1) as pool:
                results = pool.run()
                assert pool.status == {"total": 30, "completed": 29, "failed": 1, "running": 0, "pending": 0}
            assert [result.ok for result in results] == [number != 3 for number in range(30)]
            assert results[5].value == expected_answer(texts(30)[5]) and results[5].attempts == 1
        assert mock.stats()["requests"] == 30
        pool = Pool(ASK, texts(30)[::-1], base_url=mock.base_url, state=tmp_path / "state")
        with pool, pytest.raises(UsageError, match="The input has changed"):
            pool.run()
        assert mock.stats()["requests"] == 30


def test_the_first_failure_is_raised_where_that_is_asked_for() -> None:
    bad = "400,match=row 7 "
    with provider("20ms", bad) as mock:
        pool = Pool(ASK, texts(5000), base_url=mock.base_url, procs=1, max_flows=20, on_error="raise")
        with pool, pytest.raises(RowFailed, match="Row 7 failed: bad_request") as caught:
            pool.run()
        assert caught.value.result.row == texts(8)[7]
        assert mock.stats()["requests"] < 1000


def test_an_endpoint_that_will_not_serve_stops_the_run() -> None:
    with provider("0ms", "401=1") as mock:
        pool = Pool(ASK, texts(100), base_url=mock.base_url, procs=1)
        with pool, pytest.raises(RunStopped, match="The run stopped"):
            pool.run()


def test_a_column_that_no_row_has_is_refused_before_anything_is_sent() -> None:
    with MockProcess() as mock:
        pool = Pool(ask("{{ txet }}", model="mock"), texts(3), base_url=mock.base_url)
        with pool, pytest.raises(UsageError, match="The template names 'txet'"):
            pool.run()
        assert mock.stats()["requests"] == 0


def test_a_plain_request_gives_the_page() -> None:
    with MockProcess() as mock:
        step = request(mock.origin + "/stats?{{ value }}", method="GET", select="requests")
        with Pool(step, [1, 2, 3], procs=1) as pool:
            results = pool.run()
    assert [result.value for result in results] == [0, 0, 0]
    assert [result.row for result in results] == [1, 2, 3]


def test_a_schemas_properties_are_the_value() -> None:
    schema = {"type": "object", "properties": {"label": {"type": "string"}, "sure": {"type": "boolean"}}}
    schema["required"] = ["label", "sure"]
    step = ask("{{ text }}", model="mock", schema=schema)
    with Pool(step, ["good"], provider="mock", base_url="mock:latency=1ms", procs=1) as pool:
        (result,) = pool.run()
    assert set(result.value) == {"label", "sure"} and isinstance(result.value["sure"], bool)


def test_both_ways_work_on_a_running_event_loop() -> None:
    async def main() -> tuple[list[engine.Result], list[int], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        with provider("300ms") as mock:
            async with asyncio.timeout(60):
                pool = Pool(ASK, texts(30), base_url=mock.base_url, procs=1)
                results = await pool.arun()
                pool.close()
                other = Pool(ASK, texts(20), base_url=mock.base_url, procs=1)
                streamed = [result.index async for result in other.astream()]
                assert len(other.run()) == 20  # blocks this loop, and works
                other.close()
        ticking.cancel()
        return results, streamed, ticks

    results, streamed, ticks = asyncio.run(main())
    assert [result.index for result in results] == list(range(30))
    assert sorted(streamed) == list(range(20))
    assert ticks > 20


def test_a_cancelled_stream_drains_its_run() -> None:
    async def main() -> None:
        with provider("100ms") as mock:
            pool = Pool(ASK, texts(100_000), base_url=mock.base_url, procs=1, max_flows=20)
            task = asyncio.create_task(pool.arun())
            while not pool.status["completed"]:
                await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert children() == []
            stats = mock.stats()
            assert stats["requests"] == stats["ok"]  # those in flight have ended
            pool.close()

    asyncio.run(main())


SCRIPT = """
import engine
pool = engine.Pool(engine.ask("{{ text }}"), ["a", "b"], provider="mock", base_url="mock:latency=5ms", procs=2)
print([result.status for result in pool.run()])
"""


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"['ok', 'ok']", b"")


LEFT = """
import engine
pool = engine.Pool(engine.ask("{{ text }}"), map(str, range(10**6)), provider="mock", base_url="mock:latency=5ms", procs=1)
stream = pool.stream()
print(next(stream).status, flush=True)
raise SystemExit(7)
"""


def test_a_script_that_ends_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", LEFT], env=environment, cwd=tmp_path, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (7, b"ok", b"")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("engine-")] == []


INTERRUPTED = """
from engine import Pool, ask
rows = [str(number) for number in range(100_000)]
pool = Pool(ask("{{{{ text }}}}", model="mock"), rows, base_url={base_url!r}, state="state", procs=1, max_flows=20)
try:
    for result in pool.stream():
        print(result.index, flush=True)
except KeyboardInterrupt:
    print("interrupted", pool.status["completed"], flush=True)
    raise
"""


def test_an_interrupt_drains_and_what_was_done_is_kept(tmp_path: Path) -> None:
    with provider("200ms") as mock:
        script = INTERRUPTED.format(base_url=mock.base_url)
        process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert time.monotonic() - began < 5
        stats = mock.stats()
    assert b"KeyboardInterrupt" in err and process.returncode in (1, -signal.SIGINT, 130)
    assert int(out.split()[-1]) == stats["ok"] == stats["requests"]


def test_one_run_of_a_pool_at_a_time() -> None:
    pool = Pool(ASK, texts(10), provider="mock", base_url="mock:latency=5ms", procs=1)
    stream = pool.stream()
    next(stream)
    with pytest.raises(UsageError, match="running already"):
        pool.run()
    pool.close()
    with pytest.raises(RunStopped):
        list(stream)
    with pytest.raises(UsageError, match="closed"):
        pool.run()
