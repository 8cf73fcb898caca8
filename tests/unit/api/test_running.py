"""A run in its thread, seen from its user: records, ends, interrupts. The run itself is a stand-in."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jobs import job

from engine.api import running as module
from engine.api.running import Running
from engine.core.commit import Counts
from engine.core.errors import UsageError
from engine.handover import Surroundings
from engine.observe.progress import Silent
from engine.observe.summary import Summary
from engine.rows import RowsSource


class Session:
    """Counts interrupts; ``drains`` after the first, ends after the second."""

    def __init__(self, over: asyncio.Event, *, drains: bool) -> None:
        self.interrupts = 0
        self._over, self._drains = over, drains
        self.metrics = SimpleNamespace(ok=3, failed=1)
        self.supervisor = SimpleNamespace(children=[SimpleNamespace(busy=2), SimpleNamespace(busy=5)])

    def interrupt(self) -> None:
        self.interrupts += 1
        if self._drains or self.interrupts == 2:
            self._over.set()


Body = Callable[[Running, Session, asyncio.Event], Any]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a run that does as ``body`` says, on a loop of its own, once its session has begun."""
    started: list[Running] = []

    def make(body: Body, *, drains: bool = True) -> Running:
        def run_job(job: Any, auth: Any, progress: Any, caller: Running) -> Summary:
            async def serve() -> None:
                over = asyncio.Event()
                session = Session(over, drains=drains)
                caller.session = session  # type: ignore[attr-defined]
                caller.began(session, ("answer",), Counts(10, {"timeout": 2}, 0, 0, 0))  # type: ignore[arg-type]
                await body(caller, session, over)

            asyncio.run(serve())
            return Summary()

        monkeypatch.setattr(module, "run_job", run_job)
        source = RowsSource([], ahead_max=1, row_bytes_max=1)
        one = job(state=str(tmp_path))
        running = Running(one, (), source, surroundings=Surroundings(), show=Silent)
        started.append(running)
        return running

    yield make
    for running in started:
        running._thread.join(10)
        assert not running._thread.is_alive()


async def until_stopped(running: Running, session: Session, over: asyncio.Event) -> None:
    await over.wait()


def test_records_come_in_the_order_they_were_handed_and_then_nothing(start: Any) -> None:
    async def body(running: Running, session: Session, over: asyncio.Event) -> None:
        running.hand([(1, b"one")])
        running.hand([(0, b"zero"), (2, b"two")])

    running = start(body)
    assert [running.take() for _ in range(3)] == [[(1, b"one")], [(0, b"zero"), (2, b"two")], None]
    assert running.answers == ("answer",) and running.summary == Summary() and running.error is None


def test_records_can_be_awaited(start: Any) -> None:
    go = threading.Event()

    async def body(running: Running, session: Session, over: asyncio.Event) -> None:
        await asyncio.to_thread(go.wait, 10)
        running.hand([(0, b"zero")])

    async def main() -> list[Any]:
        running = start(body)
        waiting = asyncio.create_task(running.take_soon())
        await asyncio.sleep(0)
        go.set()
        return [await waiting, await running.take_soon(), await running.take_soon()]

    assert asyncio.run(main()) == [[(0, b"zero")], None, None]


def test_closing_drains_and_waits_for_the_end(start: Any) -> None:
    running = start(until_stopped)
    assert running.counts()[2] in (0, 7)
    running.close()
    assert running.session.interrupts == 1 and running.is_over
    assert running.counts() == (13, 3, 0)
    running.close()
    assert running.session.interrupts == 1


def test_an_interrupt_while_it_drains_ends_it_at_once(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    running = start(until_stopped, drains=False)
    joins: list[int] = []
    join = running._join

    def interrupted() -> None:
        joins.append(1)
        if len(joins) == 1:
            raise KeyboardInterrupt
        join()

    monkeypatch.setattr(running, "_join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        running.close()
    assert running.is_over and running.session.interrupts == 2


def test_a_cancelled_drain_ends_it_at_once(start: Any) -> None:
    async def main() -> None:
        running = start(until_stopped, drains=False)
        closing = asyncio.create_task(running.close_soon())
        while not getattr(running, "session", None) or not running.session.interrupts:
            await asyncio.sleep(0.001)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert running.is_over and running.session.interrupts == 2

    asyncio.run(main())


def test_a_stop_before_it_has_begun_counts_as_well(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hold, began = threading.Event(), Running.began

    def late(self: Running, *arguments: Any) -> None:
        assert hold.wait(10)
        began(self, *arguments)

    monkeypatch.setattr(Running, "began", late)
    running = start(until_stopped)
    running.stop()
    hold.set()
    assert running.take() is None
    assert running.session.interrupts == 1


def test_a_forked_child_waits_for_nothing_and_is_told_whose_the_run_is(start: Any) -> None:
    running = start(until_stopped)
    running.hand([(0, b"zero")])
    child = os.fork()
    if child == 0:
        running._lock.acquire()  # as another thread of the parent may have had it
        running.leave()
        running.close()
        ok = running.take() is None and isinstance(running.error, UsageError) and running.is_anothers
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert running.take() == [(0, b"zero")]
    running.close()


def test_what_ends_the_run_is_kept_for_whoever_waits(start: Any) -> None:
    async def body(running: Running, session: Session, over: asyncio.Event) -> None:
        raise UsageError("not like this")

    running = start(body)
    assert running.take() is None
    assert isinstance(running.error, UsageError) and running.summary is None
