"""The in-flight limit over arbitrary replies, and against servers with a wall."""

import heapq

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.core.concurrency import COOLDOWN_S, Concurrency
from engine.core.errors import Signal


class ConcurrencyMachine(RuleBasedStateMachine):
    @initialize(ceiling=st.integers(1, 200), start=st.none() | st.integers(1, 200))
    def begin(self, ceiling: int, start: int | None) -> None:
        self.limit = Concurrency(ceiling, start)
        self.now = 0.0
        self.flying: list[float] = []
        self.cut_times: list[float] = []

    @rule(count=st.integers(1, 300))
    def send(self, count: int) -> None:
        for _ in range(count):
            if len(self.flying) < self.limit.limit:
                self.limit.on_start()
                self.flying.append(self.now)
                self.now += 0.001

    @precondition(lambda self: getattr(self, "flying", None))
    @rule(
        signal=st.sampled_from([Signal.NONE, Signal.NONE, Signal.HOLD, Signal.CUT, Signal.PAUSE]),
        count=st.integers(1, 300),
        newest=st.booleans(),
        seconds=st.floats(0, 2),
    )
    def replies(self, signal: Signal, count: int, newest: bool, seconds: float) -> None:
        self.now += seconds
        for _ in range(min(count, len(self.flying))):
            started_at = self.flying.pop(-1 if newest else 0)
            before, cuts = self.limit.limit, self.limit.cuts
            self.limit.on_reply(signal, started_at, self.now)
            after = self.limit.limit
            if after < before:
                assert signal in (Signal.CUT, Signal.PAUSE)
                assert after >= int(before * 0.8)
            if after > before:
                assert signal is Signal.NONE
            if self.limit.cuts > cuts:
                assert all(started_at >= at for at in self.cut_times)
                assert not self.cut_times or self.now >= self.cut_times[-1] + COOLDOWN_S
                self.cut_times.append(self.now)

    @rule(ceiling=st.integers(1, 200))
    def retune(self, ceiling: int) -> None:
        self.limit.retune(ceiling)

    @invariant()
    def within_bounds(self) -> None:
        if hasattr(self, "limit"):
            assert 1 <= self.limit.limit <= self.limit.ceiling
            assert self.limit.in_flight == len(self.flying)


ConcurrencyMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestConcurrency = ConcurrencyMachine.TestCase


@settings(max_examples=8, deadline=None)
@given(wall=st.integers(15, 150), latency_s=st.floats(0.05, 0.5))
def test_against_a_server_with_a_wall_the_limit_settles_close_to_it(wall: int, latency_s: float) -> None:
    """A server that takes ``wall`` calls at once and refuses the others within 5 ms, the last half of half a minute."""
    limit = Concurrency(1_000)
    now, serving = 0.0, 0
    ends: list[tuple[float, int, float, bool]] = []
    serial = good = bad = 0
    while now < 30.0:
        while limit.in_flight < limit.limit:
            limit.on_start()
            taken = serving < wall
            serving += taken
            serial += 1
            spread = 1 + (serial * 0.618 % 1 - 0.5) / 5
            heapq.heappush(ends, (now + (latency_s * spread if taken else 0.005), serial, now, taken))
        now, _, started_at, taken = heapq.heappop(ends)
        serving -= taken
        limit.on_reply(Signal.NONE if taken else Signal.CUT, started_at, now)
        if now > 15.0:
            good, bad = good + taken, bad + (not taken)
    assert good >= 0.75 * wall * 15.0 / latency_s
    assert bad <= 0.05 * good
