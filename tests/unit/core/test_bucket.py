"""The quota by example. The proof over all interleavings is tests/property/test_bucket_machine.py."""

import math
from itertools import pairwise

import pytest

from engine.core.bucket import Bucket
from engine.core.pace import RAMP_S, Pace
from engine.core.quota import Quota
from engine.core.window import Window


def drain(quota: Quota, tokens: int, now: float) -> int:
    passed = 0
    while quota.take(tokens, now):
        passed += 1
    return passed


def run(quota: Quota, tokens: int, start: float, end: float) -> list[float]:
    """Take as early as possible; returns the times."""
    times = []
    now = max(start, quota.next_time(tokens, start))
    while now < end:
        if quota.take(tokens, now):
            times.append(now)
        now = max(now, quota.next_time(tokens, now))
    return times


def test_a_fresh_quota_begins_empty() -> None:
    quota = Quota(rpm=6_000, tpm=None, now=5.0)
    assert not quota.take(0, 5.0)
    assert quota.take(0, 5.02)


def test_after_an_idle_hour_no_more_than_50_ms_of_the_limit_leave_at_once() -> None:
    quota = Quota(rpm=60_000, tpm=None, now=0.0)
    assert 45 <= drain(quota, 0, 3_600.0) <= 50


@pytest.mark.parametrize("limit", [1, 2, 3, 60])
def test_small_limits_pass_one_at_a_time_and_are_used_almost_wholly(limit: int) -> None:
    quota = Quota(rpm=limit, tpm=None, now=0.0)
    assert drain(quota, 0, 600.0) == 1
    times = run(quota, 0, 600.0, 1_200.0)
    assert 0.98 * limit * 10 - 1 <= len(times) <= limit * 10
    assert min(b - a for a, b in pairwise(times)) >= 60 / limit * 0.95


def test_a_call_dearer_than_the_burst_passes_leaves_a_debt_and_does_not_slow_the_rest() -> None:
    quota = Quota(rpm=None, tpm=60_000, now=0.0)
    assert quota.take(6_000, 1.0)
    assert quota.next_time(1, 1.0) == pytest.approx(1.0 + 6.0, rel=0.02)
    assert len(run(quota, 100, 61.0, 121.0)) >= 0.98 * 600


def test_a_call_of_exactly_the_limit_passes_once_a_period_and_one_above_it_never() -> None:
    quota = Quota(rpm=None, tpm=1_000, now=0.0)
    assert quota.impossible(1_001)
    assert not quota.impossible(1_000)
    assert quota.next_time(1_001, 0.0) == math.inf
    times = run(quota, 1_000, 0.0, 200.0)
    assert len(times) == 4
    assert all(60.0 < b - a < 61.0 for a, b in pairwise(times))


def test_both_limits_must_permit_and_a_refused_call_is_charged_to_neither() -> None:
    quota = Quota(rpm=60, tpm=6_000_000, now=0.0)
    assert quota.take(1, 2.0)
    level = quota._tokens.level  # type: ignore[union-attr]
    assert not quota.take(1, 2.001)
    assert quota._tokens.level == pytest.approx(level, abs=100)  # type: ignore[union-attr]
    assert quota._tokens.window.total == 1  # type: ignore[union-attr]


def test_a_call_without_tokens_passes_in_spite_of_a_debt_of_tokens() -> None:
    quota = Quota(rpm=6_000, tpm=6_000, now=0.0)
    assert quota.take(3_000, 1.0)
    assert not quota.take(1, 1.1)
    assert quota.take(0, 1.1)


def test_a_restarted_limiter_waits_out_the_largest_debt_and_fills_the_window() -> None:
    quota = Quota(rpm=None, tpm=60_000, now=100.0, largest=10_000)
    # One second of credit, and the debt of 10,000 tokens at 1,000 a second.
    assert 100.0 + 10.0 < quota.next_time(1, 100.0) < 100.0 + 22.0
    assert quota.next_time(60_000, 100.0) > 159.0


def test_a_restarted_limiter_of_requests_alone_goes_on_within_a_second() -> None:
    quota = Quota(rpm=60_000, tpm=None, now=100.0, largest=1)
    assert quota.next_time(0, 100.0) < 101.0
    assert len(run(quota, 0, 100.0, 160.0)) >= 0.97 * 60_000


def test_more_is_charged_after_the_fact_and_a_hostile_figure_is_bounded() -> None:
    quota = Quota(rpm=None, tpm=60_000, now=0.0)
    assert quota.take(10, 1.0)
    quota.settle(500, 1.0)
    assert quota.next_time(10, 1.0) == pytest.approx(1.5, abs=0.05)
    quota.settle(10**18, 2.0)
    assert quota.next_time(10, 2.0) < 2.0 + 2 * 61.0


def test_no_more_comes_back_than_was_charged() -> None:
    quota = Quota(rpm=None, tpm=6_000, now=0.0)
    assert quota.take(3_000, 1.0)
    quota.settle(-(10**18), 1.1)
    assert quota._tokens.window.total == 0  # type: ignore[union-attr]
    assert quota._tokens.level <= 3_000  # type: ignore[union-attr]


