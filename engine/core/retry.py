"""Whether and when an attempt is repeated: one policy for every kind of failure.

Rules of this file:
1. Which kinds are repeated stands in ``core.errors.POLICY``; this file only knows how long to wait.
2. Waits are exponential with full jitter (Brooker, "Exponential Backoff And Jitter"), so that what failed together
   does not come back together; a server's own wait is honoured, with a little jitter on top.
3. A run's budget keeps a storm from amplifying: when it is spent, retries wait longer, they do not fail.
4. Nothing here reads a clock: ``now`` is an argument.
"""

import random
from typing import NamedTuple

from engine.core.errors import POLICY, ErrorKind, Retry

BASE_S = 0.5
CAP_S = 20.0
SLOW_BASE_S = 2.0
SERVER_WAIT_MAX_S = 120.0
SERVER_WAIT_JITTER = 0.1  # of the wait, on top of it
BUDGET_RATIO = 0.2  # of the requests of the last minute may be retries
BUDGET_FLOOR = 10  # and so many in any case: a small run with a few failures must not wait for a minute
BUDGET_FLOOR_PER_S = 10.0  # those that are put off leave at least this fast
BUDGET_SECONDS = 60


class Decision(NamedTuple):
    """What to do after a failed attempt. ``free``: it does not count against --retries."""

    retry: bool
    delay_s: float = 0.0
    free: bool = False


class RetryBudget:
    """At most a fifth of the last minute's requests are retries; beyond that they queue up, none is refused.

    Those in the queue leave at a fifth of the rate of requests, so that a storm is answered with a trickle.
    ``share`` is this worker's part of the run: the floors are the run's, divided among its workers.
    Bounds: constant memory; a time that goes back is taken as no time passed.
    """

    __slots__ = (
        "_floor",
        "_floor_per_s",
        "_free_at",
        "_ratio",
        "_requests",
        "_retries",
        "_since",
        "_slot",
        "requests",
        "retries",
    )

    def __init__(self, *, ratio: float = BUDGET_RATIO, share: float = 1.0) -> None:
        self._ratio = ratio
        self._floor = max(1, round(BUDGET_FLOOR * share))
        self._floor_per_s = BUDGET_FLOOR_PER_S * share
        self._requests = [0] * BUDGET_SECONDS
        self._retries = [0] * BUDGET_SECONDS
        self._slot = -1
        self._since = 0.0  # of the first request
        self._free_at = float("-inf")  # the next place in the queue
        self.requests = 0  # in the last minute
        self.retries = 0  # of these, those already in the queue included

    def request(self, now: float) -> None:
        """A request was sent or ended: either, but one of them for each."""
        second = int(now)
        if second > self._slot:
            self._turn(second, now)
        self._requests[self._slot % BUDGET_SECONDS] += 1
        self.requests += 1

    def take(self, now: float) -> float:
        """How long a retry that is wanted now has to be put off, in seconds; 0 while there is budget."""
        second = int(now)
        if second > self._slot:
            self._turn(second, now)
        spent = self.retries >= max(self._floor, self._ratio * self.requests)
        self._retries[self._slot % BUDGET_SECONDS] += 1
        self.retries += 1
        if not spent:
            return 0.0
        seen_s = min(max(now - self._since, 1.0), BUDGET_SECONDS)
        per_s = max(self._floor_per_s, self._ratio * self.requests / seen_s)
        self._free_at = max(self._free_at, now) + 1.0 / per_s
        return self._free_at - now

    def _turn(self, second: int, now: float) -> None:
        if self._slot < 0:
            self._since = now
        for passed in range(max(self._slot + 1, second - BUDGET_SECONDS + 1), second + 1):
            index = passed % BUDGET_SECONDS
            self.requests -= self._requests[index]
            self.retries -= self._retries[index]
            self._requests[index] = self._retries[index] = 0
        self._slot = second


class RetryPolicy:
    """Decides for one worker. ``retries``: how often a row is repeated at most, re-asks included."""

    def __init__(self, retries: int, rng: random.Random, budget: RetryBudget | None = None) -> None:
        self._retries = retries
        self._rng = rng
        self.budget = budget if budget is not None else RetryBudget()

    def decide(
        self, kind: ErrorKind, *, attempt: int, free_resent: bool, wait_s: float | None, now: float
    ) -> Decision:
        """After a failure of ``kind``. ``attempt``: counted repeats so far; ``free_resent``: the free one is used."""
        policy = POLICY[kind]
        rule = policy.retry
        if rule is Retry.NEVER:
            return Decision(False)
        if rule is Retry.ONCE_FREE and not free_resent:
            return Decision(True, 0.0, free=True)
        free = not policy.costs_attempt and rule is Retry.SERVER_WAIT
        if not free and attempt >= self._retries:
            return Decision(False)
        delay_s = self._delay(rule, attempt, wait_s)
        if not free:
            delay_s = max(delay_s, self.budget.take(now))
        return Decision(True, delay_s, free)

    def _delay(self, rule: Retry, attempt: int, wait_s: float | None) -> float:
        if wait_s is not None and wait_s > 0.0:
            capped = min(wait_s, SERVER_WAIT_MAX_S)
            return capped * (1.0 + self._rng.random() * SERVER_WAIT_JITTER)
        if rule is Retry.SERVER_WAIT:
            # The quota's pause holds all of them; the row itself only steps back a little.
            return self._rng.uniform(0.1, 1.0)
        if rule is Retry.REASK and attempt == 0:
            return 0.0
        if rule is Retry.SLOW:
            # Never less than half: --retries must last until a run with a dead endpoint is stopped as a whole.
            return self._rng.uniform(0.5, 1.0) * min(SLOW_BASE_S * 2.0 ** min(attempt, 16), CAP_S)
        return self._rng.random() * min(BASE_S * 2.0 ** min(attempt, 16), CAP_S)
