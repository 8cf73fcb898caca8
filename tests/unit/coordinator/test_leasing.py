"""Rows on their way to workers: committed first, never lost on the way."""

from collections.abc import Callable
from typing import Any

from jobs import job

from engine.coordinator.leasing import BACKLOG_ROWS, STEP_BYTES_MAX, WRITER_ROWS_MAX, Leasing
from engine.coordinator.stepbook import Then
from engine.coordinator.supervise import Child
from engine.core.ledger import Ledger, LedgerRow
from engine.wire.messages import Finished, Lease, Message, StepLine


class FakeHub:
    def __init__(self) -> None:
        self.sent: list[Lease] = []
        self.takes = True

    def send(self, peer: bytes, message: Message) -> bool:
        if self.takes and isinstance(message, Lease):
            self.sent.append(message)
        return self.takes


class FakeCommits:
    """Commits that become durable when the test says so."""

    def __init__(self) -> None:
        self.backlog = 0
        self.waiting: list[Callable[[], None]] = []
        self.given_back: list[Any] = []

    def opened(self, lease: int, rows: list[int], then: Callable[[], None]) -> None:
        self.waiting.append(then)

    def released(self, released: list[tuple[int, list[int]]]) -> None:
        self.given_back += released

    def become_durable(self) -> None:
        waiting, self.waiting = self.waiting, []
        for then in waiting:
            then()


class FakeFeed:
    def __init__(self) -> None:
        self.asked = 0

    def more(self) -> None:
        self.asked += 1


class Stage:
    def __init__(self) -> None:
        self.hub, self.commits, self.feed, self.ledger = FakeHub(), FakeCommits(), FakeFeed(), Ledger()
        self.child = Child(slot=0, in_flight=10, gate=-1, key=1, process=object(), peer=b"one")  # type: ignore[arg-type]
        fakes: dict[str, Any] = {"hub": self.hub, "commits": self.commits, "feed": self.feed}
        self.leasing = Leasing(
            job(), ledger=self.ledger, children=[self.child], on_change=lambda: None, **fakes
        )

    def rows(self, count: int) -> None:
        first = self.ledger._next_row
        self.leasing.read([LedgerRow(row, row + 1, b"{}", row) for row in range(first, first + count)])


def test_a_lease_is_sent_only_once_it_is_durable() -> None:
    stage = Stage()
    stage.rows(5)
    stage.leasing.wants(stage.child, 3)
    assert stage.hub.sent == []
    stage.commits.become_durable()
    assert [row.row for row in stage.hub.sent[0].rows] == [0, 1, 2]


def test_a_worker_gets_what_it_asked_for_when_the_rows_come_later() -> None:
    stage = Stage()
    stage.leasing.wants(stage.child, 3)
    stage.rows(2)
    stage.rows(2)
    stage.commits.become_durable()
    assert [row.row for lease in stage.hub.sent for row in lease.rows] == [0, 1, 2]
    assert stage.child.want == 0


def test_rows_that_could_not_be_handed_over_wait_again() -> None:
    stage = Stage()
    stage.rows(3)
    stage.leasing.wants(stage.child, 3)
    stage.hub.takes = False
    stage.commits.become_durable()
    assert (stage.ledger.waiting_count, stage.ledger.leased_count) == (3, 0)
    assert stage.commits.given_back == [(1, [0, 1, 2])]


def test_a_drain_that_begins_meanwhile_keeps_rows_from_being_handed_out() -> None:
    stage = Stage()
    stage.rows(3)
    stage.leasing.wants(stage.child, 3)
    stage.leasing.stop()
    stage.commits.become_durable()
    assert stage.hub.sent == []
    assert stage.ledger.waiting_count == 3


def test_rows_that_wait_for_the_look_up_of_their_finished_steps_are_given_back_at_the_end() -> None:
    stage = Stage()
    found: list[Then] = []
    stage.leasing._find_steps = lambda rows, then: found.append(then)
    stage.rows(3)
    stage.leasing.wants(stage.child, 2)
    stage.commits.become_durable()
    assert (stage.ledger.leased_count, len(found)) == (2, 1)
    stage.leasing.stop()
    assert (stage.ledger.leased_count, stage.ledger.waiting_count) == (0, 3), "nothing was sent for them"
    assert stage.commits.given_back == [(1, [0, 1])]
    found[0]([])
    assert stage.hub.sent == [] and stage.commits.given_back == [(1, [0, 1])], "once"


