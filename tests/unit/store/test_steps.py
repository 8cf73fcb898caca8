"""Steps in the store: what was finished of a row is there after whatever happened, under its name."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.core.commit import StepRow
from engine.core.errors import StoreFailure
from engine.store import Commit, OutcomeRow, Store


def step(row: int, number: int, data: bytes = b'{"a": 1}', *, ok: bool = True) -> StepRow:
    return StepRow(row, number, ok, data, 2, 30, 40, -(2**63) + row, 3, 12.0, "small-1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl.run"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with Store.open(folder, durability="os") as opened:
        yield opened


def test_steps_come_back_by_their_rows(store: Store) -> None:
    assert not store.has_steps() and store.steps_of([0, 1]) == []
    store.apply(
        [Commit(steps=[step(7, 1), step(5, 0), step(5, 2, b'{"x": "y"}')]), Commit(steps=[step(6, 0)])]
    )
    assert store.has_steps()
    assert store.steps_of([5, 7]) == [step(5, 0), step(5, 2, b'{"x": "y"}'), step(7, 1)]
    assert store.steps_of([7, 6, 5, 99]) == [step(5, 0), step(5, 2, b'{"x": "y"}'), step(6, 0), step(7, 1)]


def test_a_step_that_ended_again_is_replaced(store: Store) -> None:
    store.apply([Commit(steps=[step(1, 0, b'{"kind": "x"}', ok=False)])])
    store.apply([Commit(steps=[step(1, 0, b'{"a": 2}')])])
    assert store.steps_of([1]) == [step(1, 0, b'{"a": 2}')]


def test_a_row_is_kept_with_its_steps_or_not_at_all(store: Store, folder: Path) -> None:
    refused = step(0, 0)._replace(attempts=None)  # type: ignore[arg-type]
    with pytest.raises(StoreFailure):
        store.apply([Commit(outcomes=outcomes(True), steps=[refused])])
    with Store.view(folder) as kept:
        assert list(kept.finished()) == [] and not kept.has_steps()


def test_a_name_keeps_its_number_wherever_it_stands_and_whoever_asks(store: Store, folder: Path) -> None:
    assert store.step_numbers(["page", "summary"]) == [0, 1]
    assert store.step_numbers(["summary", "title", "page"]) == [1, 2, 0]
    store.close()
    with Store.open(folder, durability="os") as later:
        assert later.step_numbers(["title"]) == [2]


def outcomes(*ok: bool) -> list[OutcomeRow]:
    return [
        OutcomeRow(row, is_ok, "" if is_ok else "timeout", 1, b"{}", 3, 1.0, 5, 6)
        for row, is_ok in enumerate(ok)
    ]


def test_going_again_from_a_step_opens_every_row_and_keeps_the_other_steps_and_what_all_cost(
    store: Store,
) -> None:
    a, b = store.step_numbers(["a", "b"])
    steps = [step(row, number) for row in range(3) for number in (a, b)]
    store.apply([Commit(outcomes=outcomes(False, True, True), steps=steps)])
    store.finish()
    assert store.forget_from(["b"], {"prompt": "new"})
    assert store.steps_of([0, 1, 2]) == [step(row, a) for row in range(3)]
    counts = store.counts()
    # Of the rows by themselves, and of the steps.
    assert (counts.ok, counts.failed, counts.attempts, counts.tokens_in) == (0, {}, 9 + 6 * 2, 15 + 6 * 30)
    assert not store.is_finished() and list(store.finished()) == []
    assert store.identity() == {"prompt": "new"}


def test_going_again_from_a_step_that_was_stopped_goes_on_and_one_that_ended_begins_anew(
    store: Store, folder: Path
) -> None:
    (b,) = store.step_numbers(["b"])
    done = Commit(outcomes=outcomes(True), steps=[step(0, b)])
    assert store.forget_from(["b"], {"prompt": "new"})
    store.apply([done])
    store.close()
    with Store.open(folder, durability="os") as later:
        assert not later.forget_from(["b"], {"prompt": "new"})
        assert later.counts().ok == 1 and later.steps_of([0]) == [step(0, b)]
        assert later.forget_from(["b"], {"prompt": "newer"}), "another job is not what was begun"
        assert later.counts().ok == 0 and later.steps_of([0]) == []
        later.apply([done])
        later.finish()
        assert later.forget_from(["b"], {"prompt": "newer"})


def test_opening_failed_rows_drops_corrected_steps_of_all_rows_that_are_not_ok(store: Store) -> None:
    a, b = store.step_numbers(["a", "b"])
    steps = [step(row, number) for row in range(3) for number in (a, b)]
    store.apply([Commit(outcomes=outcomes(True, False), steps=steps)])
    assert store.forget_failed(steps=["b"], identity={"prompt": "new"}) == 1
    assert store.steps_of([0, 1, 2]) == [step(0, a), step(0, b), step(1, a), step(2, a)]
    assert store.identity() == {"prompt": "new"}


@pytest.mark.parametrize(
    "change",
    [
        "data = CAST('{\"a\": 9}' AS BLOB)",
        "digest = 5",
        "digest = 'x'",
        "calls = 'x'",
        "latency_ms = 'x'",
        "model = x'00ff'",
    ],
)
def test_a_step_that_is_not_what_was_written_is_never_used(store: Store, folder: Path, change: str) -> None:
    store.apply([Commit(steps=[step(3, 0)])])
    with sqlite3.connect(folder / "store.db") as connection:
        connection.execute(f"UPDATE step SET {change}")
    with pytest.raises(StoreFailure, match="a step of row 3 is not what was written"):
        store.steps_of([3])


def test_a_store_of_the_version_before_is_brought_up_to_date(folder: Path) -> None:
    with Store.open(folder, durability="os") as store:
        store.set_meta("run_id", "kept")
    with sqlite3.connect(folder / "store.db") as connection:
        connection.executescript("DROP TABLE step; DROP TABLE step_name; PRAGMA user_version = 2;")
    with Store.open(folder, durability="os") as store:
        assert store.get_meta("run_id") == "kept" and not store.has_steps()
        store.apply([Commit(steps=[step(0, 0)])])
        assert store.steps_of([0]) == [step(0, 0)]


def test_a_step_of_the_version_before_is_there_without_the_figures_that_were_not_kept_then(
    folder: Path,
) -> None:
    with Store.open(folder, durability="os") as store:
        store.apply([Commit(steps=[step(0, 0)])])
    with sqlite3.connect(folder / "store.db") as connection:
        for column in ("calls", "latency_ms", "model"):
            connection.execute(f"ALTER TABLE step DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 3")
    with Store.open(folder, durability="os") as store:
        assert store.steps_of([0]) == [step(0, 0)._replace(calls=0, latency_ms=0.0, model="")]


def test_a_step_is_counted_when_it_ends_and_not_again_with_its_row(store: Store) -> None:
    store.apply(
        [Commit(steps=[step(0, 0), step(0, 1)], outcomes=[OutcomeRow(0, True, "", 1, b"{}", 0, 1.0, 0, 0)])]
    )
    counts = store.counts()
    assert (counts.ok, counts.attempts, counts.tokens_in, counts.tokens_out) == (1, 4, 60, 80)
    assert store.forget_from([], {})
    store.apply([Commit(outcomes=[OutcomeRow(0, True, "", 1, b"{}", 0, 1.0, 0, 0)])])
    assert (store.counts().ok, store.counts().attempts) == (1, 4)
