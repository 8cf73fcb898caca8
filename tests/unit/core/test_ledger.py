"""The ledger: who holds which row, who may finish it, and how a row that kills workers fails alone."""

import itertools

import pytest

from engine.core.ledger import Lease, Ledger, LedgerBroken, LedgerRow
from engine.core.rowstate import TRANSITIONS, IllegalEvent, RowEvent, RowState, advance

ANY_BYTES = 1 << 30


def rows(start: int, stop: int, size: int = 10) -> list[LedgerRow]:
    return [LedgerRow(row, row + 1, b"x" * size, row * 7) for row in range(start, stop)]


def ledger_with(count: int, *, poison_deaths: int = 3, suspect_group: int = 8) -> Ledger:
    ledger = Ledger(poison_deaths=poison_deaths, suspect_group=suspect_group)
    ledger.offer(rows(0, count))
    return ledger


def taken(ledger: Ledger, worker: int, rows_max: int = 100) -> Lease:
    lease = ledger.lease(worker, rows_max, ANY_BYTES)
    assert lease is not None
    ledger.validate()
    return lease


def indexes(lease: Lease) -> list[int]:
    return [row.row for row in lease.rows]


def finish_all(ledger: Ledger, lease: Lease) -> None:
    for row in lease.rows:
        assert ledger.finish(lease.worker, lease.id, row.row) is row
    ledger.validate()


def die(ledger: Ledger, worker: int) -> tuple[list[int], list[int]]:
    lost = ledger.lost(worker)
    ledger.validate()
    return lost.requeued, [row.row for row in lost.poisoned]


# --- the table --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "event"), list(itertools.product(RowState, RowEvent)))
def test_every_event_in_every_state_either_follows_the_table_or_raises_and_changes_nothing(
    state: RowState, event: RowEvent
) -> None:
    row = LedgerRow(5, 6, b"payload", 35, deaths=1)
    row.state = state
    after = TRANSITIONS[state].get(event)
    if after is None:
        with pytest.raises(IllegalEvent, match=rf"Row 5 is {state.name.lower()}"):
            advance(row, event)
        assert row.state is state
    else:
        advance(row, event)
        assert row.state is after
    assert (row.row, row.line, row.payload, row.digest, row.deaths) == (5, 6, b"payload", 35, 1)


def test_only_leased_rows_can_end_and_what_has_ended_stays_so() -> None:
    legal = {(state, event, after) for state in RowState for event, after in TRANSITIONS[state].items()}
    assert legal == {
        (RowState.WAITING, RowEvent.LEASE, RowState.LEASED),
        (RowState.LEASED, RowEvent.FINISH, RowState.FINISHED),
        (RowState.LEASED, RowEvent.RELEASE, RowState.WAITING),
        (RowState.LEASED, RowEvent.LOSE, RowState.WAITING),
        (RowState.LEASED, RowEvent.CONDEMN, RowState.POISON),
    }


# --- leases -----------------------------------------------------------------------------------------------


def test_rows_are_leased_in_the_order_they_were_offered_under_growing_ids() -> None:
    ledger = Ledger(first_lease=41)
    ledger.offer(rows(0, 5))
    first, second = taken(ledger, 1, 3), taken(ledger, 2, 3)
    assert (first.id, indexes(first), second.id, indexes(second)) == (41, [0, 1, 2], 42, [3, 4])
    assert ledger.lease(3, 3, ANY_BYTES) is None


def test_a_lease_keeps_to_its_bytes_yet_holds_at_least_one_row() -> None:
    ledger = Ledger()
    ledger.offer([LedgerRow(0, 1, b"x" * 100, 0), *rows(1, 6)])
    first, second = ledger.lease(1, 10, 50), ledger.lease(1, 10, 25)
    assert first is not None and indexes(first) == [0]
    assert second is not None and indexes(second) == [1, 2]
    assert ledger.waiting_bytes == 30
    ledger.validate()


def test_no_credit_means_no_lease() -> None:
    assert ledger_with(3).lease(1, 0, ANY_BYTES) is None


