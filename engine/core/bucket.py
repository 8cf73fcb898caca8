"""One limit of a quota: so many requests, or tokens, per period, spread evenly and never exceeded.

Rules of this file:
1. In any sliding period at most the limit is admitted, whatever the charges, settlements, pauses and
   restarts. ``Window`` proves it; the bucket above it only spreads the calls evenly.
2. Nothing here reads a clock: ``now`` is an argument.

Why two parts. A bucket alone admits ``refill * period + max(burst, largest charge)`` in its worst period, so
it has to refill at the limit minus the largest charge ever seen: one long prompt would slow the whole rest of
a run, and a charge near the limit would stop it. The window counts what was really admitted, so the refill
stays at the limit, less a half per cent for what the network bunches and 1/1200 for the burst.

Floating point: a level is corrected by at most a rounding of 1e-15 of itself per call, about 1e-6 requests in
ten days at 10,000 calls/s; the window counts in whole numbers, so the bound is exact for ever.
"""

import math

from engine.core.pace import Pace
from engine.core.window import SLOTS_KEPT, Window

REFILL = 0.995 - 0.05 / 60  # of the limit, per period
FULL_S = 0.03  # a dear call waits until this much refill is there, then goes into debt
LATE_S = 0.02  # refill kept beyond that, so that a caller's timer which fires late loses nothing
RESERVE_S = 0.5  # refill that ran over although a call waited is kept up to here ...
CATCH_UP = 0.04  # ... and makes the refill so much faster until it is used up; or this much faster, where
CATCH_UP_FEW, FEW_PER_S = 0.1, 50  # there are too few calls a second for a server to count them by the second
CREDIT_S = 1.0  # what was given back may be spent again this far beyond the burst
UNLIMITED_MORE_MAX = 10**12  # what one settlement may add where there is no limit to bound it
CLOSE_S = 1e-6  # a level that lacks less refill than this is there: a clock has no finer ticks to wait for


