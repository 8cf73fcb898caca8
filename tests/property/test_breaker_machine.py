"""The circuit breaker under arbitrary calls, replies and time."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.core.breaker import OUT_MAX_S, WAIT_MAX_S, WELL_AGAIN, Breaker, State
from engine.core.errors import Health


class BreakerMachine(RuleBasedStateMachine):
    """Calls are begun only where the breaker allows it, and end in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(place=3)
        self.flying: list[tuple[float, int]] = []  # (started, openings then)
        self.opened_at = 0.0

    @rule(seconds=st.floats(0.0, 50.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 20))
    def calls_begin(self, count: int) -> None:
        for _ in range(count):
            if self.breaker.allows(self.now):
                assert self.breaker.state is not State.OPEN
                self.breaker.on_start()
                self.flying.append((self.now, self.breaker.openings))

    @precondition(lambda self: self.flying)
    @rule(
        at=st.integers(0, 10**6),
        health=st.sampled_from(list(Health)),
        wait_s=st.none() | st.floats(allow_nan=True, allow_infinity=True),
        at_once=st.booleans(),
    )
    def a_call_ends(self, at: int, health: Health, wait_s: float | None, at_once: bool) -> None:
        started, openings = self.flying.pop(at % len(self.flying))
        before = self.breaker.state
        said = self.breaker.on_reply(health, started, self.now, wait_s=wait_s, at_once=at_once)
        assert said == (before is not State.OPEN and self.breaker.state is State.OPEN)
        if said:
            assert health not in (Health.WELL, Health.NOTHING)
            assert openings == self.breaker.openings - 1  # no call from before an opening opens it again
            self.opened_at = self.now

    @precondition(lambda self: self.flying)
    @rule()
    def a_call_is_given_up(self) -> None:
        self.flying.pop()
        self.breaker.on_recalled(1)

    @invariant()
    def probes_are_few(self) -> None:
        if self.breaker.state is State.HALF_OPEN:
            since = [one for one in self.flying if one[1] == self.breaker.openings]
            assert len(since) <= 2 * WELL_AGAIN

    @invariant()
    def it_is_never_shut_for_ever(self) -> None:
        if self.breaker.state is State.OPEN:
            longest = max(OUT_MAX_S * 1.25, WAIT_MAX_S)
            assert self.breaker._until <= self.opened_at + longest + 1e-6


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