def test_figures_follow_the_rows() -> None:
    ledger = ledger_with(4)
    assert (ledger.waiting_count, ledger.waiting_bytes, ledger.leased_count, ledger.is_idle) == (
        4,
        40,
        0,
        False,
    )
    lease = taken(ledger, 1, 3)
    assert (ledger.waiting_count, ledger.waiting_bytes, ledger.leased_count) == (1, 10, 3)
    assert (ledger.held_by(1), ledger.held_by(2)) == (3, 0)
    finish_all(ledger, lease)
    finish_all(ledger, taken(ledger, 2))
    assert (ledger.waiting_count, ledger.waiting_bytes, ledger.leased_count, ledger.is_idle) == (
        0,
        0,
        0,
        True,
    )


def test_a_lease_is_closed_once_when_its_last_row_has_left_it() -> None:
    ledger = ledger_with(5)
    lease, other = taken(ledger, 1, 2), taken(ledger, 1, 3)
    ledger.finish(1, lease.id, 0)
    assert ledger.take_closed() == []
    ledger.finish(1, lease.id, 1)
    assert ledger.take_closed() == [lease.id]
    ledger.finish(1, other.id, 2)
    ledger.release(1, [3, 4])
    assert ledger.take_closed() == [other.id]
    again = taken(ledger, 1)
    ledger.lost(1)
    assert ledger.take_closed() == [again.id]
    assert ledger.take_closed() == []


def test_a_row_offered_twice_is_a_fault_that_tells_the_story() -> None:
    ledger = ledger_with(3)
    taken(ledger, 9, 2)
    with pytest.raises(LedgerBroken, match=r"row 1 was offered out of order(.|\n)*lease 1 to 9"):
        ledger.offer(rows(1, 2))


# --- who may finish ---------------------------------------------------------------------------------------


def test_an_outcome_under_another_worker_lease_or_row_is_refused_and_counted() -> None:
    ledger = ledger_with(4)
    lease, other = taken(ledger, 1, 2), taken(ledger, 2, 2)
    stale = [
        (2, lease.id, 0),
        (1, other.id, 0),
        (1, lease.id, 2),
        (1, 99, 0),
        (7, lease.id, 0),
        (1, lease.id, 99),
    ]
    for refused in stale:
        assert ledger.finish(*refused) is None
    assert ledger.stale_refused == len(stale)
    assert ledger.leased_count == 4
    finish_all(ledger, lease)


def test_an_outcome_that_comes_twice_is_taken_once() -> None:
    ledger = ledger_with(1)
    lease = taken(ledger, 1)
    assert ledger.finish(1, lease.id, 0) is lease.rows[0]
    assert ledger.finish(1, lease.id, 0) is None
    assert ledger.stale_refused == 1


def test_a_worker_that_returns_after_it_was_taken_for_dead_cannot_finish_the_row() -> None:
    ledger = ledger_with(1)
    old = taken(ledger, 1)
    die(ledger, 1)
    new = taken(ledger, 2)
    assert ledger.finish(1, old.id, 0) is None
    assert ledger.finish(2, old.id, 0) is None
    assert ledger.finish(2, new.id, 0) is not None


# --- back to the front ------------------------------------------------------------------------------------


def test_released_rows_wait_in_front_in_their_order_and_count_no_death() -> None:
    ledger = ledger_with(10)
    lease, other = taken(ledger, 1, 3), taken(ledger, 1, 3)
    assert ledger.release(1, [4, 1, 2]) == [(lease.id, [1, 2]), (other.id, [4])]
    ledger.validate()
    again = taken(ledger, 2)
    assert indexes(again) == [1, 2, 4, 6, 7, 8, 9]
    assert {row.deaths for row in again.rows} == {0}


def test_rows_that_a_worker_does_not_hold_cannot_be_released() -> None:
    ledger = ledger_with(4)
    taken(ledger, 1, 2)
    taken(ledger, 2, 2)
    assert ledger.release(1, [2, 3, 77]) == []
    assert ledger.release(5, [0]) == []
    assert (ledger.stale_refused, ledger.leased_count) == (4, 4)


def test_rows_of_a_dead_worker_wait_in_front_in_their_order_and_count_a_death() -> None:
    ledger = ledger_with(6)
    lease = taken(ledger, 1, 4)
    ledger.finish(1, lease.id, 1)
    assert die(ledger, 1) == ([0, 2, 3], [])
    again = taken(ledger, 2)
    assert indexes(again) == [0, 2, 3, 4, 5]
    assert [row.deaths for row in again.rows] == [1, 1, 1, 0, 0]


