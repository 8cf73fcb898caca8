"""Whether an endpoint is to be left alone for a while: a circuit breaker, used where rows can go elsewhere.

Rules of this file:
1. What was sent before the state changed says nothing about it: a burst of failures opens the breaker once.
2. However long it stays open, a probe is let through in bounded time. After the first one that goes well as many more
   follow as have gone well, until enough have.
   What somebody has to mend (a refused key) is counted apart from what passes by itself.
3. Refusals alone are no illness: the in-flight limit finds its wall by them. They count where nothing else comes back.
4. Nothing here reads a clock: times are arguments.
"""

import math
from enum import StrEnum
from typing import Final

from engine.core.errors import Health

FAILED_IN_A_ROW: Final = 5  # and so many refusals of key, model or account, apart from other failures
OF_LATE, FAILED_OF_LATE = 20, 10  # of so many calls so many failed
REFUSED_FOR_S: Final = 2.0  # nothing but refusals for so long, and at least FAILED_IN_A_ROW of them
WAIT_WORTH_S: Final = 1.0  # a wait that the server names is worth going elsewhere from here on
WAIT_MAX_S: Final = 120.0
COOL_FIRST_S, COOL_MAX_S = 1.0, 30.0
OUT_FIRST_S, OUT_MAX_S = 60.0, 600.0  # what somebody has to mend is seldom mended at once
WELL_AGAIN: Final = 8  # probes that have to go well
_GOLDEN: Final = 0.6180339887


class State(StrEnum):
    """As in the literature (M. Nygard, Release It!): closed lets calls through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """The breaker of one endpoint in one worker. ``place`` spreads the workers' probes.

    Ask ``allows`` before a call is begun and say so with ``on_start``; when it ended, however it ended, ``on_reply``;
    when it was given up unsent, ``on_recalled``.
    """

    __slots__ = (
        "_allowed",
        "_ill_since",
        "_in_a_row",
        "_of_late",
        "_opened",
        "_outs",
        "_outs_opened",
        "_probing",
        "_refused",
        "_refusing_since",
        "_since",
        "_spread",
        "_until",
        "is_out",
        "openings",
        "state",
    )

    def __init__(self, *, place: int = 0) -> None:
        self.state = State.CLOSED
        self.is_out = False  # it refused for a reason that does not pass
        self.openings = 0
        self._spread = place * _GOLDEN
        self._since = -math.inf  # of the state
        self._until = 0.0  # it stays open
        self._ill_since = math.inf
        self._opened = self._outs_opened = (
            0  # times in a row without getting well, for what passes and what does not
        )
        self._outs = 0  # refusals that do not pass, since it last was well
        self._allowed = self._probing = 0
        self._refusing_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self._in_a_row = self._of_late = self._refused = 0

    def allows(self, now: float) -> bool:
        """Whether a call may be begun."""
        if self.state is State.CLOSED:
            return True
        if self.state is State.OPEN:
            if now < self._until:
                return False
            self.state, self._since = State.HALF_OPEN, now
            self._allowed, self._probing = 1, 0
        return self._probing < self._allowed

    def is_ill(self, now: float, for_s: float) -> bool:
        """Whether nothing has gone well for so long since it opened, or it is out."""
        return self.is_out or now - self._ill_since >= for_s

    def on_start(self) -> None:
        """A call was begun."""
        if self.state is State.HALF_OPEN:
            self._probing += 1

    def on_recalled(self, calls: int) -> None:
        """So many calls that were begun will not be sent."""
        if self.state is State.HALF_OPEN:
            self._probing = max(0, self._probing - calls)

    def on_reply(
        self,
        health: Health,
        started: float,
        now: float,
        *,
        wait_s: float | None = None,
        at_once: bool = False,
    ) -> bool:
        """A call that was sent at ``started`` ended. True where the endpoint is to be left alone from now on.

        ``wait_s``: the wait that a refusal names. ``at_once``: this one is enough, if it names a wait or is OUT.
        """
        if self.state is State.OPEN or started < self._since:
            return False
        if self.state is State.HALF_OPEN:
            self._probing = max(0, self._probing - 1)
        if health is Health.WELL:
            self._well(now)
        elif health is not Health.NOTHING:
            is_too_many = self._is_one_too_many(health, now, wait_s, at_once)
            if is_too_many or self.state is State.HALF_OPEN:
                self._open(now, wait_s, is_out=health is Health.OUT and (is_too_many or self.is_out))
                return True
        return False

    def _well(self, now: float) -> None:
        self._in_a_row = self._refused = self._outs = 0
        self._of_late = self._of_late << 1 & (1 << OF_LATE) - 1
        if self.state is not State.HALF_OPEN:
            return
        self.is_out = False
        self._ill_since = math.inf
        self._allowed += 1
        if self._allowed > WELL_AGAIN:
            self.state, self._since = State.CLOSED, now
            self._opened = self._outs_opened = 0
            self._reset()

    def _is_one_too_many(self, health: Health, now: float, wait_s: float | None, at_once: bool) -> bool:
        if health is Health.REFUSES:
            if at_once and wait_s is not None and wait_s >= WAIT_WORTH_S:
                return True
            if not self._refused:
                self._refusing_since = now
            self._refused += 1
            return self._refused >= FAILED_IN_A_ROW and now - self._refusing_since >= REFUSED_FOR_S
        if health is Health.OUT:
            self._outs += 1
            return at_once or self._outs >= FAILED_IN_A_ROW
        self._in_a_row += 1
        self._of_late = (self._of_late << 1 | 1) & (1 << OF_LATE) - 1
        return self._in_a_row >= FAILED_IN_A_ROW or self._of_late.bit_count() >= FAILED_OF_LATE

    def _open(self, now: float, wait_s: float | None, *, is_out: bool) -> None:
        if is_out:
            cool_s = min(OUT_MAX_S, OUT_FIRST_S * 2.0 ** min(self._outs_opened, 30))
            self._outs_opened += 1
        else:
            cool_s = min(COOL_MAX_S, COOL_FIRST_S * 2.0 ** min(self._opened, 30))
            self._opened += 1
        named_s = 0.0 if wait_s is None or not wait_s > 0 else min(wait_s, WAIT_MAX_S)
        self._spread += _GOLDEN
        self.openings += 1
        self.is_out = is_out
        self._ill_since = min(self._ill_since, now)
        self.state, self._since = State.OPEN, now
        self._until = now + max(named_s, cool_s * (0.75 + 0.5 * (self._spread % 1.0)))
        self._reset()
