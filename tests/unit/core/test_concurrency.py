"""The in-flight limit by example."""

import pytest

from engine.core.concurrency import (
    COOLDOWN_S,
    FLAT_S,
    PROBE_S,
    ROUND_MIN_S,
    SHUT_MAX_S,
    START,
    STRUCK_ROUNDS,
    Concurrency,
)
from engine.core.errors import Signal

CALL_S = 0.2


def rounds(
    limit: Concurrency, count: int, now: float, in_flight: int | None = None, call_s: float = CALL_S
) -> float:
    """That many rounds of clean replies with the limit (or ``in_flight``) in flight all the time."""
    for _ in range(count):
        flying = limit.limit if in_flight is None else in_flight
        for _ in range(flying):
            limit.on_start()
        for _ in range(flying):
            limit.on_reply(Signal.NONE, now, now + call_s)
        now += call_s
    return now


def reply(limit: Concurrency, signal: Signal, started_at: float, now: float) -> None:
    limit.on_start()
    limit.on_reply(signal, started_at, now)


def refuse(limit: Concurrency, count: int, now: float) -> float:
    """So many refusals of calls just sent, and the end of their round."""
    for _ in range(count):
        reply(limit, Signal.CUT, now, now + 0.001)
    now += 10 * ROUND_MIN_S
    limit.tick(now)
    return now


def test_a_fixed_limit_is_there_from_the_start() -> None:
    assert Concurrency(512, 512).limit == 512


def test_without_a_start_it_begins_small_and_doubles_up_to_the_ceiling() -> None:
    limit = Concurrency(100)
    seen = [limit.limit]
    now = 0.0
    for _ in range(4):
        now = rounds(limit, 1, now)
        seen.append(limit.limit)
    assert seen == [START, 40, 80, 100, 100]


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    limit = Concurrency(100)
    rounds(limit, 50, 0.0, in_flight=10)
    assert limit.limit == START


def test_a_round_is_no_shorter_than_a_call() -> None:
    limit = Concurrency(1_000)
    for number in range(100):
        reply(limit, Signal.NONE, 0.0, 0.0001 * number)
    assert limit.limit == START


def test_a_refused_call_keeps_its_slot_until_the_round_ends_and_then_the_limit_is_what_was_taken() -> None:
    limit = Concurrency(100, 100)
    for number in range(30):
        reply(limit, Signal.CUT, 1.0, 1.0)
        assert limit.limit == 99 - number
    assert limit.cuts == 0
    limit.tick(1.0 + ROUND_MIN_S)
    assert (limit.limit, limit.cuts) == (70, 1)


def test_refusals_of_calls_that_were_in_flight_before_the_cut_do_not_cut_again() -> None:
    limit = Concurrency(100, 100)
    now = refuse(limit, 30, 1.0)
    for _ in range(20):
        reply(limit, Signal.CUT, now - 0.01, now + 0.2)
    limit.tick(now + 1)
    assert (limit.limit, limit.cuts) == (70, 1)


def test_good_replies_to_calls_from_before_a_cut_do_not_count() -> None:
    limit = Concurrency(100, 100)
    now = refuse(limit, 30, 1.0)
    for number in range(400):
        reply(limit, Signal.NONE, now - 0.01, now + number / 100)
    assert limit.limit == 70


def at_the_wall(wall: int) -> tuple[Concurrency, float]:
    """A limit that has just met a wall by growing."""
    limit = Concurrency(1_000, wall)
    now = rounds(limit, 1, 0.0)
    return limit, refuse(limit, limit.limit - wall, now)


def test_at_the_wall_one_call_more_is_tried_now_and_then() -> None:
    limit, now = at_the_wall(40)
    assert limit.limit == 40
    quiet = rounds(limit, int(PROBE_S * 0.7 / CALL_S), now)
    assert limit.limit == 40
    rounds(limit, int(PROBE_S * 0.6 / CALL_S), quiet)
    assert limit.limit > 40


def test_where_a_probe_goes_well_the_step_doubles() -> None:
    limit, now = at_the_wall(40)
    now += PROBE_S * 2
    seen = []
    for _ in range(6):
        now = rounds(limit, 1, now)
        seen.append(limit.limit)
    assert seen == [41, 43, 47, 55, 71, 103]


