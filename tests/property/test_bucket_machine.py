"""The sliding-window bound of the quota, over arbitrary interleavings of everything that can happen to it.

The machine keeps its own record of what passed when, and what of it was given back, through every restart:
the record, not the quota, says what each period held.
"""

from dataclasses import dataclass
from random import Random

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.core.quota import Quota, Rates


@dataclass
class Passed:
    at: float
    tokens: int
    rpm: int | None  # the limits it passed under
    tpm: int | None
    out: int  # of the tokens, those of the answer
    output_tpm: int | None
    open: bool = True  # not settled yet


def largest_limit(limits: list[int | None]) -> int | None:
    """None is no limit, and so the largest."""
    return None if None in limits else max(limit for limit in limits if limit is not None)


class QuotaMachine(RuleBasedStateMachine):
    """One quota after the other over one stretch of time; each restart knows only the largest charge."""

    @initialize(
        rpm=st.none() | st.integers(1, 300),
        tpm=st.none() | st.integers(1, 100_000),
        output_tpm=st.none() | st.integers(100, 50_000),
        period_s=st.sampled_from([1.0, 7.3, 60.0]),
        now=st.floats(0, 1e7),
    )
    def start(
        self, rpm: int | None, tpm: int | None, output_tpm: int | None, period_s: float, now: float
    ) -> None:
        self.rpm, self.tpm, self.output_tpm = rpm, tpm, output_tpm
        self.period_s, self.now = period_s, now
        self.quota = Quota(rpm=rpm, tpm=tpm, output_tpm=output_tpm, period_s=period_s, now=now)
        self.passed: list[Passed] = []
        self.limits = [(now, rpm, tpm, output_tpm)]  # since when which limits held
        self.largest = 0

    def _take(self, tokens: int) -> bool:
        out = self._out(tokens)
        if not self.quota.take(tokens, self.now, tokens - out, out):
            return False
        self.passed.append(Passed(self.now, tokens, self.rpm, self.tpm, out, self.output_tpm))
        self.largest = max(self.largest, tokens)
        return True

    def _out(self, tokens: int) -> int:
        """Of the tokens of a call the part that is its answer's; never more than can pass."""
        return min(tokens // 3, self.output_tpm or tokens)

    @rule(part=st.floats(0, 1.2), count=st.integers(1, 40), fraction=st.floats(0, 1))
    def demand(self, part: float, count: int, fraction: float) -> None:
        """Ask for calls of one size, then of growing size, with time between the asks."""
        for number in range(count):
            most = 100_000 if self.tpm is None else self.tpm
            tokens = min(int(most * part * fraction), most) if number % 3 else int(part)
            self._take(tokens)
            self.now += self.period_s * part / 200

    @rule(fraction=st.floats(0, 1), count=st.integers(1, 60))
    def saturate(self, fraction: float, count: int) -> None:
        """Always ask at the first moment the quota itself names."""
        tokens = int((100_000 if self.tpm is None else self.tpm) * fraction**3)
        for _ in range(count):
            out = self._out(tokens)
            self.now = max(self.now, self.quota.next_time(tokens, self.now, tokens - out, out))
            if not self._take(tokens):
                self.now += self.period_s / 1e6
                assert self._take(tokens), "a call did not pass at the time the quota named"

    @rule(seconds=st.floats(0, 1.5))
    def wait(self, seconds: float) -> None:
        self.now += seconds * self.period_s

    @rule(seconds=st.floats(0, 100))
    def clock_goes_back(self, seconds: float) -> None:
        """A time before one that the quota has seen changes nothing and admits nothing extra."""
        self.quota.next_time(0, self.now)
        if self.quota.take(0, self.now - seconds):
            self.passed.append(Passed(self.now, 0, self.rpm, self.tpm, 0, self.output_tpm))

    @precondition(lambda self: self.passed)
    @rule(pick=st.integers(0, 30), share=st.floats(0, 1))
    def give_back(self, pick: int, share: float) -> None:
        call = self.passed[-1 - pick % len(self.passed)]
        if call.open and self.now - call.at <= self.period_s:
            unused = int(call.tokens * share)
            call.open = False
            unused_out = int(call.out * share)
            call.tokens -= unused
            call.out -= unused_out
            self.quota.settle(-unused, self.now, 0, -unused_out)

    @rule(tokens=st.integers(0, 10**18))
    def charge_more(self, tokens: int) -> None:
        self.quota.settle(tokens if tokens > 10**6 else tokens // 100, self.now)

    @rule(wait_s=st.none() | st.floats(), old=st.integers(0, 2), jitter=st.floats(0, 1))
    def throttle(self, wait_s: float | None, old: int, jitter: float) -> None:
        generation = self.quota.generation
        began = self.quota.throttled(wait_s, generation - old, jitter, self.now)
        assert began == (old == 0)
        assert self.quota.generation == generation + (old == 0)
        assert self.quota.paused_s(self.now) <= 120 * 1.1 + 1e-6
        if began:
            assert not self.quota.take(0, self.now)

    @rule(
        rpm=st.none() | st.integers(1, 300),
        tpm=st.none() | st.integers(1, 100_000),
        output_tpm=st.none() | st.integers(100, 50_000),
    )
    def retune(self, rpm: int | None, tpm: int | None, output_tpm: int | None) -> None:
        """Other limits: what passes from now on passes under them, whatever was admitted before."""
        self.rpm, self.tpm, self.output_tpm = rpm, tpm, output_tpm
        self.limits.append((self.now, rpm, tpm, output_tpm))
        self.quota.retune(self.now, rpm=rpm, tpm=tpm, output_tpm=output_tpm)

    @rule(used=st.tuples(*[st.integers(0, 200_000)] * 4))
    def somebody_else_uses_it(self, used: tuple[int, int, int, int]) -> None:
        """What the server says is used and nobody here was charged for leaves only less to us."""
        added = self.quota.explain(Rates(*used), self.now)
        assert all(0 <= more <= amount for more, amount in zip(added, used, strict=True))

    @rule(down=st.floats(0, 0.3), late=st.booleans())
    def restart(self, down: float, late: bool) -> None:
        """The limiter dies; the next one hears of the largest charge at the start, or only when workers join.

        It is started with the largest limits of the last period, which its predecessor may have used up, and
        then given those of now.
        """
        self.now += down * self.period_s
        known = 1 if late else max(1, self.largest)
        ended = [since for since, *_ in self.limits[1:]]
        recent = [
            limits
            for (_, *limits), until in zip(self.limits, [*ended, self.now], strict=True)
            if until >= self.now - 1.1 * self.period_s
        ]
        rpm, tpm, output_tpm = (largest_limit(list(kind)) for kind in zip(*recent, strict=True))
        self.quota = Quota(
            rpm=rpm, tpm=tpm, output_tpm=output_tpm, period_s=self.period_s, now=self.now, largest=known
        )
        if late:
            self.quota.inherit(max(1, self.largest))
        self.quota.retune(self.now, rpm=self.rpm, tpm=self.tpm, output_tpm=self.output_tpm)

    @rule(down=st.floats(0, 1.1), known=st.booleans())
    def end_in_peace(self, down: float, known: bool) -> None:
        """The limiter ends because nobody uses it; the next one is handed what it remembers."""
        memory = self.quota.memory(self.now)
        self.now += down * self.period_s
        self.quota = Quota(
            rpm=self.rpm, tpm=self.tpm, output_tpm=self.output_tpm, period_s=self.period_s, now=self.now
        )
        self.quota.remember(memory, down * self.period_s if known else 0.0)

    @invariant()
    def no_period_holds_more_than_the_limit(self) -> None:
        calls = getattr(self, "passed", [])
        first, tokens, out = 0, 0, 0
        for last, call in enumerate(calls):
            tokens += call.tokens
            out += call.out
            while calls[first].at < call.at - self.period_s:
                tokens -= calls[first].tokens
                out -= calls[first].out
                first += 1
            assert call.output_tpm is None or out <= call.output_tpm or not call.out
            assert (
                call.tpm is None or tokens <= call.tpm or not call.tokens
            )  # nothing more was admitted than nothing
            assert call.rpm is None or last - first + 1 <= call.rpm


QuotaMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
TestQuota = QuotaMachine.TestCase


@settings(max_examples=30, deadline=None)
@given(
    tpm=st.integers(10_000, 10**8),
    slack=st.none() | st.floats(0.3, 0.85) | st.floats(1.3, 5.0),
    largest=st.floats(0.002, 0.01),
    seed=st.integers(0, 2**32),
    late_s=st.floats(0, 0.012),
)
def test_a_saturated_quota_is_used_to_98_percent(
    tpm: int, slack: float | None, largest: float, seed: int, late_s: float
) -> None:
    """No single charge is over 1 % of the limit, and every timer fires up to 12 ms late.

    ``slack``: how many calls the request limit allows for each that the token limit does. Where the two
    allow nearly the same number, each call waits for the later of them and some of both is lost.
    """
    top = max(1, int(tpm * largest))
    mean = (max(1, top // 3) + top) / 2
    rpm = max(100, int(tpm / mean * slack)) if slack is not None else None
    quota = Quota(rpm=rpm, tpm=tpm, now=0.0)
    rng = Random(seed)
    now, tokens, calls = 0.0, 0, 0
    charge = top
    while now < 120.0:
        while quota.take(charge, now):
            tokens, calls = tokens + charge, calls + 1
            charge = rng.randint(max(1, top // 3), top)
        now = quota.next_time(charge, now) + rng.random() * late_s
    used = max(tokens / tpm, calls / rpm if rpm else 0.0) / (now / 60.0)
    assert used >= 0.98


@settings(max_examples=30, deadline=None)
@given(limit=st.integers(100, 60_000), late_s=st.floats(0, 0.018))
def test_requests_alone_are_used_to_98_percent(limit: int, late_s: float) -> None:
    quota = Quota(rpm=limit, tpm=None, now=0.0)
    now, calls = 0.0, 0
    while now < 70.0:
        while quota.take(0, now):
            calls += 1
        now = quota.next_time(0, now) + late_s
    assert 0.98 <= calls / (limit * now / 60) <= 1.0