class Bucket:
    """One limit: so many requests, or tokens, per period; with None there is no limit, and all is counted.

    The level rises with time up to ``capacity`` (50 ms of the limit, at least one request) and falls with
    every charge. A charge above ``full`` passes at ``full`` and leaves a debt. ``largest`` is the largest
    single charge so far. It starts empty.
    """

    __slots__ = (
        "_catch_up",
        "_close",
        "_credit",
        "_inherited",
        "_period_s",
        "_reserve_max",
        "_start_slot",
        "_unknown",
        "capacity",
        "full",
        "largest",
        "level",
        "limit",
        "rate",
        "reserve",
        "window",
    )

    def __init__(self, limit: int | None, period_s: float, now: float, *, credit: bool = False) -> None:
        if not period_s > 0:
            raise ValueError(f"a period of {period_s} s admits nothing")
        self._period_s = period_s
        self.level = 0.0
        self.reserve = 0.0
        self._catch_up = CATCH_UP
        self.largest = 0
        self.window = Window(period_s, now)
        self._set(limit)
        self._credit = credit  # may amounts be given back
        self._start_slot = self.window.slot
        self._inherited = 0
        self._unknown = (
            False  # whether a bucket before this one had no limit, so that nobody knows what it let pass
        )

    def _set(self, limit: int | None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"a limit of {limit} per {self._period_s} s admits nothing")
        self.limit = limit
        self.rate = math.inf if limit is None else REFILL * limit / self._period_s
        self.full = max(1.0, FULL_S * self.rate)
        self.capacity = self.full + LATE_S * self.rate
        self._reserve_max = RESERVE_S * self.rate
        self._close = CLOSE_S * self.rate

    def retune(self, limit: int | None) -> None:
        """Another limit from now on; what was admitted before counts against it. Raises ValueError below 1.

        A lower one may admit nothing until enough of the last period is forgotten. A higher one is used at its
        own rate at once: the burst does not grow by what an earlier limit held back.
        """
        self._set(limit)
        if limit is None:
            self.level = self.reserve = 0.0
            return
        if self._unknown:
            self._unknown = False
            self.window.add_before(limit, self.window.slot - self._start_slot)
        self.level = min(self.level, self.capacity)
        self.reserve = min(self.reserve, self._reserve_max)
        self._catch_up = CATCH_UP_FEW if self.largest * FEW_PER_S > self.rate else CATCH_UP

    def advance(self, refill_s: float, now: float, *, wanted: bool) -> None:
        """Let time pass: ``refill_s`` seconds of refill, and the window moves to ``now``.

        ``wanted``: a call waited all that time. What then ran over (a timer fired late, another limit held
        the call up) is kept as ``reserve`` and comes back slowly, as a refill that is a little faster.
        """
        self.window.advance(now)
        if self.limit is None:
            return
        gain = self.rate * refill_s
        room = self.capacity - self.level
        if gain < room:
            extra = min(self.reserve, gain * self._catch_up, room - gain)
            self.reserve -= extra
            self.level += gain + extra
            return
        if room > 0:
            self.level = self.capacity
            gain -= room
        if wanted:
            self.reserve = min(self.reserve + gain, self._reserve_max)

    def permits(self, charge: int) -> bool:
        """May a call of this charge pass now?"""
        if not charge or self.limit is None:
            return True
        needed = charge if charge < self.full else self.full
        return self.level + self._close >= needed and self.window.total + charge <= self.limit

    def spend(self, charge: int) -> None:
        """Charge a call that passes."""
        if self.limit is not None:
            self.level -= charge
        self.window.add(charge)
        if charge > self.largest:
            self.largest = charge
            self._catch_up = CATCH_UP_FEW if charge * FEW_PER_S > self.rate else CATCH_UP

    def permitted_at(self, charge: int, pace: Pace, now: float) -> float:
        """The time from which ``permits`` holds if nothing else passes; infinite above the limit."""
        if not charge or self.limit is None:
            return now
        if charge > self.limit:
            return math.inf
        missing = min(float(charge), self.full) - self.level
        at = now
        if missing > self._close:
            missing -= min(self.reserve, missing * self._catch_up / (1 + self._catch_up))
            at = pace.after(now, missing / self.rate)
        if self.window.total + charge > self.limit:
            at = max(at, self.window.falls_to(self.limit - charge))
        return at

    def charge_more(self, amount: int) -> None:
        """Calls that passed were dearer than they were charged. Bounds: at most the limit at once."""
        if self.limit is None:
            self.window.add(min(amount, UNLIMITED_MORE_MAX))
            return
        extra = min(amount, self.limit)
        self.level = max(self.level - extra, min(self.level, -float(self.limit)))
        self.window.add(extra)

    def give_back(self, amount: int, *, spendable: bool) -> None:
        """Calls of the last period were cheaper than they were charged. Bounds: what the window still holds.

        ``spendable`` lifts the level too, beyond ``capacity`` if need be, up to ``CREDIT_S`` of refill or the
        largest charge: it was paid for and not used, and under load it comes in lumps larger than the burst.
        """
        back = self.window.give_back(amount)
        if spendable and self.limit is not None:
            self.level = max(self.level, min(self.level + back, self._level_max(self.largest)))

    def inherit(self, largest: int) -> None:
        """Take over from a bucket that is gone, whose largest charge was ``largest``. Again: the larger holds.

        Its last period is not known. It is taken to be the worst it could do: all it can have had in hand and
        the largest debt, spent in its last moment, and the full rate before that. The window is filled with
        this as of the start, and the level begins at minus what goes beyond the burst.
        """
        self.largest = max(self.largest, largest)
        if self.limit is None:
            self._unknown = True
            return
        head = math.ceil(self._level_max(largest) + self._reserve_max + max(0.0, largest - self.full))
        head = min(head, self.limit)
        known = self._inherited
        if head <= known:
            return
        self._inherited = head
        self.level -= head - (known or min(head, self.capacity))
        age = self.window.slot - self._start_slot
        self.window.add_before(head - known, age)
        if known:
            return
        placed = 0
        for slots_ago in range(1, SLOTS_KEPT):
            due = min(math.ceil(self.rate * self.window.slot_s * (slots_ago + 1)), self.limit - head)
            self.window.add_before(due - placed, age + slots_ago)
            placed = due

    def remember(self, content: list[tuple[int, int]], slots: int) -> None:
        """Take over what a bucket before this one admitted, which ended ``slots`` slots before this one began."""
        for slots_ago, amount in content:
            self.window.add_before(amount, slots_ago + slots)

    def _level_max(self, largest: int) -> float:
        return max(self.capacity, float(largest), CREDIT_S * self.rate) if self._credit else self.capacity
