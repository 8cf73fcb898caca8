"""The in-flight limit by example."""

import pytest

from engine.core.concurrency import COOLDOWN_S, START, Concurrency
from engine.core.errors import Signal


def rounds(limit: Concurrency, count: int, now: float, in_flight: int | None = None) -> float:
    """That many rounds of clean replies with the limit (or ``in_flight``) in flight all the time."""
    for _ in range(count):
        flying = limit.limit if in_flight is None else in_flight
        for _ in range(flying):
            limit.on_start()
        for _ in range(flying):
            limit.on_reply(Signal.NONE, now, now + 0.2)
        now += 0.2
    return now


def reply(limit: Concurrency, signal: Signal, started_at: float, now: float) -> None:
    limit.on_start()
    limit.on_reply(signal, started_at, now)


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


@pytest.mark.parametrize("signal", [Signal.CUT, Signal.PAUSE])
def test_a_burst_of_refusals_cuts_once(signal: Signal) -> None:
    limit = Concurrency(100, 100)
    for _ in range(100):
        limit.on_start()
    for number in range(100):
        limit.on_reply(signal, 10.0, 10.2 + number / 100)
    assert (limit.limit, limit.cuts) == (80, 1)


def test_refusals_of_calls_sent_after_the_cut_cut_again_but_not_within_the_cooldown() -> None:
    limit = Concurrency(100, 100)
    reply(limit, Signal.CUT, 0.0, 1.0)
    reply(limit, Signal.CUT, 1.1, 1.2)
    assert limit.limit == 80
    reply(limit, Signal.CUT, 1.1, 1.0 + COOLDOWN_S)
    assert limit.limit == 64


def test_good_replies_to_calls_from_before_a_cut_do_not_count() -> None:
    limit = Concurrency(100, 100)
    reply(limit, Signal.CUT, 0.0, 1.0)
    for _ in range(400):
        reply(limit, Signal.NONE, 0.5, 1.5)
    assert limit.limit == 80


def test_right_after_a_cut_it_does_not_grow() -> None:
    limit = Concurrency(100, 100)
    reply(limit, Signal.CUT, 0.0, 1.0)
    rounds(limit, 3, 1.0)
    assert limit.limit == 80


def test_after_a_cut_it_grows_by_a_twentieth_a_round_back_to_the_ceiling() -> None:
    limit = Concurrency(100, 100)
    reply(limit, Signal.CUT, 0.0, 1.0)
    now = rounds(limit, 1, 1.0 + COOLDOWN_S)
    assert limit.limit == 84
    rounds(limit, 10, now)
    assert limit.limit == 100


def test_a_failing_server_holds_growth_and_does_not_cut() -> None:
    limit = Concurrency(100, 20)
    for number in range(200):
        for _ in range(20):
            limit.on_start()
        for place in range(20):
            limit.on_reply(Signal.HOLD if place == 10 else Signal.NONE, number, number + 0.2)
    assert limit.limit == 20


def test_it_never_falls_below_one_call_and_grows_from_there() -> None:
    limit = Concurrency(8, 8)
    for second in range(40):
        reply(limit, Signal.CUT, 2.0 * second + 0.5, 2.0 * second + 1.0)
    assert limit.limit == 1
    rounds(limit, 3, 100.0)
    assert limit.limit == 4


def test_another_ceiling_moves_a_limit_that_stood_at_the_old_one_and_keeps_a_lower_one() -> None:
    limit = Concurrency(64, 64)
    limit.retune(128)
    assert limit.limit == 128
    reply(limit, Signal.CUT, 0.0, 1.0)
    limit.retune(256)
    assert limit.limit == 102
    limit.retune(50)
    assert limit.limit == 50


@pytest.mark.parametrize(("ceiling", "start"), [(0, None), (5, 0)])
def test_no_call_at_all_is_no_limit(ceiling: int, start: int | None) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Concurrency(ceiling, start)
