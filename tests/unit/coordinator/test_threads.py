"""A run's own threads."""

import asyncio
import subprocess
import sys
import threading

import pytest

from engine.coordinator.threads import OwnThreads

LATE = """
import asyncio, threading
from engine.coordinator.threads import OwnThreads
main = threading.main_thread()
async def run():
    loop = asyncio.get_running_loop()
    loop.set_default_executor(OwnThreads())
    print(await loop.run_in_executor(None, str.upper, "done"))
def late():
    main.join()
    asyncio.run(run())
threading.Thread(target=late).start()
"""


def test_calls_run_side_by_side_and_threads_that_are_idle_are_used_again() -> None:
    threads = OwnThreads()
    both = threading.Barrier(2, timeout=10)
    first = [threads.submit(both.wait) for _ in range(2)]
    assert sorted(one.result(10) for one in first) == [0, 1]
    names = set()
    for _ in range(5):
        names.add(threads.submit(threading.get_ident).result(10))
    assert len(threads._own) == 2 and len(names) <= 2
    threads.shutdown()


def test_what_a_call_raises_is_raised_where_it_is_waited_for() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(OwnThreads())
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 // 0)

    asyncio.run(main())


def test_the_end_waits_for_what_was_begun() -> None:
    threads, go, done = OwnThreads(), threading.Event(), threading.Event()
    threads.submit(lambda: go.wait(10) and done.set())
    threading.Timer(0.01, go.set).start()
    threads.shutdown()
    assert done.is_set()


def test_they_work_on_when_the_main_thread_has_ended() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("DONE\n", "")