def test_a_worker_that_held_nothing_leaves_nothing() -> None:
    ledger = ledger_with(2)
    assert die(ledger, 4) == ([], [])
    assert ledger.waiting_count == 2


# --- poison -----------------------------------------------------------------------------------------------


def twice_dead(count: int, fresh: int = 0) -> Ledger:
    """A ledger whose rows 0..count-1 were held at two deaths; ``fresh`` more wait behind them."""
    ledger = ledger_with(count)
    for worker in (101, 102):
        taken(ledger, worker, count)
        die(ledger, worker)
    ledger.offer(rows(count, count + fresh))
    return ledger


def test_after_two_deaths_rows_are_leased_in_small_groups_only() -> None:
    ledger = twice_dead(20)
    assert ledger.suspect_count == 20
    assert indexes(taken(ledger, 1)) == list(range(8))
    assert ledger.lease(1, 100, ANY_BYTES) is None
    assert indexes(taken(ledger, 2)) == list(range(8, 16))
    assert indexes(taken(ledger, 3)) == [16, 17, 18, 19]


def test_a_worker_that_holds_suspects_gets_nothing_else_until_they_are_done() -> None:
    ledger = twice_dead(2, fresh=5)
    group = taken(ledger, 1)
    assert indexes(group) == [0, 1]
    assert ledger.lease(1, 100, ANY_BYTES) is None
    ledger.finish(1, group.id, 0)
    assert ledger.lease(1, 100, ANY_BYTES) is None
    ledger.finish(1, group.id, 1)
    assert indexes(taken(ledger, 1)) == [2, 3, 4, 5, 6]


def test_after_a_death_in_a_group_its_rows_are_leased_alone() -> None:
    ledger = twice_dead(3, fresh=1)
    assert indexes(taken(ledger, 1)) == [0, 1, 2]
    assert die(ledger, 1) == ([0, 1, 2], [])
    seen = []
    for worker in (2, 3, 4):
        lease = taken(ledger, worker)
        seen.append(indexes(lease))
        finish_all(ledger, lease)
    assert seen == [[0], [1], [2]]
    assert indexes(taken(ledger, 5)) == [3]


def test_a_row_that_must_be_alone_is_not_put_into_the_group_before_it() -> None:
    ledger = twice_dead(5)
    taken(ledger, 1, 3)
    taken(ledger, 2, 2)
    die(ledger, 2)  # 3 and 4 have three deaths now, and wait
    ledger.release(1, [0, 1, 2])  # with two deaths, in front of them
    assert [indexes(taken(ledger, worker)) for worker in (4, 5, 6)] == [[0, 1, 2], [3], [4]]


def test_a_row_that_kills_every_worker_fails_alone_and_its_neighbours_finish() -> None:
    ledger = ledger_with(500)
    killer, deaths, finished, poisoned = 137, 0, set[int](), list[int]()
    for worker in range(2000):
        lease = ledger.lease(worker, 64, ANY_BYTES)
        if lease is None:
            break
        ledger.validate()
        if killer in indexes(lease):
            deaths += 1
            poisoned += die(ledger, worker)[1]
        else:
            finish_all(ledger, lease)
            finished |= set(indexes(lease))
    assert poisoned == [killer]
    assert finished == set(range(500)) - {killer}
    assert deaths == 4  # twice in a large lease, once in a group, once alone
    assert ledger.is_idle


def test_the_last_row_of_a_group_is_poison_when_its_worker_dies_with_it_alone() -> None:
    ledger = twice_dead(3)
    group = taken(ledger, 1)
    ledger.finish(1, group.id, 0)
    ledger.finish(1, group.id, 2)
    assert die(ledger, 1) == ([], [1])
    assert ledger.is_idle


def test_a_row_alone_at_its_first_two_deaths_is_not_poison_yet() -> None:
    ledger = ledger_with(1)
    for worker in (1, 2):
        taken(ledger, worker)
        assert die(ledger, worker) == ([0], [])
    taken(ledger, 3)
    assert die(ledger, 3) == ([], [0])


def test_while_fresh_rows_wait_one_worker_tries_suspects_and_the_others_go_on() -> None:
    ledger = twice_dead(20, fresh=100)
    assert indexes(taken(ledger, 1, 10)) == list(range(8))
    assert indexes(taken(ledger, 2, 10)) == list(range(20, 30))
    assert indexes(taken(ledger, 2, 10)) == list(range(30, 40))


