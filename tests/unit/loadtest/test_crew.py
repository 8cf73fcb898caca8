"""The crew's own socket: only its workers are heard, whatever else finds it; and what dies is told."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from loadtests import plan
from waiting import until

from engine.core.errors import CannotStart
from engine.core.measuring import Measures
from engine.loadtest.crew import Crew, Member, Round
from engine.loadtest.model import WorkerNotes
from engine.wire.link import Spoke
from engine.wire.load_messages import Figures
from engine.wire.messages import Hello, Message, Refuse


class Quota:
    """A quota that nobody needs."""

    is_used = False

    def tick(self, now: float) -> None:
        pass

    def leave(self) -> None:
        pass

    def bury(self) -> None:
        pass


class Child:
    """Stands where a worker process does."""

    code: int | None = None
    words = ""
    is_killed = False

    def poll(self) -> int | None:
        return self.code

    def last_words(self) -> str:
        return self.words

    def kill(self) -> None:
        self.is_killed = True
        self.code = -9

    def wait(self, timeout_s: float) -> int | None:
        return self.code or 0

    def close(self) -> None:
        pass


def scene(body: Callable[[Crew, Spoke, list[Message]], Awaitable[None]]) -> None:
    async def run() -> None:
        crew = Crew(plan(), ((),), Quota())  # type: ignore[arg-type]
        crew.members.append(Member(0, Child(), notes=WorkerNotes(0)))  # type: ignore[arg-type]
        link = Spoke(crew._folder / "c", message_bytes_max=1_000_000)
        heard: list[Message] = []
        link.listen(asyncio.get_running_loop(), heard.append)
        try:
            await body(crew, link, heard)
        finally:
            link.close()
            await crew.close()
        assert not crew._folder.exists()

    asyncio.run(run())


def figures(test: int = 1, **changes: Any) -> Figures:
    values: dict[str, Any] = {
        "test": test, "is_last": True, "counts": [0] * 11, "errors": {}, "met": [], "histograms": {}, "seconds": [],
        "loop_lag": Measures().histograms["latency"].to_bytes(), "cpu_s": 0.1, "sending_s": 1.0, "lasted_s": 1.0,
        "in_flight": 0, "in_flight_peak": 3, "in_flight_max": 9, "held_back": 0, "quota_waited": 0, "cut_off_bytes": 0,
        "last_sent_s": 0.9, "last_due_s": 0.9,
    }  # fmt: skip
    return Figures(**(values | changes))


@pytest.mark.parametrize("slot", [0, 7])
def test_who_does_not_know_the_token_or_has_no_place_is_refused(slot: int) -> None:
    async def body(crew: Crew, link: Spoke, heard: list[Message]) -> None:
        token = crew._token if slot else "0" * 32
        link.send(Hello(token=token, slot=slot, pid=1))
        await until(lambda: heard)
        assert isinstance(heard[0], Refuse)
        assert crew.members[0].peer == b""

    scene(body)


def test_figures_of_strangers_and_of_other_tests_are_not_counted() -> None:
    async def body(crew: Crew, link: Spoke, heard: list[Message]) -> None:
        current = crew._round = Round(1, 0.0, Measures())
        link.send(figures(counts=[5] * 11))
        link.send(Hello(token=crew._token, slot=0, pid=1))
        await until(lambda: crew.members[0].peer)
        link.send(figures(test=2, counts=[5] * 11))
        link.send(figures(counts=[1] * 11))
        await until(lambda: crew.members[0].has_ended)
        assert current.measures.counts.sent == 1
        assert current.faults == []
        assert crew.members[0].notes.in_flight_peak == 3

    scene(body)


def test_figures_that_cannot_be_read_are_a_fault_of_the_test() -> None:
    async def body(crew: Crew, link: Spoke, heard: list[Message]) -> None:
        current = crew._round = Round(1, 0.0, Measures())
        link.send(Hello(token=crew._token, slot=0, pid=1))
        await until(lambda: crew.members[0].peer)
        link.send(figures(histograms={"latency": b"\xff\xff"}))
        await until(lambda: current.faults)
        assert "worker 0" in current.faults[0]

    scene(body)


def test_a_worker_that_dies_or_says_nothing_is_told_once() -> None:
    async def body(crew: Crew, link: Spoke, heard: list[Message]) -> None:
        current = crew._round = Round(1, crew._loop.time(), Measures())
        child: Any = crew.members[0].process
        crew._look(current)
        assert current.faults == []
        current.start -= 30.0
        crew._look(current)
        crew._look(current)
        assert child.is_killed
        assert [fault.split(" ")[2] for fault in current.faults] == ["told", "ended"]
        assert crew.members[0].has_ended

    scene(body)


class Launcher:
    """Starts children that say nothing; ``on_start`` is told how many there are."""

    on_start: Callable[[int], None] = staticmethod(lambda many: None)
    children: list[Child]

    def __init__(self, folder: object, hide: object) -> None:
        type(self).children = []

    def start(self, module: str, line: bytes) -> Child:
        self.children.append(Child())
        type(self).on_start(len(self.children))
        return self.children[-1]


def start(monkeypatch: pytest.MonkeyPatch, signal_at: int, *, kills: bool = False) -> list[Member]:
    """The members of a crew of three whose start is told to end when so many had been started, or soon after all had."""
    over: list[int] = []

    def on_start(many: int) -> None:
        if many == signal_at:
            over.append(many)

    async def signal_later(crew: Crew) -> None:
        await until(lambda: len(Launcher.children) == 3)
        await asyncio.sleep(0.02)  # it awaits them now
        over.append(0)
        if kills:
            crew.kill()

    async def run() -> list[Member]:
        asked = plan()
        crew = Crew(replace(asked, job=replace(asked.job, procs=3)), ((),), Quota())  # type: ignore[arg-type]
        later = asyncio.create_task(signal_later(crew)) if signal_at == 4 else None  # soon after the last
        try:
            await asyncio.wait_for(crew.start(lambda: bool(over)), 10.0)
        finally:
            if later is not None:
                await later
            await crew.close()
        assert not crew._folder.exists()
        return crew.members

    monkeypatch.setattr(Launcher, "on_start", staticmethod(on_start))
    monkeypatch.setattr("engine.loadtest.crew.LocalLauncher", Launcher)
    return asyncio.run(run())


def test_a_signal_between_two_starts_starts_no_more_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(start(monkeypatch, 1)) == 1


@pytest.mark.parametrize("kills", [False, True])
def test_a_signal_while_workers_are_awaited_ends_the_wait_without_a_complaint(
    monkeypatch: pytest.MonkeyPatch, kills: bool
) -> None:
    members = start(monkeypatch, 4, kills=kills)
    assert len(members) == 3 and not any(member.peer for member in members)


def test_a_worker_that_ends_at_its_start_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Child, "code", 3)
    monkeypatch.setattr(Child, "words", "no such module")
    with pytest.raises(CannotStart, match="ended at its start: no such module"):
        start(monkeypatch, 9)
