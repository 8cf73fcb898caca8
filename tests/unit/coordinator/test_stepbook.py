"""Finished steps on their way back to workers: looked up where there can be any, by name, and only the good ones."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jobs import job

from engine.config import Job, StepPlan
from engine.coordinator.stepbook import StepBook
from engine.core.commit import StepRow
from engine.core.errors import EngineError, StoreFailure, UsageError
from engine.core.ledger import Ledger, LedgerRow
from engine.store import Commit, Store
from engine.wire.messages import StepLine


def steps_job(*names: str) -> Job:
    plain = job()
    return replace(plain, steps=tuple(StepPlan(name, plain.step, plain.target) for name in names))


def line(row: int, step: int, data: bytes = b'{"a":1}', *, ok: bool = True) -> StepLine:
    return StepLine(row, 9, step, ok, data, 1, 2, 3, 4, 5.5, "small")


def rows(*numbers: int, digest: int = 7) -> list[LedgerRow]:
    return [LedgerRow(row, row + 1, b"{}", digest) for row in numbers]


def held(*lines: StepLine) -> list[tuple[LedgerRow | None, StepLine]]:
    return [(rows(line.row)[0], line) for line in lines]


def scene(folder: Path, play: Callable[[Store, list[EngineError]], None]) -> list[EngineError]:
    failures: list[EngineError] = []

    async def run() -> None:
        with Store.open(folder, durability="os") as store:
            play(store, failures)
            await asyncio.sleep(0)
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.001)

    asyncio.run(run())
    return failures


def test_a_run_that_has_lost_nobody_looks_nothing_up(tmp_path: Path) -> None:
    found: list[list[StepLine]] = []

    def play(store: Store, failures: list[EngineError]) -> None:
        book = StepBook(steps_job("a", "b"), store, failures.append)
        store.apply([Commit(steps=book.rows_of(held(line(0, 0))))])
        book.find(rows(0), found.append)
        assert found == [[]], "at once, without asking the store"

    assert scene(tmp_path / "run", play) == []


def test_what_was_finished_comes_back_once_a_worker_has_died(tmp_path: Path) -> None:
    found: list[list[StepLine]] = []

    def play(store: Store, failures: list[EngineError]) -> None:
        book = StepBook(steps_job("a", "b"), store, failures.append)
        store.apply([Commit(steps=book.rows_of(held(line(0, 0), line(0, 1, ok=False), line(2, 1))))])
        book.came_back()
        book.find(rows(0, 1, 2), found.append)

    assert scene(tmp_path / "run", play) == []
    assert found == [[line(0, 0)._replace(lease=0), line(2, 1)._replace(lease=0)]]


def test_a_later_run_finds_steps_by_their_names_wherever_they_stand_now(tmp_path: Path) -> None:
    found: list[list[StepLine]] = []

    def first(store: Store, failures: list[EngineError]) -> None:
        book = StepBook(steps_job("a", "b"), store, failures.append)
        store.apply([Commit(steps=book.rows_of(held(line(0, 0, b'{"a":1}'), line(0, 1, b'{"b":2}'))))])

    def later(store: Store, failures: list[EngineError]) -> None:
        StepBook(steps_job("new", "b"), store, failures.append).find(rows(0), found.append)

    assert scene(tmp_path / "run", first) == scene(tmp_path / "run", later) == []
    assert [(one.step, one.data) for one in found[0]] == [(1, b'{"b":2}')]


def test_a_row_that_has_changed_is_not_joined_to_what_its_steps_came_to(tmp_path: Path) -> None:
    found: list[list[StepLine]] = []

    def play(store: Store, failures: list[EngineError]) -> None:
        book = StepBook(steps_job("a", "b"), store, failures.append)
        store.apply([Commit(steps=book.rows_of(held(line(0, 0), line(1, 0, ok=False))))])
        book.came_back()
        book.find(rows(1, digest=8), found.append)
        book.find(rows(0, digest=8), found.append)

    (failure,) = scene(tmp_path / "run", play)
    assert isinstance(failure, UsageError) and "The input has changed: row 0 (line 1)" in str(failure)
    assert found == [[]], "a step that failed is begun again anyway"


def test_a_step_of_a_row_that_its_worker_no_longer_holds_is_not_kept(tmp_path: Path) -> None:
    def play(store: Store, failures: list[EngineError]) -> None:
        assert StepBook(steps_job("a"), store, failures.append).rows_of([(None, line(0, 0))]) == []

    assert scene(tmp_path / "run", play) == []


def test_a_step_that_is_told_twice_under_one_lease_is_counted_once(tmp_path: Path) -> None:
    def play(store: Store, failures: list[EngineError]) -> None:
        book = StepBook(steps_job("a", "b"), store, failures.append)
        ledger = Ledger()
        ledger.offer(rows(0))

        def told(step: int) -> int:
            lease = ledger.lease(1, 1, 100)
            assert lease is not None
            (row,) = lease.rows
            return len(
                book.rows_of([(row, line(0, step)), (row, line(0, step))])
                + book.rows_of([(row, line(0, step))])
            )

        assert told(0) == 1
        ledger.release(1, [0])
        assert told(0) == 1, "under another lease it has been done again"
        ledger.lost(1)
        assert told(1) == 1

    assert scene(tmp_path / "run", play) == []


def test_a_store_that_cannot_be_read_stops_the_run(tmp_path: Path) -> None:
    def play(store: Store, failures: list[EngineError]) -> None:
        book = StepBook(steps_job("a"), store, failures.append)
        store.apply([Commit(steps=[StepRow(0, 0, True, b"{}", 0, 0, 0, 0)])])
        store._writer.execute("UPDATE step SET crc = 1")  # type: ignore[union-attr]
        book.came_back()
        book.find(rows(0), lambda lines: None)

    (failure,) = scene(tmp_path / "run", play)
    assert isinstance(failure, StoreFailure)


def test_without_a_store_or_without_steps_nothing_is_kept(tmp_path: Path) -> None:
    found: list[list[StepLine]] = []

    def play(store: Store, failures: list[EngineError]) -> None:
        for book in (
            StepBook(steps_job("a"), None, failures.append),
            StepBook(job(), store, failures.append),
        ):
            book.came_back()
            book.find(rows(0), found.append)
            assert book.rows_of(held(line(0, 0))) == []

    assert scene(tmp_path / "run", play) == []
    assert found == [[], []]
