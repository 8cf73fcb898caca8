"""Retry decisions and the run-wide budget, by example."""

import math
from random import Random

import pytest

from engine.core.errors import POLICY, ErrorKind, Retry, RunEffect
from engine.core.retry import RetryBudget, RetryPolicy


def make_policy(retries: int = 5, seed: int = 0) -> RetryPolicy:
    return RetryPolicy(retries, Random(seed))


REPEATED = {
    "rate_limited", "overloaded", "server_error", "timeout", "connection_reset", "protocol_error", "stale_keepalive", "dns",
    "connect_refused", "bad_reply", "schema_mismatch", "function_error",
}  # fmt: skip


def test_exactly_these_kinds_are_repeated_and_these_stop_a_run() -> None:
    assert {str(kind) for kind in ErrorKind if make_policy().decide(kind, 1).retry} == REPEATED
    stops = {str(kind): str(POLICY[kind].run) for kind in ErrorKind if POLICY[kind].run is not RunEffect.NONE}
    assert stops == {
        "quota_exhausted": "stop",
        "not_found": "stop_after_streak",
        "unauthorised": "stop_after_streak",
        "dns": "stop_if_never_answered",
        "connect_refused": "stop_if_never_answered",
        "store_failure": "stop_store",
    }
    assert {str(kind) for kind in ErrorKind if not POLICY[kind].costs_attempt} == {
        "rate_limited",
        "stale_keepalive",
    }


@pytest.mark.parametrize("kind", [kind for kind in ErrorKind if POLICY[kind].retry is Retry.NEVER])
def test_what_cannot_pass_is_never_repeated(kind: ErrorKind) -> None:
    assert not make_policy().decide(kind, 1, 5.0).retry


@pytest.mark.parametrize("kind", [kind for kind in ErrorKind if POLICY[kind].retry is not Retry.NEVER])
def test_everything_else_is_repeated_at_its_first_failure(kind: ErrorKind) -> None:
    decision = make_policy().decide(kind, 1)
    assert decision.retry
    assert decision.free is not POLICY[kind].costs_attempt


def test_attempts_are_bounded_by_retries() -> None:
    policy = make_policy(retries=2)
    assert policy.decide(ErrorKind.SERVER_ERROR, 2).retry
    assert not policy.decide(ErrorKind.SERVER_ERROR, 3).retry
    assert not make_policy(retries=0).decide(ErrorKind.BAD_REPLY, 1).retry


def test_backoff_is_a_full_jitter_that_doubles_up_to_twenty_seconds() -> None:
    policy = make_policy(retries=100)
    for attempt, bound in ((1, 0.5), (2, 1.0), (4, 4.0), (20, 20.0), (90, 20.0)):
        delays = [policy.decide(ErrorKind.SERVER_ERROR, attempt).delay_s for _ in range(400)]
        assert max(delays) <= bound
        assert max(delays) > 0.9 * bound
        assert min(delays) < 0.1 * bound


def test_a_dead_endpoint_is_tried_for_longer_than_the_run_waits_for_it() -> None:
    policy = make_policy()
    for _ in range(200):
        waited = sum(policy.decide(ErrorKind.CONNECT_REFUSED, attempt).delay_s for attempt in range(1, 6))
        assert waited > 15.0


@pytest.mark.parametrize("kind", [ErrorKind.RATE_LIMITED, ErrorKind.OVERLOADED, ErrorKind.SERVER_ERROR])
def test_a_servers_wait_is_kept_with_jitter_on_top_and_a_cap(kind: ErrorKind) -> None:
    policy = make_policy()
    waits = [policy.decide(kind, 1, 7.0).delay_s for _ in range(100)]
    assert min(waits) >= 7.0
    assert max(waits) <= 12.0
    assert len(set(waits)) == 100
    assert 120.0 <= policy.decide(kind, 1, 1e9).delay_s <= 125.0


@pytest.mark.parametrize("wait_s", [None, 0.0, -1.0, math.nan])
def test_a_wait_that_names_no_time_is_a_backoff(wait_s: float | None) -> None:
    policy = make_policy()
    assert all(0 <= policy.decide(ErrorKind.RATE_LIMITED, 1, wait_s).delay_s <= 0.5 for _ in range(50))


def test_being_refused_for_the_rate_costs_no_attempt_and_backs_off_more_each_time() -> None:
    policy = make_policy(retries=1)
    decision = policy.decide(ErrorKind.RATE_LIMITED, 2, throttles=40)
    assert decision.retry and decision.free
    assert max(policy.decide(ErrorKind.RATE_LIMITED, 1, throttles=3).delay_s for _ in range(200)) > 3.0


def test_where_nothing_is_known_of_the_limit_being_refused_for_the_rate_costs_attempts() -> None:
    policy = RetryPolicy(2, Random(0), refusals_count=True)
    ends = [policy.decide(ErrorKind.RATE_LIMITED, attempt, 7.0) for attempt in (1, 2, 3)]
    assert [(one.retry, one.free) for one in ends] == [(True, False), (True, False), (False, False)]
    assert ends[0].delay_s >= 7.0
    assert policy.decide(ErrorKind.STALE_KEEPALIVE, 1).free


def test_a_stale_connection_is_repeated_at_once_and_free_but_only_once() -> None:
    policy = make_policy(retries=0)
    assert policy.decide(ErrorKind.STALE_KEEPALIVE, 1) == (True, 0.0, True)
    assert not policy.decide(ErrorKind.STALE_KEEPALIVE, 1, stale=1).retry
    again = make_policy(retries=1).decide(ErrorKind.STALE_KEEPALIVE, 1, stale=1)
    assert again.retry and not again.free


def test_the_first_reask_goes_at_once_and_later_ones_step_back() -> None:
    policy = make_policy()
    assert policy.decide(ErrorKind.SCHEMA_MISMATCH, 1).delay_s == 0.0
    assert policy.decide(ErrorKind.SCHEMA_MISMATCH, 3).delay_s > 0.0


def test_a_fifth_of_the_calls_may_be_retries() -> None:
    budget = RetryBudget(floor_per_s=0.001)
    for number in range(1_000):
        budget.on_call(number / 100)
    passed = sum(budget.ask(10.0) == 0.0 for _ in range(1_000))
    assert 200 <= passed <= 203


def test_a_spent_budget_says_when_to_ask_again_and_spreads_those_who_wait() -> None:
    budget = RetryBudget(floor_per_s=0.001)
    while budget.ask(5.0) == 0.0:
        pass
    waits = [budget.ask(5.0) for _ in range(300)]
    assert all(0.5 <= wait <= 2.0 for wait in waits)
    assert len({int(wait * 10) for wait in waits}) >= 14


def test_a_small_run_has_a_floor_that_its_workers_share() -> None:
    def passed_in_ten_seconds(share: float) -> int:
        budget = RetryBudget(share=share)
        return sum(budget.ask(100.0 + tick / 50) == 0.0 for tick in range(500))

    assert 100 <= passed_in_ten_seconds(1.0) <= 103
    assert 12 <= passed_in_ten_seconds(1 / 8) <= 16


def test_calls_and_retries_of_more_than_a_minute_ago_are_forgotten() -> None:
    budget = RetryBudget()
    for _ in range(50):
        budget.on_call(100.0)
        budget.ask(100.0)
    budget.on_call(159.9)
    assert budget.calls == 51
    budget.on_call(160.0)
    assert (budget.calls, budget.retries) == (2, 0)
    budget.on_call(10_000.0)
    assert budget.calls == 1
