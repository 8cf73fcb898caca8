"""Whether and when an attempt is repeated: one policy for every kind of failure.

Rules of this file:
1. Which kinds are repeated stands in ``core.errors.POLICY``; this file only knows how long to wait.
2. Waits are exponential with full jitter (Brooker, "Exponential Backoff And Jitter"), so that what failed together
   does not come back together; a server's own wait is honoured, with a little jitter on top.
3. A run's budget keeps a storm from amplifying: when it is spent, retries wait longer, they do not fail.
"""

import random
from typing import NamedTuple

from engine.core.errors import POLICY, ErrorKind, Retry

BASE_S = 0.5
CAP_S = 20.0
SLOW_BASE_S = 2.0
SERVER_WAIT_MAX_S = 120.0
SERVER_WAIT_JITTER = 0.1  # of the wait, on top of it
BUDGET_SHARE = 0.2  # of the requests of the last minute may be retries
BUDGET_FLOOR = 10  # and so many in any case
BUDGET_WINDOW_S = 60.0
_BUDGET_SLOTS = 60


class Decision(NamedTuple):
    """What to do after a failed attempt. ``free``: it does not count against --retries."""

    retry: bool
    delay_s: float = 0.0
    free: bool = False


class RetryBudget:
    """At most a fifth of the last minute's requests are retries; beyond that they are put off.

    Bounds: constant memory; times must not go back by more than they went forward.
    """

    def __init__(self, *, share: float = BUDGET_SHARE, floor: int = BUDGET_FLOOR) -> None:
        self._share, self._floor = share, floor
        self._requests = [0] * _BUDGET_SLOTS
        self._retries = [0] * _BUDGET_SLOTS
        self._slot = 0
        self._requests_sum = self._retries_sum = 0

    def request(self, now: float) -> None:
        """A request ended."""
        index = self._turn(now)
        self._requests[index] += 1
        self._requests_sum += 1

    def take(self, now: float) -> bool:
        """Whether a retry fits in the budget now; it is counted if it does."""
        index = self._turn(now)
        if self._retries_sum >= max(self._floor, self._share * self._requests_sum):
            return False
        self._retries[index] += 1
        self._retries_sum += 1
        return True

    def _turn(self, now: float) -> int:
        slot = int(now * _BUDGET_SLOTS / BUDGET_WINDOW_S)
        if slot > self._slot:
            for passed in range(max(self._slot + 1, slot - _BUDGET_SLOTS + 1), slot + 1):
                index = passed % _BUDGET_SLOTS
                self._requests_sum -= self._requests[index]
                self._retries_sum -= self._retries[index]
                self._requests[index] = self._retries[index] = 0
            self._slot = slot
        return self._slot % _BUDGET_SLOTS


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
        if not free and not self.budget.take(now):
            # Put off, not given up: as much again as a late retry would wait, spread out.
            delay_s += self._rng.uniform(0.5, 1.0) * CAP_S
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
        base = SLOW_BASE_S if rule is Retry.SLOW else BASE_S
        return self._rng.random() * min(base * 2.0 ** min(attempt, 16), CAP_S)
