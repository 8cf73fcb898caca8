"""The in-flight limit over arbitrary replies, and against servers with a wall that moves."""

import heapq
from dataclasses import dataclass, field
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.core.concurrency import SHUT_MAX_S, START, Concurrency
from engine.core.errors import Signal


class ConcurrencyMachine(RuleBasedStateMachine):
    @initialize(ceiling=st.integers(1, 200), start=st.none() | st.integers(1, 200))
    def begin(self, ceiling: int, start: int | None) -> None:
        self.limit = Concurrency(ceiling, start, workers=3)
        self.now = 0.0
        self.flying: list[float] = []

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
            before, decided_at = self.limit.limit, self.limit._decided_at
            flat = self.limit._flat
            self.limit.on_reply(signal, started_at, self.now)
            after = self.limit.limit
            if started_at < decided_at:
                assert after == before or signal is Signal.PAUSE, "a call from before a decision changed it"
            if signal is Signal.CUT:
                assert before - 1 <= after <= before
            elif after < before:
                assert signal is Signal.PAUSE or (signal is Signal.NONE and flat)
            if after > before:
                assert signal in (Signal.NONE, Signal.HOLD, Signal.PAUSE)

    @rule(seconds=st.floats(0, 1))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.limit.tick(self.now)

    @rule(ceiling=st.integers(1, 200))
    def retune(self, ceiling: int) -> None:
        self.limit.retune(ceiling)

    @rule()
    def it_is_never_shut_for_long(self) -> None:
        if self.flying:
            return
        self.now += SHUT_MAX_S + 2.5
        self.limit.tick(self.now)
        self.now += SHUT_MAX_S
        self.limit.tick(self.now)
        assert self.limit.limit >= 1

    @invariant()
    def within_bounds(self) -> None:
        if hasattr(self, "limit"):
            assert 0 <= self.limit.limit <= self.limit.ceiling
            assert self.limit.in_flight == len(self.flying)


ConcurrencyMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestConcurrency = ConcurrencyMachine.TestCase


@dataclass
class Server:
    """Takes ``wall`` calls at once, each for about ``latency_s``, and refuses the others within milliseconds."""

    latency_s: float
    walls: list[tuple[float, int]]  # since when which
    seed: int = 1
    replies: list[tuple[float, bool]] = field(default_factory=list)

    def wall(self, now: float) -> int:
        return [wall for since, wall in self.walls if since <= now][-1]

    def serve(self, workers: int, until: float) -> None:
        """Workers that send whenever their limits let them, looked after every 50 ms."""
        rng = Random(self.seed)
        limits = [
            Concurrency(4_096 // workers, max(1, START // workers), workers=workers, place=place)
            for place in range(workers)
        ]
        events: list[tuple[float, int, int, float, bool]] = []
        now, tick_at, serving, serial = 0.0, 0.05, 0, 0
        while now < until:
            order = list(range(workers))
            rng.shuffle(order)
            while sending := [place for place in order if limits[place].in_flight < limits[place].limit]:
                for place in sending:
                    limits[place].on_start()
                    taken = serving < self.wall(now)
                    serving += taken
                    serial += 1
                    takes_s = self.latency_s * rng.uniform(0.8, 1.2) if taken else rng.uniform(0.001, 0.005)
                    heapq.heappush(events, (now + takes_s, serial, place, now, taken))
            if not events or tick_at < events[0][0]:
                now, tick_at = tick_at, tick_at + 0.05
                for limit in limits:
                    limit.tick(now)
                continue
            now, _, place, started_at, taken = heapq.heappop(events)
            serving -= taken
            limits[place].on_reply(Signal.NONE if taken else Signal.CUT, started_at, now)
            self.replies.append((now, taken))

    def used(self, start: float, end: float) -> tuple[float, float]:
        """Of what it can give the part that was used, and the share of refusals, between two times."""
        seen = [taken for at, taken in self.replies if start <= at < end]
        can_give = self.wall(start) / self.latency_s * (end - start)
        return sum(seen) / can_give, seen.count(False) / len(seen)


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("latency_s", [0.05, 0.3])
def test_a_wall_that_moves_is_found_within_fifteen_seconds_and_hardly_ever_hit(
    workers: int, latency_s: float
) -> None:
    server = Server(latency_s, [(0.0, 50), (25.0, 200), (50.0, 20)])
    server.serve(workers, 75.0)
    for start in (0.0, 25.0, 50.0):
        use, refused = server.used(start + 15.0, start + 25.0)
        assert use >= 0.92, start
        assert refused < 0.02, start


@settings(max_examples=8, deadline=None)
@given(wall=st.integers(15, 150), latency_s=st.floats(0.05, 0.5), seed=st.integers(0, 1000))
def test_any_wall_is_found(wall: int, latency_s: float, seed: int) -> None:
    server = Server(latency_s, [(0.0, wall)], seed)
    server.serve(2, 30.0)
    use, refused = server.used(15.0, 30.0)
    assert use >= 0.92
    assert refused < 0.02