def test_rows_of_a_worker_that_was_lost_meanwhile_are_not_given_back_for_it_at_the_end() -> None:
    stage = Stage()
    found: list[Then] = []
    stage.leasing._find_steps = lambda rows, then: found.append(then)
    stage.rows(2)
    stage.leasing.wants(stage.child, 2)
    stage.commits.become_durable()
    stage.ledger.lost(stage.child.key)
    stage.child.key = 2
    stage.leasing.stop()
    assert (stage.commits.given_back, stage.ledger.stale_refused) == ([], 0)


def test_a_worker_is_told_that_workers_died_with_the_rows_it_is_given() -> None:
    stage = Stage()
    stage.rows(2)
    for key in (1, 2, 3):
        stage.child.key = key
        stage.leasing.wants(stage.child, 2)
        stage.commits.become_durable()
        stage.ledger.lost(key)
    assert [lease.is_trial for lease in stage.hub.sent] == [False, False, True]


def test_what_was_handed_out_is_not_given_back_at_the_end() -> None:
    stage = Stage()
    stage.rows(2)
    stage.leasing.wants(stage.child, 2)
    stage.commits.become_durable()
    stage.leasing.stop()
    assert (stage.ledger.leased_count, stage.commits.given_back) == (2, [])


def test_a_lease_for_a_worker_that_was_replaced_is_not_sent_to_its_successor() -> None:
    stage = Stage()
    stage.rows(3)
    stage.leasing.wants(stage.child, 3)
    stage.ledger.lost(stage.child.key)
    stage.child.key = 2
    stage.commits.become_durable()
    assert stage.hub.sent == []


def test_leasing_waits_for_a_disk_that_is_behind() -> None:
    stage = Stage()
    stage.rows(3)
    stage.commits.backlog = WRITER_ROWS_MAX + 1
    stage.leasing.wants(stage.child, 3)
    assert stage.ledger.waiting_count == 3
    stage.commits.backlog = 0
    stage.leasing.serve()
    assert stage.ledger.leased_count == 3


def test_the_feed_is_asked_for_more_before_the_rows_run_out_and_not_after_the_end() -> None:
    stage = Stage()
    stage.rows(BACKLOG_ROWS + 10)
    assert stage.feed.asked == 0
    stage.leasing.wants(stage.child, 20)
    assert stage.feed.asked == 1
    stage.leasing.wants(stage.child, 20)
    assert stage.feed.asked == 1  # it has not come yet
    stage.rows(1)
    stage.leasing.all_read = True
    stage.leasing.wants(stage.child, 500)
    assert stage.feed.asked == 2


def test_finished_steps_that_are_too_large_for_one_message_go_ahead_of_their_lease() -> None:
    stage = Stage()
    steps = [StepLine(row, 0, 0, True, b"x" * (STEP_BYTES_MAX // 2), 1, 0, 0) for row in range(5)]
    sent: list[Message] = []

    def send(peer: bytes, message: Message) -> bool:
        sent.append(message)
        return True

    stage.hub.send = send  # type: ignore[method-assign]
    stage.leasing._find_steps = lambda rows, then: then(steps)
    stage.rows(5)
    stage.leasing.wants(stage.child, 5)
    stage.commits.become_durable()
    *ahead, lease = sent
    assert isinstance(lease, Lease) and all(isinstance(one, Finished) for one in ahead)
    told = [step for one in ahead if isinstance(one, Finished) for step in one.steps]
    assert [*told, *lease.done] == steps
    assert [len(one.steps) for one in ahead if isinstance(one, Finished)] == [2, 2]


def test_rows_whose_finished_steps_cannot_be_handed_on_are_given_back() -> None:
    stage = Stage()
    steps = [StepLine(row, 0, 0, True, b"x" * STEP_BYTES_MAX, 1, 0, 0) for row in range(2)]
    stage.hub.takes = False
    stage.leasing._find_steps = lambda rows, then: then(steps)
    stage.rows(2)
    stage.leasing.wants(stage.child, 2)
    stage.commits.become_durable()
    assert stage.commits.given_back == [(1, [0, 1])]
