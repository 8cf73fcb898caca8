"""The retry budget against a record of every call and retry; delays against their bounds for any input."""

from random import Random

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.core.errors import POLICY, ErrorKind, Retry
from engine.core.retry import RetryBudget, RetryPolicy


class BudgetMachine(RuleBasedStateMachine):
    @initialize(share=st.sampled_from([1.0, 0.5, 0.125]), now=st.floats(0, 1e6))
    def start(self, share: float, now: float) -> None:
        self.now, self.floor_per_s = now, 10.0 * share
        self.budget = RetryBudget(share=share)
        self.budget.on_call(now)
        self.calls = [now]
        self.passed: list[float] = []
        self.on_floor: list[float] = []  # those that passed beyond the share of the calls

    @rule(count=st.integers(1, 200), spread_s=st.floats(0, 0.1))
    def calls_are_sent(self, count: int, spread_s: float) -> None:
        for _ in range(count):
            self.budget.on_call(self.now)
            self.calls.append(self.now)
            self.now += spread_s

    @rule(count=st.integers(1, 100))
    def retries_are_asked_for(self, count: int) -> None:
        for _ in range(count):
            beyond = self.budget.retries >= 0.2 * self.budget.calls
            wait_s = self.budget.ask(self.now)
            if wait_s:
                assert beyond, "a retry was put off although the budget was not spent"
                assert 0.5 <= wait_s <= 2.0
            else:
                self.passed.append(self.now)
                if beyond:
                    self.on_floor.append(self.now)

    @rule(seconds=st.floats(0, 90))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.floats(0, 90))
    def clock_goes_back(self, seconds: float) -> None:
        self.budget.on_call(self.now - seconds)
        # It counts for the latest time that was ever named.
        self.calls.append(float(self.budget._second))

    @invariant()
    def counts_are_those_of_the_last_minute(self) -> None:
        if not hasattr(self, "budget"):
            return
        oldest = int(self.now) - 59
        if self.budget._second == int(self.now):
            assert self.budget.calls == sum(at >= oldest for at in self.calls)
            assert self.budget.retries == sum(at >= oldest for at in self.passed)

    @invariant()
    def the_floor_is_a_floor_and_no_more(self) -> None:
        times = getattr(self, "on_floor", [])
        first = 0
        for last, at in enumerate(times):
            while times[first] < at - 1.0:
                first += 1
            assert last - first + 1 <= 3 + self.floor_per_s + 1


BudgetMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestBudget = BudgetMachine.TestCase


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(ErrorKind),
    attempt=st.integers(1, 10_000),
    wait_s=st.none() | st.floats(),
    throttles=st.integers(0, 10**6),
    stale=st.integers(0, 5),
    retries=st.integers(0, 10_000),
    seed=st.integers(0, 2**32),
)
def test_a_decision_is_within_its_bounds_for_any_failure(
    kind: ErrorKind, attempt: int, wait_s: float | None, throttles: int, stale: int, retries: int, seed: int
) -> None:
    decision = RetryPolicy(retries, Random(seed)).decide(
        kind, attempt, wait_s, throttles=throttles, stale=stale
    )
    assert 0 <= decision.delay_s <= 125.0
    if not decision.retry:
        assert POLICY[kind].retry is Retry.NEVER or attempt > retries
    elif not decision.free:
        assert attempt <= retries
    if decision.retry and wait_s is not None and wait_s > 0 and kind is not ErrorKind.STALE_KEEPALIVE:
        assert decision.delay_s >= min(wait_s, 120.0)
