"""The circuit breaker, on a clock of the test's own."""

import pytest

from engine.core.breaker import (
    COOL_FIRST_S,
    COOL_MAX_S,
    FAILED_IN_A_ROW,
    OUT_FIRST_S,
    OUT_MAX_S,
    WAIT_MAX_S,
    WELL_AGAIN,
    Breaker,
    State,
)
from engine.core.errors import POLICY, ErrorKind, Health


def fail(breaker: Breaker, times: int, now: float, health: Health = Health.FAILS) -> list[bool]:
    """So many calls that were sent at ``now`` and failed at once."""
    found = []
    for _ in range(times):
        breaker.on_start()
        found.append(breaker.on_reply(health, now, now))
    return found


def probe(breaker: Breaker, now: float, health: Health) -> None:
    assert breaker.allows(now)
    breaker.on_start()
    breaker.on_reply(health, now, now)


def test_a_few_failures_in_a_row_open_it_and_it_lets_nothing_through() -> None:
    breaker = Breaker()
    assert fail(breaker, FAILED_IN_A_ROW, 1.0) == [*[False] * (FAILED_IN_A_ROW - 1), True]
    assert breaker.state is State.OPEN
    assert not breaker.allows(1.0 + COOL_FIRST_S * 0.74)
    assert breaker.is_ill(61.0, 60.0) and not breaker.is_ill(60.0, 60.0)


def test_failures_among_successes_open_it_only_when_half_of_late_are_failures() -> None:
    breaker = Breaker()
    for _ in range(100):
        assert fail(breaker, 1, 1.0) == [False]
        for _ in range(2):
            breaker.on_reply(Health.WELL, 1.0, 1.0)
    opened = [fail(breaker, 1, 1.0)[0] or breaker.on_reply(Health.WELL, 1.0, 1.0) for _ in range(20)]
    assert any(opened)


def test_a_burst_opens_it_once() -> None:
    breaker = Breaker()
    assert sum(fail(breaker, 500, 1.0)) == 1
    for _ in range(500):  # these were in flight when it opened
        assert not breaker.on_reply(Health.FAILS, 0.5, 1.2)
    assert breaker.openings == 1


def test_one_probe_goes_first_and_then_as_many_as_went_well() -> None:
    breaker = Breaker()
    fail(breaker, FAILED_IN_A_ROW, 0.0)
    now = 2.0
    assert breaker.allows(now)
    breaker.on_start()
    assert breaker.state is State.HALF_OPEN
    assert not breaker.allows(now)
    breaker.on_reply(Health.WELL, now, now)
    for _ in range(2):
        assert breaker.allows(now)
        breaker.on_start()
    assert not breaker.allows(now)
    breaker.on_reply(Health.WELL, now, now)
    breaker.on_reply(Health.WELL, now, now)
    for _ in range(WELL_AGAIN - 3):
        probe(breaker, now, Health.WELL)
    assert breaker.state is State.CLOSED
    assert not breaker.is_ill(1e9, 0.0)


def test_a_probe_that_fails_makes_the_next_one_wait_twice_as_long_up_to_a_bound() -> None:
    breaker = Breaker()
    fail(breaker, FAILED_IN_A_ROW, 0.0)
    now, waits = 0.0, []
    for _ in range(8):
        began = now
        while not breaker.allows(now):
            now += 0.01
        waits.append(now - began)
        probe(breaker, now, Health.FAILS)
    for wait, expected in zip(waits, (1, 2, 4, 8, 16, COOL_MAX_S, COOL_MAX_S, COOL_MAX_S), strict=True):
        assert 0.74 * expected <= wait <= 1.26 * expected
    assert (
        len({round(wait / 30, 3) for wait in waits[-3:]}) == 3
    )  # probes of several workers do not march in step


def test_a_probe_that_was_given_up_unsent_leaves_room_for_another() -> None:
    breaker = Breaker()
    fail(breaker, FAILED_IN_A_ROW, 0.0)
    assert breaker.allows(2.0)
    breaker.on_start()
    assert not breaker.allows(2.0)
    breaker.on_recalled(1)
    assert breaker.allows(2.0)


def test_a_reply_that_says_nothing_of_the_endpoint_is_no_success_and_gives_the_probe_back() -> None:
    breaker = Breaker()
    fail(breaker, FAILED_IN_A_ROW - 1, 0.0)
    breaker.on_reply(Health.NOTHING, 0.0, 0.0)
    assert fail(breaker, 1, 0.0) == [True]
    for _ in range(3 * WELL_AGAIN):
        probe(breaker, 2.0, Health.NOTHING)
    assert breaker.state is State.HALF_OPEN


