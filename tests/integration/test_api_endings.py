"""However a pool's run ends, nothing of it is left, and nothing that was done is lost."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pools import ASK, children, provider, texts
from runs import is_alive, until

from engine import Pool, RowFailed, RunStopped, UsageError, ask, enrich
from engine.mock.spawn import MockProcess

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]


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


def revoke_after(mock: MockProcess, count: int) -> threading.Thread:
    """Refuse the key once so many calls were answered."""

    def revoke() -> None:
        until(lambda: mock.stats()["ok"] >= count, 30.0)
        mock.control({"faults": ["401=1"]})

    thread = threading.Thread(target=revoke)
    thread.start()
    return thread


def enriched(base_url: str, **settings: Any) -> Any:
    frame = pytest.importorskip("pandas").DataFrame({"text": texts(3000)})
    return enrich(frame, prompt="{{ text }}", model="mock", base_url=base_url, **settings)


def of_an_iterator(base_url: str, **settings: Any) -> Any:
    with Pool(ASK, iter(texts(3000)), base_url=base_url, **settings) as pool:
        return pool.run()


@pytest.mark.parametrize("begin", [enriched, of_an_iterator])
def test_what_was_paid_for_before_a_run_stopped_comes_with_the_exception(begin: Callable[..., Any]) -> None:
    with provider("50ms") as mock:
        thread = revoke_after(mock, 200)
        with pytest.raises(RunStopped, match=r"in \.results of this exception; with state=") as caught:
            begin(mock.base_url, procs=1, max_flows=20)
        thread.join()
        done = [result for result in caught.value.results if result.ok]
        assert 200 <= len(done) == mock.stats()["ok"]
    assert [
        result.row if isinstance(result.row, str) else result.row["text"] for result in done[:5]
    ] == texts(5)


def test_a_pool_in_hand_goes_on_after_its_run_stopped_and_says_so() -> None:
    with provider("50ms") as mock:
        thread = revoke_after(mock, 100)
        with Pool(ASK, texts(600), base_url=mock.base_url, procs=1, max_flows=20) as pool:
            with pytest.raises(RunStopped, match="run\\(\\) of this pool goes on"):
                pool.run()
            thread.join()
            mock.control({"faults": []})
            assert len(pool.run()) == 600
            assert mock.stats()["ok"] == 600


def test_the_rows_that_were_done_come_with_the_first_failure() -> None:
    with provider("20ms", "400,match=row 70 ") as mock:
        with pytest.raises(RowFailed) as caught:
            of_an_iterator(mock.base_url, procs=1, max_flows=20, on_error="raise")
        assert len([result for result in caught.value.results if result.ok]) == mock.stats()["ok"] >= 50


def test_what_came_before_a_generator_raised_is_with_what_it_raised() -> None:
    def rows() -> Iterator[str]:
        yield from texts(200)
        until(lambda: pool.status["completed"], 20.0)
        raise ZeroDivisionError("no more rows")

    pool = Pool(ASK, rows(), provider="mock", base_url="mock:latency=5ms", procs=1)
    with pool, pytest.raises(ZeroDivisionError) as caught:
        pool.run()
    count = pool.status["completed"]
    assert count and len(caught.value.results) == count  # type: ignore[attr-defined]
    assert f"{count} results had come by then" in caught.value.__notes__[0]


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


def test_running_the_failed_rows_again_may_be_interrupted_and_gone_on_with() -> None:
    bad = "400,match=says"
    with provider("100ms", bad) as mock:
        pool = Pool(ASK, iter(texts(60)), base_url=mock.base_url, procs=1, max_flows=5, on_error="keep")
        assert not any(result.ok for result in pool.stream())
        mock.control({"faults": []})

        def interrupt() -> None:
            until(lambda: pool.status["completed"])
            assert pool._running is not None
            pool._running.stop()

        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        with pytest.raises(RunStopped, match="interrupted"):
            pool.retry_failed()
        interrupter.join()
        assert {result.ok for result in pool.retry_failed()} == {True}
        assert pool.status == {"total": 60, "completed": 60, "failed": 0, "running": 0, "pending": 0}
        pool.close()
