"""The loop of jobs of several steps, without a coordinator: what is told before what is begun."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs import job

from engine.config import StepPlan, StepSettings
from engine.core.model import Target
from engine.handover import WorkerSettings
from engine.wire.messages import (
    Drain,
    Lease,
    Message,
    Outcomes,
    Released,
    RowLine,
    StepLine,
    Terms,
    Trying,
    Tune,
    Welcome,
)
from engine.worker import chainloop, loop
from engine.worker.chainloop import ChainWorker

SOURCE = """
TOLD = []  # of the messages that were sent, as they are when a function is called

def first(x):
    TOLD.append(("first", list(SENT)))
    return x + 1

def second(first):
    TOLD.append(("second", list(SENT)))
    return first + 1
"""


class FakeSpoke:
    """Keeps what the worker sends."""

    def __init__(self, *_: object, **__: object) -> None:
        self.sent: list[Message] = []

    def send(self, message: Message) -> bool:
        self.sent.append(message)
        return True


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with the module ``sample`` in it."""
    (tmp_path / "sample.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "Spoke", FakeSpoke)
    monkeypatch.setattr(chainloop, "settle_in", lambda surroundings: None)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("sample", None)


def plan(name: str, source: str) -> StepPlan:
    step = StepSettings(kind="call", function=f"sample:{name}", mode="loop", into=name)
    return StepPlan(name, step, Target("call"), ((source, source),), retries=0)


class Scene:
    """A worker of a job of two steps, which has said hello."""

    def __init__(self) -> None:
        whole = job(steps=(plan("first", "x"), plan("second", "first")))
        settings = WorkerSettings(job=whole, slot=0, run_id="r", token="t", socket="")
        self.worker = ChainWorker(settings, ((), ()))
        self.sent: list[Message] = self.worker._link.sent  # type: ignore[attr-defined]
        sys.modules["sample"].SENT = self.sent  # type: ignore[attr-defined]
        self.told: list[tuple[str, list[Message]]] = sys.modules["sample"].TOLD
        for message in (Welcome(), Tune(in_flight=8, terms=[Terms(-1), Terms(-1)])):
            self.worker._on_message(message)

    def lease(self, *rows: int, **more: Any) -> None:
        lines = [RowLine(row, row, b'{"x": %d}' % row) for row in rows]
        self.worker._on_message(Lease(lease=5, rows=lines, **more))

    def of(self, kind: type[Message]) -> list[Any]:
        return [message for message in self.sent if isinstance(message, kind)]

    async def until(self, calls: int) -> None:
        """Ticks go on until so many functions were called, and what they gave is here."""
        async with asyncio.timeout(20):
            while len(self.told) < calls:
                self.tick()
                await asyncio.sleep(0.002)
        await asyncio.sleep(0.01)

    def tick(self) -> None:
        self.worker._tick(asyncio.get_running_loop().time())


def on_loop(scene: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await scene()

    asyncio.run(main())


def lines(messages: list[Message]) -> list[StepLine]:
    return [line for message in messages if isinstance(message, Outcomes) for line in message.steps]


def test_of_a_row_that_workers_died_with_what_ended_and_what_is_begun_is_told_before_it_is_begun() -> None:
    async def scene() -> None:
        there = Scene()
        there.lease(7, is_trial=True)
        assert there.told == [] and there.of(Trying) == [Trying(row=7, lease=5, steps=[0])]
        await there.until(2)
        (_, before_first), (_, before_second) = there.told
        assert before_first[-1] == Trying(row=7, lease=5, steps=[0])
        assert before_second[-1] == Trying(row=7, lease=5, steps=[1])
        assert [(line.step, line.data) for line in lines(before_second)] == [(0, b'{"first":8}')]

    on_loop(scene)


def test_between_telling_and_beginning_there_is_time_for_the_message_to_leave() -> None:
    async def scene() -> None:
        there = Scene()
        now = asyncio.get_running_loop().time
        began = now()
        there.lease(7, 8, is_trial=True)
        await there.until(1)
        assert now() - began >= chainloop.TRIAL_S
        await there.until(4)
        assert now() - began >= 2 * chainloop.TRIAL_S
        assert {name for name, _ in there.told} == {"first", "second"}

    on_loop(scene)


def test_other_rows_cost_no_message_and_no_wait() -> None:
    async def scene() -> None:
        there = Scene()
        there.lease(7, is_trial=True)
        await there.until(2)
        told = len(there.of(Trying))
        there.lease(8)
        await asyncio.sleep(0.03)
        assert len(there.told) == 2, "a lease that came twice is none"
        there.worker._on_message(Lease(lease=6, rows=[RowLine(8, 8, b'{"x": 8}')]))
        await there.until(4)
        assert len(there.of(Trying)) == told

    on_loop(scene)


def test_a_row_on_trial_that_waits_to_be_begun_is_given_back_at_a_drain() -> None:
    async def scene() -> None:
        there = Scene()
        there.lease(7, is_trial=True)
        there.worker._on_message(Drain())
        await asyncio.sleep(2 * chainloop.TRIAL_S)
        there.tick()
        assert there.told == [] and there.of(Released) == [Released(rows=[7])]

    on_loop(scene)