def test_refusals_beside_successes_are_no_illness_and_refusals_alone_are() -> None:
    breaker = Breaker()
    for tenth in range(100):
        for _ in range(20):
            assert not breaker.on_reply(Health.REFUSES, tenth / 10, tenth / 10)
        breaker.on_reply(Health.WELL, tenth / 10, tenth / 10)
    opened = [breaker.on_reply(Health.REFUSES, at / 10, at / 10) for at in range(101, 140)]
    assert opened.index(True) == 20


@pytest.mark.parametrize(("wait_s", "expected_s"), [(20.0, 20.0), (1e9, WAIT_MAX_S), (1.0, 1.0)])
def test_a_wait_that_the_server_names_is_kept_at_once(wait_s: float, expected_s: float) -> None:
    breaker = Breaker()
    assert breaker.on_reply(Health.REFUSES, 5.0, 5.0, wait_s=wait_s, at_once=True)
    assert not breaker.allows(5.0 + expected_s - 0.01)
    assert breaker.allows(5.0 + expected_s + 0.5)


@pytest.mark.parametrize("wait_s", [None, 0.0, -1.0, 0.5, float("nan")])
def test_a_short_or_senseless_wait_does_not_open_it(wait_s: float | None) -> None:
    assert not Breaker().on_reply(Health.REFUSES, 5.0, 5.0, wait_s=wait_s, at_once=True)


def test_while_the_wall_is_searched_a_named_wait_opens_nothing_but_is_kept_once_it_is_open() -> None:
    breaker = Breaker()
    assert not breaker.on_reply(Health.REFUSES, 0.0, 0.0, wait_s=20.0)
    opened = [breaker.on_reply(Health.REFUSES, at / 10, at / 10, wait_s=20.0) for at in range(40)]
    assert opened.index(True) == 20
    assert not breaker.allows(21.9)


def test_what_somebody_has_to_mend_is_tried_seldom_and_at_last_again() -> None:
    breaker = Breaker()
    assert breaker.on_reply(Health.OUT, 0.0, 0.0, at_once=True)
    assert breaker.is_out and breaker.is_ill(0.0, 60.0)
    assert not breaker.allows(OUT_FIRST_S * 0.74)
    now = 0.0
    for _ in range(6):
        now += OUT_MAX_S * 1.26
        probe(breaker, now, Health.OUT)
    now += OUT_MAX_S * 1.26
    for _ in range(WELL_AGAIN):
        probe(breaker, now, Health.WELL)
    assert breaker.state is State.CLOSED and not breaker.is_out


def test_one_odd_refusal_while_it_recovers_is_a_failed_probe_and_no_more() -> None:
    breaker = Breaker()
    fail(breaker, FAILED_IN_A_ROW, 0.0)
    now = 0.0
    for _ in range(5):  # it was down for some time
        now += COOL_MAX_S * 1.3
        probe(breaker, now, Health.FAILS)
    now += COOL_MAX_S * 1.3
    probe(breaker, now, Health.OUT)  # a 404 of what starts before it
    assert not breaker.is_out
    assert breaker.allows(now + COOL_MAX_S * 1.3)


def test_failures_and_refusals_are_not_added_up() -> None:
    breaker = Breaker()
    fail(breaker, FAILED_IN_A_ROW - 1, 0.0)
    assert fail(breaker, FAILED_IN_A_ROW - 1, 0.0, Health.OUT) == [False] * (FAILED_IN_A_ROW - 1)
    assert breaker.state is State.CLOSED


def test_an_ill_endpoint_that_answers_once_is_ill_no_more() -> None:
    breaker = Breaker()
    fail(breaker, FAILED_IN_A_ROW, 0.0)
    assert breaker.is_ill(100.0, 60.0)
    probe(breaker, 100.0, Health.WELL)
    assert not breaker.is_ill(100.0, 60.0)


def test_a_refused_key_counts_after_several_in_a_row_and_an_empty_account_at_once() -> None:
    breaker = Breaker()
    assert fail(breaker, FAILED_IN_A_ROW, 0.0, Health.OUT)[-1]
    assert breaker.is_out


def test_every_failure_that_stops_a_run_concerns_its_endpoint() -> None:
    for kind, policy in POLICY.items():
        stops = policy.run not in ("none", "stop_store")
        assert (policy.health in (Health.OUT, Health.FAILS)) or not stops, kind
    assert POLICY[ErrorKind.BAD_REQUEST].health is Health.WELL