def test_suspects_are_not_starved_by_workers_that_are_never_empty() -> None:
    ledger = ledger_with(4)
    busy = {1: taken(ledger, 1, 1), 2: taken(ledger, 2, 1)}
    for worker in (101, 102):
        taken(ledger, worker)
        die(ledger, worker)
    ledger.offer(rows(4, 400))
    assert ledger.lease(1, 1, ANY_BYTES) is None  # the first to ask is let run empty
    assert indexes(taken(ledger, 2, 3)) == [4, 5, 6]
    finish_all(ledger, busy[1])
    assert indexes(taken(ledger, 1, 50)) == [2, 3]
    assert indexes(taken(ledger, 2, 1)) == [7]


def test_a_new_worker_relieves_the_one_that_was_let_run_empty() -> None:
    ledger = ledger_with(4, suspect_group=1)
    taken(ledger, 1, 2)
    for worker in (101, 102):
        taken(ledger, worker)
        die(ledger, worker)
    ledger.offer(rows(4, 40))
    assert ledger.lease(1, 5, ANY_BYTES) is None
    assert indexes(taken(ledger, 3, 5)) == [2]
    assert indexes(taken(ledger, 1, 2)) == [4, 5]


def test_when_the_worker_that_was_let_run_empty_dies_another_takes_its_place() -> None:
    ledger = ledger_with(6)
    taken(ledger, 1, 1)
    two = taken(ledger, 2, 1)
    for worker in (101, 102):
        taken(ledger, worker)
        die(ledger, worker)
    ledger.offer(rows(6, 60))
    assert ledger.lease(1, 5, ANY_BYTES) is None
    die(ledger, 1)
    assert ledger.lease(2, 5, ANY_BYTES) is None
    finish_all(ledger, two)
    assert indexes(taken(ledger, 2, 5)) == [2, 3, 4, 5]


def test_a_single_worker_comes_to_the_suspects_and_then_to_the_rest() -> None:
    ledger = twice_dead(10, fresh=5)
    order = []
    while (lease := ledger.lease(1, 100, ANY_BYTES)) is not None:
        order.append(indexes(lease))
        finish_all(ledger, lease)
    assert order == [list(range(8)), [8, 9], list(range(10, 15))]


def test_released_suspects_stay_suspects() -> None:
    ledger = twice_dead(3, fresh=3)
    taken(ledger, 1)
    ledger.release(1, [0, 1, 2])
    ledger.validate()
    assert ledger.suspect_count == 3
    assert indexes(taken(ledger, 2)) == [0, 1, 2]


# --- checks and bounds ------------------------------------------------------------------------------------


def test_validate_finds_a_row_whose_state_was_changed_behind_the_ledgers_back() -> None:
    ledger = ledger_with(3)
    lease = taken(ledger, 1, 2)
    lease.rows[0].state = RowState.WAITING
    with pytest.raises(LedgerBroken, match=r"a held row is not in state leased(.|\n)*offer up to 3"):
        ledger.validate()


def test_validate_finds_suspects_beside_other_rows() -> None:
    ledger = ledger_with(3)
    lease = taken(ledger, 1, 2)
    lease.rows[0].deaths = 2
    with pytest.raises(LedgerBroken, match="worker 1 holds suspects beside other rows"):
        ledger.validate()


def test_the_story_is_bounded() -> None:
    ledger = Ledger()
    for row in range(5000):
        ledger.offer(rows(row, row + 1))
    assert len(ledger.story().splitlines()) == 256


@pytest.mark.parametrize("wrong", [{"poison_deaths": 1}, {"suspect_group": 0}])
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Ledger(**wrong)


def test_a_step_is_taken_only_from_the_worker_that_holds_its_row_under_that_lease() -> None:
    ledger = Ledger()
    ledger.offer([LedgerRow(0, 1, b"{}", 0), LedgerRow(1, 2, b"{}", 0)])
    lease = ledger.lease(1, 1, 1000)
    assert lease is not None
    assert ledger.held(1, lease.id, 0) is lease.rows[0]
    assert not ledger.held(1, lease.id, 1)
    assert not ledger.held(1, lease.id + 1, 0)
    assert not ledger.held(2, lease.id, 0)
    ledger.lost(1)
    assert not ledger.held(1, lease.id, 0)
    assert ledger.stale_refused == 4
