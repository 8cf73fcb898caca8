"""Pools beside other threads and processes of a program: forked children, late threads, streams left alone."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pools import ASK, children, texts

from engine import Pool

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]
MOCK = {"provider": "mock", "base_url": "mock:latency=30ms", "procs": 1, "max_flows": 10}

BEGIN = """
import os, sys, time, threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from engine import Pool, UsageError, ask
def pool_of(count):
    rows = [str(number) for number in range(count)]
    return Pool(ask("{{ text }}"), rows, provider="mock", base_url="mock:latency=30ms", procs=1, max_flows=10)
"""


def script(folder: Path, code: str) -> tuple[int, str, str]:
    """How a script ends whose temporary files are in ``folder``, where nothing of it may be left."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert [path.name for path in folder.iterdir() if path.name.startswith("engine-")] == []
    return done.returncode, done.stdout, done.stderr


FORKED_IN_A_STREAM = {
    "a process that returns": """
        child = get_context("fork").Process(target=str)
        child.start()
        child.join(20)
        print("child", child.exitcode)
""",
    "an ordinary exit": """
        child = os.fork()
        if child == 0:
            sys.exit(3)
        print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) - 3)
""",
    "a child that closes the pool": """
        child = os.fork()
        if child == 0:
            pool.close()
            os._exit(0)
        print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""",
}


@pytest.mark.parametrize("code", FORKED_IN_A_STREAM.values(), ids=FORKED_IN_A_STREAM)
def test_a_child_forked_while_a_stream_is_open_ends_and_takes_nothing_along(
    tmp_path: Path, code: str
) -> None:
    whole = f"""
pool = pool_of(40)
for number, result in enumerate(pool.stream()):
    if number == 3:{code}
print(pool.status["completed"], pool.retry_failed(), len(pool.run()))
"""
    assert script(tmp_path, whole) == (0, "child 0\n40 [] 40\n", "")


def test_a_forked_child_that_reads_on_or_runs_the_pool_is_told_whose_it_is(tmp_path: Path) -> None:
    code = """
def tried(what):
    try:
        print(what())
    except UsageError as error:
        print(str(error).partition(",")[0].partition(".")[0], flush=True)
pool = pool_of(200)
stream = pool.stream()
next(stream)
if (child := os.fork()) == 0:
    tried(lambda: len(list(stream)))
    tried(pool.run)
    tried(pool.retry_failed)
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
print(len(list(stream)))
"""
    code, out, err = script(tmp_path, code)
    lines = out.splitlines()
    assert lines[0] == "This process was forked while a pool ran"
    assert {line[:56] for line in lines[1:3]} == {"This pool was made in the process that this one was fork"}
    assert (code, lines[3:], err) == (0, ["199"], "")


def test_a_pool_of_processes_may_be_fed_from_a_stream(tmp_path: Path) -> None:
    code = """
with ProcessPoolExecutor(2, mp_context=get_context("fork")) as others, pool_of(20) as pool:
    lengths = [others.submit(len, result.value) for result in pool.stream()]
    print(sum(one.result() > 0 for one in lengths))
"""
    assert script(tmp_path, code) == (0, "20\n", "")


def test_a_pool_that_is_only_made_survives_a_forked_childs_exit(tmp_path: Path) -> None:
    code = """
pool = pool_of(5)
if (child := os.fork()) == 0:
    sys.exit(0)
os.waitpid(child, 0)
print(len(pool.run()))
"""
    assert script(tmp_path, code) == (0, "5\n", "")


LATE = {
    "a thread": "threading.Thread(target=go).start()",
    "a thread of a pool of threads": "ThreadPoolExecutor().submit(go)",
}


@pytest.mark.parametrize("start", LATE.values(), ids=LATE)
def test_a_thread_runs_its_pools_to_the_end_after_the_main_thread(tmp_path: Path, start: str) -> None:
    code = f"""
began = threading.Event()
def go():
    with pool_of(300) as pool:
        done = sum(1 for result in pool.stream() if not began.set())
    print(done)
    print(len(pool_of(20).run()))
{start}
began.wait(30)
"""
    assert script(tmp_path, code) == (0, "300\n20\n", "")


def test_a_stream_that_a_thread_leaves_open_is_ended_with_the_program(tmp_path: Path) -> None:
    code = """
kept = []
def go():
    kept.append(pool_of(100_000).stream())
    print(next(kept[0]).status)
threading.Thread(target=go).start()
"""
    assert script(tmp_path, code) == (0, "ok\n", "")


def test_a_stream_that_was_left_early_on_an_event_loop_is_in_nobodys_way() -> None:
    async def left_early() -> Pool:
        pool = Pool(ASK, texts(60), **MOCK)  # type: ignore[arg-type]
        async for result in pool.astream():
            assert result.ok
            break
        return pool

    async def main() -> None:
        pool = await left_early()
        assert len(await pool.arun()) == 60
        pool = await left_early()
        assert len(pool.run()) == 60  # blocks this loop, and works
        pool = await left_early()
        assert pool.retry_failed() == []
        assert children() == []
        stream = pool.astream()
        await anext(stream)
        with pytest.raises(Exception, match="running already"):
            await pool.arun()  # somebody holds it
        await stream.aclose()
        assert len(await pool.arun()) == 60
        pool.close()

    asyncio.run(main())