def test_what_comes_back_in_a_pause_is_not_spent_at_its_end_at_once() -> None:
    quota = Quota(rpm=None, tpm=60_000, now=0.0)
    assert quota.take(20_000, 1.0)
    quota.throttled(10.0, 0, 0.0, 1.1)
    quota.settle(-20_000, 5.0)
    assert drain(quota, 10, 11.101) == 0


def test_a_burst_of_refusals_pauses_once_and_a_longer_wait_within_it_lengthens_the_pause() -> None:
    quota = Quota(rpm=6_000, tpm=None, now=0.0)
    assert quota.throttled(2.0, 0, 0.0, 1.0)
    assert not quota.throttled(1.0, 0, 0.0, 1.1)
    assert quota.paused_s(1.1) == pytest.approx(1.9)
    assert not quota.throttled(5.0, 0, 0.0, 1.1)
    assert quota.paused_s(1.1) == pytest.approx(5.0)
    assert quota.pauses == 1
    # The pause is over: a late reply of the same burst says nothing any more, one of a new call does.
    assert not quota.throttled(2.0, 0, 0.0, 7.0)
    assert quota.paused_s(7.0) == 0
    assert quota.throttled(2.0, 1, 0.0, 7.0)


@pytest.mark.parametrize("wait_s", [None, 0.0, -1.0, math.nan, -math.inf])
def test_a_wait_that_names_no_time_pauses_for_half_a_second_then_longer_up_to_two(
    wait_s: float | None,
) -> None:
    quota = Quota(rpm=6_000, tpm=None, now=0.0)
    now, pauses = 10.0, []
    for generation in range(4):
        quota.throttled(wait_s, generation, 0.0, now)
        pauses.append(quota.paused_s(now))
        now += pauses[-1] + 0.2
    assert pauses == pytest.approx([0.5, 1.0, 2.0, 2.0])
    quota.throttled(wait_s, 4, 0.0, now + 30.0)
    assert quota.paused_s(now + 30.0) == pytest.approx(0.5)


@pytest.mark.parametrize("wait_s", [1e9, math.inf])
def test_a_server_cannot_ask_for_more_than_two_minutes(wait_s: float) -> None:
    quota = Quota(rpm=6_000, tpm=None, now=0.0)
    quota.throttled(wait_s, 0, 0.0, 0.0)
    assert quota.paused_s(0.0) == 120.0


def test_after_a_pause_there_is_no_herd_and_the_rate_is_back_within_three_seconds() -> None:
    quota = Quota(rpm=60_000, tpm=None, now=0.0)
    drain(quota, 0, 60.0)
    quota.throttled(5.0, 0, 0.0, 60.0)
    times = run(quota, 0, 60.0, 72.0)
    assert times[0] >= 65.0
    assert sum(at < 65.1 for at in times) <= 3
    assert sum(68.0 <= at < 69.0 for at in times) >= 900


def test_refill_lost_to_late_timers_is_made_up_for_a_little_at_a_time() -> None:
    quota = Quota(rpm=60_000, tpm=None, now=0.0)
    now, passed = 0.0, 0
    while now < 20.0:
        passed += drain(quota, 0, now)
        now += 0.015
        if int(now * 1000) % 1_000 < 15:
            now += 0.07  # once a second the machine is busy elsewhere
    assert passed / now >= 0.97 * 1_000
    drain(quota, 0, now)
    assert drain(quota, 0, now + 0.01) <= 11


@pytest.mark.parametrize("limit", [0, -5])
def test_a_limit_that_admits_nothing_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="admits nothing"):
        Bucket(limit, 60.0, 0.0)


def test_pace_inverts_itself_before_in_and_after_a_ramp() -> None:
    pace = Pace()
    pace.paused_until = 10.0
    for start in (3.0, 10.0, 10.7, 12.4, 20.0):
        for refill_s in (0.001, 0.3, 1.0, 5.0):
            assert pace.between(start, pace.after(start, refill_s)) == pytest.approx(refill_s)
    assert pace.between(0.0, 10.0) == 0.0
    assert pace.between(10.0, 10.0 + RAMP_S) == pytest.approx(RAMP_S / 2)


def test_a_window_forgets_after_its_period_not_before_and_not_much_later() -> None:
    window = Window(60.0, 1_000.0)
    window.add(5)
    window.advance(1_060.1)
    assert window.total == 5
    assert 1_060.1 < window.falls_to(4) < 1_060.3
    window.advance(window.falls_to(4))
    assert window.total == 0
    window.add(3)
    window.advance(9_000.0)
    assert window.total == 0


def test_the_share_of_a_call_is_that_of_its_scarcer_limit() -> None:
    quota = Quota(rpm=600, tpm=60_000, now=0.0)
    assert quota.share(1, 10) == pytest.approx(0.1, rel=0.01)
    assert quota.share(1, 1_000) == pytest.approx(1.0, rel=0.01)


def test_what_is_given_back_lifts_the_level_by_that_much_and_no_more() -> None:
    bucket = Bucket(60_000, 60.0, 0.0, credit=True)
    bucket.advance(600.0, 600.0, wanted=False)
    bucket.spend(500)
    before = bucket.level
    bucket.give_back(30, spendable=True)
    assert bucket.level == before + 30
    assert bucket.window.total == 470
    bucket.give_back(10_000, spendable=True)
    assert (bucket.level, bucket.window.total) == (before + 500, 0)