def test_several_workers_take_turns_in_trying() -> None:
    limits = [Concurrency(100, 20, workers=4, place=place) for place in range(4)]
    grow_at = []
    for limit in limits:
        now = rounds(limit, 1, 0.0)
        refuse(limit, 1, now)
        grow_at.append(limit._grow_at)
    assert min(grow_at) >= 0.75 * PROBE_S * 4
    assert len({round(at, 1) for at in grow_at}) == 4


def test_who_was_refused_without_having_grown_may_grow_again_soon() -> None:
    limit = Concurrency(100, 100)
    now = refuse(limit, 1, 1.0)
    assert limit.limit == 99
    rounds(limit, STRUCK_ROUNDS + 3, now, call_s=ROUND_MIN_S)
    assert limit.limit > 99


def test_a_failing_server_holds_growth_and_does_not_cut() -> None:
    limit = Concurrency(100, 20)
    for number in range(200):
        for _ in range(20):
            limit.on_start()
        for place in range(20):
            limit.on_reply(Signal.HOLD if place in (5, 15) else Signal.NONE, number, number + 0.2)
    assert limit.limit == 20


def test_who_gets_nothing_through_shuts_for_longer_and_longer_and_opens_by_itself() -> None:
    limit = Concurrency(3, 3)
    now = refuse(limit, 3, 1.0)
    waits = []
    for _ in range(8):
        assert limit.limit == 0
        began = now
        while not limit.limit:
            now += 0.01
            limit.tick(now)
        waits.append(now - began)
        assert limit.limit == 1
        now = refuse(limit, 1, now)
    assert waits == pytest.approx(sorted(waits), rel=0.02)
    assert waits[-1] == pytest.approx(SHUT_MAX_S, abs=0.02)
    while not limit.limit:
        now += 0.01
        limit.tick(now)
    rounds(limit, 30, now)
    assert limit.limit == 3


def test_growth_that_only_lengthens_a_queue_is_taken_back() -> None:
    limit = Concurrency(4_096, 32)
    now = 0.0
    for _ in range(8):  # a server that works on 64 at once, and lets the others wait
        now = rounds(limit, 1, now, call_s=CALL_S * max(1.0, limit.limit / 64))
    assert limit.limit == 64
    rounds(limit, 20, now)
    assert limit.limit == 64  # what brought nothing is not tried again at once
    rounds(limit, 4, now + FLAT_S)
    assert limit.limit > 64


@pytest.mark.parametrize("count", [1, 100])
def test_under_a_quota_a_burst_of_refusals_cuts_once_and_by_a_fifth(count: int) -> None:
    limit = Concurrency(100, 100)
    for _ in range(count):
        limit.on_start()
    for number in range(count):
        limit.on_reply(Signal.PAUSE, 10.0, 10.2 + number / 1000)
    assert (limit.limit, limit.cuts) == (80, 1)


def test_under_a_quota_later_refusals_cut_again_but_not_within_the_cooldown() -> None:
    limit = Concurrency(100, 100)
    reply(limit, Signal.PAUSE, 0.0, 1.0)
    reply(limit, Signal.PAUSE, 1.1, 1.2)
    assert limit.limit == 80
    reply(limit, Signal.PAUSE, 1.1, 1.0 + COOLDOWN_S)
    assert limit.limit == 64


def test_under_a_quota_too_the_wall_is_not_tried_again_at_once() -> None:
    limit = Concurrency(1_000, 40)
    now = rounds(limit, 1, 0.0)
    reply(limit, Signal.PAUSE, now, now + 0.01)
    cut = limit.limit
    assert cut < 80
    quiet = rounds(limit, int(PROBE_S * 0.7 / CALL_S), now + 0.02)
    assert limit.limit == cut
    rounds(limit, int(PROBE_S * 0.6 / CALL_S), quiet)
    assert limit.limit > cut


def test_another_ceiling_moves_a_limit_that_stood_at_the_old_one_and_keeps_a_lower_one() -> None:
    limit = Concurrency(64, 64)
    limit.retune(128)
    assert limit.limit == 128
    refuse(limit, 28, 1.0)
    limit.retune(256)
    assert limit.limit == 100
    limit.retune(50)
    assert limit.limit == 50


@pytest.mark.parametrize(("ceiling", "start"), [(0, None), (5, 0)])
def test_no_call_at_all_is_no_limit(ceiling: int, start: int | None) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Concurrency(ceiling, start)
