"""How many threads there are: few where a function computes, many where it waits."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from engine.worker import threads as module
from engine.worker.threads import THREADS_FIRST, THREADS_MAX, THREADS_MIN, Threads, Work


def on_loop(scene: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await scene()

    asyncio.run(main())


class Clocks:
    """A process that uses ``cores`` while time passes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.used = 100.0
        monkeypatch.setattr(module, "monotonic", lambda: self.now)
        monkeypatch.setattr(module, "process_time", lambda: self.used)

    def passed(self, cores: float) -> None:
        self.now += 0.25
        self.used += 0.25 * cores


def test_threads_grow_while_work_waits_and_the_process_has_time_to_spare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene() -> None:
        clocks, go = Clocks(monkeypatch), threading.Event()
        pool = Threads(lambda _: go.wait(20))
        for _ in range(100):
            pool.start(Work(None, lambda result: None))
        limits = [pool.limit]
        for cores in (0.1, 0.4, 0.7, 0.1, 0.1):
            clocks.passed(cores)
            pool.adapt()
            limits.append(pool.limit)
        assert limits == [THREADS_FIRST, 8, 16, 16, THREADS_MAX, THREADS_MAX]
        assert len(pool._threads) == THREADS_MAX
        for cores in (0.95, 1.5, 1.0, 1.0, 1.0, 1.0):
            clocks.passed(cores)
            pool.adapt()
        assert pool.limit == THREADS_MIN
        go.set()
        while len(pool._threads) > THREADS_MIN or pool._open:
            await asyncio.sleep(0.005)
        pool.close()

    on_loop(scene)


def test_without_work_that_waits_there_is_no_thread_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        clocks = Clocks(monkeypatch)
        pool = Threads(lambda arguments: arguments)
        assert not pool._threads
        ended: list[int] = []
        pool.start(Work(7, ended.append))
        while not ended:
            await asyncio.sleep(0.005)
        clocks.passed(0.0)
        pool.adapt()
        assert (ended, pool.limit, len(pool._threads)) == ([7], THREADS_FIRST, 1)
        pool.close()

    on_loop(scene)
