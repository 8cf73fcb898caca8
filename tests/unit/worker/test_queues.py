"""Rows a worker holds, and how many more it asks for."""

from typing import Any

from engine.core.model import Call
from engine.core.retry import RetryBudget
from engine.wire.messages import RowLine
from engine.worker.execute import RowRun
from engine.worker.queues import BATCH_MIN, BATCH_S, Demand, Flow, Queues


class FakeAsking:
    call = Call("POST", "http://h/x", (), b"")


def run(row: int) -> RowRun:
    asking: Any = FakeAsking()
    return RowRun(1, row, b"{}", {}, asking, f"key-{row}")


def busy_budget() -> RetryBudget:
    """A budget of a run that has sent plenty."""
    budget = RetryBudget()
    for _ in range(1000):
        budget.on_call(0.0)
    return budget


def test_rows_wake_in_the_order_of_their_times_and_not_before() -> None:
    queues = Queues()
    for row, until in ((1, 3.0), (2, 1.0), (3, 2.0)):
        queues.sleep(run(row), until)
    queues.wake(0.5, busy_budget())
    assert [one.row for one in queues.due] == []
    queues.wake(2.5, busy_budget())
    assert [one.row for one in queues.due] == [2, 3]
    assert queues.sleeping_count == 1


def test_without_retry_budget_rows_sleep_on_and_none_is_lost() -> None:
    queues, budget = Queues(), RetryBudget()
    for row in range(500):
        queues.sleep(run(row), 1.0)
    queues.wake(1.0, budget)
    woken = len(queues.due)
    assert woken < 500
    assert woken + queues.sleeping_count == 500


def test_all_rows_are_given_back_whatever_they_wait_for() -> None:
    queues = Queues()
    queues.fresh.append((1, RowLine(1, 1, b"{}")))
    queues.due.append(run(2))
    queues.sleep(run(4), 9.0)
    assert queues.empty() == [1, 2, 4]
    assert queues.empty() == []


def test_an_idle_worker_asks_for_a_few_rows_and_a_busy_one_for_a_batch() -> None:
    demand, flow = Demand(), Flow()
    assert demand.missing(held=0, room=0, batch=flow.batch) == BATCH_MIN
    assert demand.missing(held=0, room=0, batch=flow.batch) == 0  # they are on their way
    demand.leased(BATCH_MIN)
    busy(flow)
    assert abs(flow.batch - 1000 * BATCH_S) <= 1
    assert demand.missing(held=0, room=0, batch=flow.batch) == flow.batch


def busy(flow: Flow) -> None:
    """1,000 requests a second, for a while."""
    for _ in range(200):
        for _ in range(100):
            flow.launched()
        flow.passed(0.1)


def test_small_gaps_are_not_asked_for_one_by_one() -> None:
    demand = Demand()
    assert demand.missing(held=290, room=0, batch=300) == 0
    assert demand.missing(held=150, room=0, batch=300) == 150


def test_room_for_calls_that_need_no_permit_is_asked_for_as_well() -> None:
    assert Demand().missing(held=0, room=60, batch=BATCH_MIN) == BATCH_MIN + 60
