"""Which endpoint takes a row, among lanes that stand as the test says."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.breaker import Breaker
from engine.core.errors import ErrorKind, Health
from engine.core.model import Call, Failure
from engine.wire.messages import OutcomeLine
from engine.worker.execute import Later, RowRun
from engine.worker.routing import HOPELESS_S, Router


class FakeLane:
    """A lane without an endpoint."""

    def __init__(self, number: int, weight: float = 1.0, *, well: bool = True, room: bool = True) -> None:
        self.number, self.bit, self.weight = number, 1 << number, weight
        self.well, self.room = well, room
        self.engaged = 0
        self.breaker = Breaker()
        self.health = Health.FAILS
        self.in_vain = self.spared = self.is_on_trial = False

    def is_well(self, now: float) -> bool:
        return self.well

    def may_serve(self, now: float, within_s: float) -> bool:
        return not self.breaker.is_ill(now, within_s)

    def has_room(self) -> bool:
        return self.room

    def health_of(self, failure: Failure) -> Health:
        return self.health

    def waits_in_vain(self, now: float) -> bool:
        return self.in_vain

    def has_spared(self, now: float) -> bool:
        return self.spared


def router(*lanes: FakeLane) -> Router:
    return Router(list(lanes))  # type: ignore[arg-type]


class FakeAsking:
    call = Call("POST", "http://h/x", (), b"")


def row() -> RowRun:
    asking: Any = FakeAsking()
    return RowRun(1, 7, b"{}", {}, asking, "key")


FAILURE = Failure(ErrorKind.SERVER_ERROR, "it failed", status=500)
OUTCOME = OutcomeLine(7, 1, False, "unauthorised", b"{}", 1, 1.0, 0, 0)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(50, 400))
def test_rows_are_divided_by_weight_while_all_have_room(weights: list[int], rows: int) -> None:
    lanes = [FakeLane(number, weight) for number, weight in enumerate(weights)]
    chosen = router(*lanes)
    for _ in range(rows):
        lane = chosen.pick(0.0)
        assert lane is not None
        lane.engaged += 1
    for lane in lanes:
        assert abs(lane.engaged - rows * lane.weight / sum(weights)) <= len(lanes)


def test_a_lane_without_room_is_passed_over_and_one_that_is_not_well_too() -> None:
    full, ill, free = FakeLane(0, room=False), FakeLane(1, well=False), FakeLane(2)
    free.engaged = 99
    assert router(full, ill, free).pick(0.0) is free  # type: ignore[comparison-overlap]
    free.room = False
    assert router(full, ill, free).pick(0.0) is None


def test_a_spare_takes_rows_only_while_no_other_is_well() -> None:
    main, spare = FakeLane(0, room=False), FakeLane(1, 0.0)
    chosen = router(main, spare)
    assert chosen.pick(0.0) is None  # it will have room again
    main.well = False
    assert chosen.pick(0.0) is spare  # type: ignore[comparison-overlap]


def test_a_spare_gets_nothing_for_one_failure_of_a_main_endpoint_that_is_well() -> None:
    main, spare = FakeLane(0), FakeLane(1, 0.0)
    chosen, run = router(main, spare), row()
    assert not chosen.diverts(main, run, Later(1.0), FAILURE, 0.0)  # type: ignore[arg-type]
    assert chosen.pick(0.0, avoid=main.bit) is main  # type: ignore[comparison-overlap]
    assert chosen.pick(0.0, shut=main.bit) is spare  # type: ignore[comparison-overlap]
    main.in_vain = spare.spared = True
    main.room = False
    assert chosen.stuck(0.0) == []


def test_a_row_avoids_who_failed_it_unless_no_other_is_well_and_who_refused_it_always() -> None:
    one, other = FakeLane(0), FakeLane(1)
    chosen = router(one, other)
    assert chosen.pick(0.0, avoid=one.bit) is other  # type: ignore[comparison-overlap]
    other.room = False
    assert chosen.pick(0.0, avoid=one.bit) is None
    other.well = False
    assert chosen.pick(0.0, avoid=one.bit) is one  # type: ignore[comparison-overlap]
    assert chosen.pick(0.0, shut=one.bit) is None


def test_with_one_endpoint_nothing_is_diverted() -> None:
    only = FakeLane(0, well=False)
    chosen = router(only)
    assert chosen.pick(0.0) is only  # type: ignore[comparison-overlap]
    only.health = Health.OUT
    assert not chosen.diverts(only, row(), OUTCOME, FAILURE, 0.0)  # type: ignore[arg-type]
    assert not chosen.diverts(only, row(), Later(1.0), FAILURE, 0.0)  # type: ignore[arg-type]
    assert chosen.stuck(0.0) == []


@pytest.mark.parametrize(
    ("health", "other_is_well", "goes"),
    [(Health.FAILS, True, True), (Health.REFUSES, True, True), (Health.FAILS, False, False),
     (Health.WELL, True, False), (Health.NOTHING, True, False)],
)  # fmt: skip
def test_a_retry_goes_elsewhere_at_once_where_that_helps(
    health: Health, other_is_well: bool, goes: bool
) -> None:
    one, other = FakeLane(0), FakeLane(1, well=other_is_well)
    one.health, run = health, row()
    assert router(one, other).diverts(one, run, Later(1.0), FAILURE, 0.0) is goes  # type: ignore[arg-type]
    assert run.avoid == (one.bit if goes else 0)
    assert not goes or run.avoid_until > 0.0


def test_a_row_that_all_endpoints_failed_waits_and_may_then_go_anywhere() -> None:
    lanes = [FakeLane(number) for number in range(3)]
    chosen, run = router(*lanes), row()
    assert chosen.diverts(lanes[0], run, Later(1.0), FAILURE, 0.0)  # type: ignore[arg-type]
    assert chosen.diverts(lanes[1], run, Later(1.0), FAILURE, 0.0)  # type: ignore[arg-type]
    assert chosen.pick(0.0, run.avoid) is lanes[2]  # type: ignore[comparison-overlap]
    assert not chosen.diverts(lanes[2], run, Later(1.0), FAILURE, 0.0)  # type: ignore[arg-type]
    assert run.avoid == 0


def test_a_row_does_not_probe_an_endpoint_that_has_failed_it_while_another_is_well() -> None:
    main, spare = FakeLane(0), FakeLane(1, 0.0)
    main.is_on_trial = True
    chosen = router(main, spare)
    assert chosen.pick(0.0) is main  # type: ignore[comparison-overlap]
    assert chosen.pick(0.0, tried=main.bit) is spare  # type: ignore[comparison-overlap]
    spare.well = False
    assert chosen.pick(0.0, tried=main.bit) is main  # type: ignore[comparison-overlap]
    spare.well, main.is_on_trial = True, False
    assert chosen.pick(0.0, tried=main.bit) is main  # type: ignore[comparison-overlap]


def test_failures_of_an_endpoint_do_not_use_up_what_another_may_try_and_no_attempt_is_given_back_twice() -> (
    None
):
    one, other = FakeLane(0), FakeLane(1)
    chosen, run = router(one, other), row()
    for lane, attempts in ((one, 4), (other, 2), (one, 1)):
        if run.lane != lane.number:
            run.move(lane.number)
        for _ in range(attempts):
            run.attempt += 1  # as the executor does
            chosen.diverts(lane, run, Later(1.0), FAILURE, 0.0)  # type: ignore[arg-type]
    assert run.attempt == 3
    run.attempt += 1  # a bad answer: the row's own
    one.health = Health.WELL
    chosen.diverts(one, run, Later(1.0), FAILURE, 0.0)  # type: ignore[arg-type]
    run.move(1)
    assert run.attempt == 4


def test_a_row_whose_retries_are_used_up_is_tried_by_each_endpoint_that_has_not_failed_it() -> None:
    lanes = [FakeLane(number) for number in range(3)]
    chosen, run = router(*lanes), row()
    for lane in lanes[:2]:
        assert chosen.diverts(lane, run, OUTCOME, FAILURE, 0.0)  # type: ignore[arg-type]
    assert chosen.pick(0.0, run.avoid) is lanes[2]  # type: ignore[comparison-overlap]
    assert not chosen.diverts(lanes[2], run, OUTCOME, FAILURE, 0.0)  # type: ignore[arg-type]


def test_a_row_that_is_only_too_large_for_one_quota_waits_for_the_others_as_long_as_it_takes() -> None:
    small, large = FakeLane(0), FakeLane(1, well=False)
    fail = large.breaker.on_reply
    for _ in range(10):
        fail(Health.FAILS, 5.0, 5.0)
    chosen, run = router(small, large), row()
    assert chosen.shuts(small, run, OUTCOME._replace(kind="request_too_large"), 1e6)  # type: ignore[arg-type]
    large.breaker = Breaker()
    large.breaker.on_reply(Health.OUT, 5.0, 5.0, at_once=True)
    assert not chosen.has_place(run, 5.0)


def test_a_row_that_one_endpoint_will_not_serve_tries_each_other_one_once() -> None:
    one, other = FakeLane(0), FakeLane(1)
    one.health = other.health = Health.OUT
    chosen, run = router(one, other), row()
    assert chosen.diverts(one, run, OUTCOME, FAILURE, 0.0)  # type: ignore[arg-type]
    assert not chosen.diverts(other, run, OUTCOME, FAILURE, 0.0)  # type: ignore[arg-type]
    assert run.refused == OUTCOME


def test_such_a_row_waits_for_an_endpoint_that_may_come_back_but_not_for_ever() -> None:
    one, other = FakeLane(0), FakeLane(1, well=False)
    one.health = Health.OUT
    for _ in range(10):
        other.breaker.on_reply(Health.FAILS, 5.0, 5.0)
    chosen, run = router(one, other), row()
    assert chosen.diverts(one, run, OUTCOME, FAILURE, 6.0)  # type: ignore[arg-type]
    assert chosen.has_place(run, 5.0 + HOPELESS_S - 1.0)
    assert not chosen.has_place(run, 5.0 + HOPELESS_S)


def test_rows_that_wait_for_permits_in_vain_are_told_where_others_are_idle() -> None:
    slow, idle = FakeLane(0), FakeLane(1)
    slow.in_vain = True
    chosen = router(slow, idle)
    assert chosen.stuck(0.0) == []
    idle.spared = True
    assert chosen.stuck(0.0) == [slow]
    idle.room = False
    assert chosen.stuck(0.0) == []
    idle.room, idle.well = True, False
    assert chosen.stuck(0.0) == []
