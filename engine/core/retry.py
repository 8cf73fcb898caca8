"""What follows a failed attempt: whether the call is repeated, and when.

Rules of this file:
1. ``POLICY`` decides whether a kind of failure is repeated; this file only decides when.
2. A server's own wait is kept: never shorter, at most ``WAIT_MAX_S``, with jitter on top so that rows which
   were refused together do not come back together.
3. Nothing here reads a clock or draws its own randomness: ``now`` and a seeded ``Random`` are arguments.

The back-off is botocore's "full jitter": a uniform draw from nothing to an exponential bound.
"""

from random import Random
from typing import NamedTuple

from engine.core.errors import POLICY, ErrorKind, Retry

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 20.0
SLOW_FIRST_S = 2.0  # the endpoint is not there at all: at least half of 2, 4, 8, ... seconds
WAIT_MAX_S = 120.0  # a server's wait is believed up to here
WAIT_JITTER_MAX_S = 5.0
_DOUBLINGS_MAX = 16
RETRIES_OF_CALLS = 0.2


class Decision(NamedTuple):
    """``retry``: send it again ``delay_s`` seconds from now; ``free``: the failed attempt does not count."""

    retry: bool
    delay_s: float = 0.0
    free: bool = False


GIVE_UP = Decision(False)


class RetryPolicy:
    """The decisions for one worker. ``retries``: how many attempts that count may follow the first.

    ``refusals_count``: whether an attempt that a rate limit refused is one of them, because nothing is known of that
    limit and it may never let a call pass.
    """

    __slots__ = ("_random", "_refusals_count", "retries")

    def __init__(self, retries: int, rng: Random, *, refusals_count: bool = False) -> None:
        self.retries = retries
        self._random = rng.random
        self._refusals_count = refusals_count

    def decide(
        self,
        kind: ErrorKind,
        attempt: int,
        wait_s: float | None = None,
        *,
        throttles: int = 0,
        stale: int = 0,
    ) -> Decision:
        """What follows the failure of attempt number ``attempt`` (from 1; free ones are not counted).

        ``wait_s`` is the server's own wait; anything but a positive number counts as none. ``throttles`` and
        ``stale``: how often this call was refused for its rate, and met a stale connection, before.
        """
        policy = POLICY[kind]
        rule = policy.retry
        if rule is Retry.NEVER:
            return GIVE_UP
        if rule is Retry.ONCE_FREE:
            if not stale:
                return Decision(True, 0.0, free=True)
            # A connection that is closed under every request is a broken one, and broken ones count.
            rule, free = Retry.BACKOFF, False
        else:
            free = not policy.costs_attempt and not self._refusals_count
        if not free and attempt > self.retries:
            return GIVE_UP
        earlier = min(throttles if free else attempt - 1, _DOUBLINGS_MAX)
        bound = min(BACKOFF_FIRST_S * 2.0**earlier, BACKOFF_MAX_S)
        if wait_s is not None and wait_s > 0:
            jitter = self._random() * min(bound, WAIT_JITTER_MAX_S)
            return Decision(True, min(wait_s, WAIT_MAX_S) + jitter, free)
        if rule is Retry.REASK:
            # Nothing is wrong with the endpoint: the first re-ask goes at once.
            return Decision(True, 0.0 if attempt == 1 else self._random() * bound, free)
        if rule is Retry.SLOW:
            bound = min(SLOW_FIRST_S * 2.0**earlier, BACKOFF_MAX_S)
            return Decision(True, bound * (0.5 + self._random() / 2), free)
        return Decision(True, self._random() * bound, free)


class RetryBudget:
    """Keeps retries from multiplying a storm: at most a share of the calls of the last minute.

    A retry that finds the budget spent waits and asks again; it never fails for it. Below the share, as at
    the start or in a small run, ``floor_per_s`` retries a second always pass, and three at once. ``share`` is
    this worker's part of the run, so that all workers together have one floor.

    Guarantee: in any stretch of ``t`` seconds within a minute at most ``ratio * calls of the last minute``
    plus ``3 + floor_per_s * t`` retries pass.
    """

    __slots__ = (
        "_asks",
        "_calls",
        "_floor_at",
        "_floor_s",
        "_ratio",
        "_retries",
        "_second",
        "calls",
        "retries",
    )

    SECONDS = 60
    FLOOR_AT_ONCE = 3

    def __init__(
        self, *, ratio: float = RETRIES_OF_CALLS, floor_per_s: float = 10.0, share: float = 1.0
    ) -> None:
        self._ratio = ratio
        self._floor_s = 1 / (floor_per_s * share)
        self._floor_at = float("-inf")
        self._calls = [0] * self.SECONDS
        self._retries = [0] * self.SECONDS
        self._second = 0
        self._asks = 0
        self.calls = 0  # in the last minute
        self.retries = 0

    def on_call(self, now: float) -> None:
        """A request is sent, be it the first of its call or a retry."""
        second = int(now)
        if second > self._second:
            self._move(second)
        self._calls[self._second % 60] += 1
        self.calls += 1

    def ask(self, now: float) -> float:
        """0 if a retry may be sent now (it is then counted), else how long to wait before asking again: 0.5 to 2 s."""
        second = int(now)
        if second > self._second:
            self._move(second)
        if self.retries >= self._ratio * self.calls:
            # As in a leaky bucket: the floor is one retry every floor_s, with room for three.
            due = max(self._floor_at, now - (self.FLOOR_AT_ONCE - 1) * self._floor_s)
            if due > now:
                self._asks += 1
                # The golden ratio spreads those who wait evenly without any randomness.
                return 0.5 + 1.5 * (self._asks * 0.6180339887 % 1.0)
            self._floor_at = due + self._floor_s
        self._retries[self._second % 60] += 1
        self.retries += 1
        return 0.0

    def _move(self, second: int) -> None:
        for old in range(max(self._second + 1, second - self.SECONDS + 1), second + 1):
            place = old % self.SECONDS
            self.calls -= self._calls[place]
            self.retries -= self._retries[place]
            self._calls[place] = self._retries[place] = 0
        self._second = second
