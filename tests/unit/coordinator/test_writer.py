"""The commit thread, with keepers that do as they are told and with a real store."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from engine.coordinator.writer import Writer
from engine.core.commit import Commit, OutcomeRow
from engine.core.errors import EngineError, InternalFault, StoreFailure
from engine.store import Store

LONG_S = 60.0  # an interval no test lives through


def outcome(row: int) -> OutcomeRow:
    return OutcomeRow(row, True, "", row, b"{}", 1, 1.0, 1, 1)


def commit_of(*rows: int) -> Commit:
    return Commit(outcomes=[outcome(row) for row in rows])


class Gate:
    """A keeper that remembers groups, and waits in ``apply`` until it is let on."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.groups: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.error: Exception | None = None
        if is_open:
            self.open.set()

    def apply(self, commits: Sequence[Commit]) -> None:
        self.entered.release()
        assert self.open.wait(10)
        if self.error is not None:
            raise self.error
        self.groups.append([line.row for commit in commits for line in commit.outcomes])


class Told:
    """What a writer said on the loop."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.failures: list[EngineError] = []
        self.threads: set[int] = set()

    def acknowledges(self, row: int) -> Callable[[], None]:
        def done() -> None:
            self.threads.add(threading.get_ident())
            self.done.append(row)

        return done


async def closed(writer: Writer) -> None:
    await asyncio.get_running_loop().run_in_executor(None, writer.close)


def test_a_commit_is_acknowledged_on_the_loop_only_after_the_keeper_has_returned() -> None:
    async def scene() -> None:
        gate, told = Gate(is_open=False), Told()
        loop = asyncio.get_running_loop()
        writer = Writer(gate, loop, on_failure=told.failures.append)
        writer.submit(commit_of(1), told.acknowledges(1))
        await loop.run_in_executor(None, gate.entered.acquire)
        assert told.done == []
        assert writer.backlog == 2
        gate.open.set()
        await closed(writer)
        assert told.done == [1]
        assert told.threads == {threading.get_ident()}
        assert writer.backlog == 0

    asyncio.run(scene())


def test_everything_that_comes_while_a_group_is_written_goes_into_the_next_one() -> None:
    async def scene() -> None:
        gate, told = Gate(is_open=False), Told()
        loop = asyncio.get_running_loop()
        writer = Writer(gate, loop, on_failure=told.failures.append, interval_s=0.0)
        writer.submit(commit_of(0), told.acknowledges(0))
        await loop.run_in_executor(None, gate.entered.acquire)
        for row in range(1, 100):
            writer.submit(commit_of(row), told.acknowledges(row))
        gate.open.set()
        await closed(writer)
        assert gate.groups == [[0], list(range(1, 100))]
        assert told.done == list(range(100))

    asyncio.run(scene())


def test_an_idle_writer_commits_at_once_and_a_busy_one_waits_for_its_interval() -> None:
    async def scene() -> None:
        gate = Gate()
        loop = asyncio.get_running_loop()
        first = asyncio.Event()
        writer = Writer(gate, loop, on_failure=pytest.fail, interval_s=LONG_S)
        writer.submit(commit_of(0), first.set)
        await asyncio.wait_for(first.wait(), 10)
        assert gate.entered.acquire(blocking=False)
        for row in (1, 2):
            writer.submit(commit_of(row), None)
        assert not await loop.run_in_executor(None, gate.entered.acquire, True, 0.1)
        writer.submit(commit_of(3), None)
        await closed(writer)  # closing ends the interval
        assert gate.groups == [[0], [1, 2, 3]]

    asyncio.run(scene())


def test_closing_writes_and_acknowledges_what_is_queued() -> None:
    async def scene() -> None:
        gate, told = Gate(), Told()
        writer = Writer(gate, asyncio.get_running_loop(), on_failure=told.failures.append)
        for row in range(50):
            writer.submit(commit_of(row), told.acknowledges(row))
        await closed(writer)
        assert sorted(row for group in gate.groups for row in group) == list(range(50))
        assert told.done == list(range(50))
        await closed(writer)

    asyncio.run(scene())


def test_what_comes_after_closing_is_neither_written_nor_acknowledged() -> None:
    async def scene() -> None:
        gate, told = Gate(), Told()
        writer = Writer(gate, asyncio.get_running_loop(), on_failure=told.failures.append)
        await closed(writer)
        writer.submit(commit_of(7), told.acknowledges(7))
        await asyncio.sleep(0)
        assert (gate.groups, told.done) == ([], [])

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (StoreFailure("the disk is full"), "the disk is full"),
        (BrokenPipeError(32, "Broken pipe"), "Broken pipe"),
        (ValueError("a failed row must have a kind"), "fault of the engine"),
    ],
)
def test_after_a_failure_the_loop_is_told_once_and_nothing_is_acknowledged(
    error: Exception, says: str
) -> None:
    async def scene() -> None:
        gate, told = Gate(), Told()
        gate.error = error
        failed = asyncio.Event()

        def on_failure(failure: EngineError) -> None:
            told.failures.append(failure)
            failed.set()

        writer = Writer(gate, asyncio.get_running_loop(), on_failure=on_failure)
        writer.submit(commit_of(1), told.acknowledges(1))
        await asyncio.wait_for(failed.wait(), 10)
        gate.error = None
        writer.submit(commit_of(2), told.acknowledges(2))
        await closed(writer)
        assert len(told.failures) == 1
        assert says in str(told.failures[0])
        assert isinstance(told.failures[0], InternalFault) == isinstance(error, ValueError)
        assert (told.done, gate.groups) == ([], [])
        assert writer.backlog > 0

    asyncio.run(scene())


def test_the_backlog_counts_commits_and_outcomes_that_are_not_durable_yet() -> None:
    async def scene() -> None:
        gate = Gate(is_open=False)
        writer = Writer(gate, asyncio.get_running_loop(), on_failure=pytest.fail)
        writer.submit(commit_of(1, 2, 3), None)
        writer.submit(Commit(opened=[(1, [4, 5])]), None)
        assert writer.backlog == 5
        gate.open.set()
        await closed(writer)
        assert writer.backlog == 0

    asyncio.run(scene())


def test_a_writer_whose_loop_is_gone_ends_without_a_word() -> None:
    gate = Gate(is_open=False)

    async def scene() -> Writer:
        writer = Writer(gate, asyncio.get_running_loop(), on_failure=pytest.fail)
        writer.submit(commit_of(1), None)
        return writer

    writer = asyncio.run(scene())
    gate.open.set()
    writer.close()
    assert gate.groups == [[1]]


def test_what_was_acknowledged_is_in_the_store_for_whoever_opens_it_next(tmp_path: Path) -> None:
    async def scene(store: Store) -> list[int]:
        told = Told()
        writer = Writer(store, asyncio.get_running_loop(), on_failure=pytest.fail)
        for row in range(0, 300, 3):
            writer.submit(commit_of(row, row + 1, row + 2), told.acknowledges(row))
        await closed(writer)
        return told.done

    with Store.open(tmp_path / "run", durability="os") as store:
        assert asyncio.run(scene(store)) == list(range(0, 300, 3))
    with Store.view(tmp_path / "run") as view:
        assert [row for row, _, _ in view.finished()] == list(range(300))
