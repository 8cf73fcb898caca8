"""The quota of one (endpoint, key, model): when the next call may be sent.

Rules of this file:
1. In any sliding period at most the limit is admitted, whatever the charges, settlements, pauses and
   restarts. ``Window`` proves it; the bucket above it only spreads the calls evenly.
2. A call passes when every bucket permits it, and then all of them are charged, before it is sent.
3. Nothing here reads a clock: ``now`` is an argument, and a ``now`` that goes back is taken as no time passed.

Why two parts. A bucket alone admits ``refill * period + max(burst, largest charge)`` in its worst period, so
it has to refill at the limit minus the largest charge ever seen: one long prompt would slow the whole rest of
a run, and a charge near the limit would stop it. The window counts what was really admitted, so the refill
stays at the limit, less a half per cent for what the network bunches and 1/1200 for the burst.

Floating point: a level is corrected by at most a rounding of 1e-15 of itself per call, about 1e-6 requests in
ten days at 10,000 calls/s; the window counts in whole numbers, so the bound is exact for ever.
"""

import math
from typing import NamedTuple

from engine.core.pace import Pace
from engine.core.window import SLOTS_KEPT, Window

REFILL = 0.995 - 0.05 / 60  # of the limit, per period
FULL_S = 0.03  # a dear call waits until this much refill is there, then goes into debt
LATE_S = 0.02  # refill kept beyond that, so that a caller's timer which fires late loses nothing
RESERVE_S = 0.5  # refill that ran over although a call waited is kept up to here ...
CATCH_UP = 0.04  # ... and makes the refill so much faster until it is used up; or this much faster, where
CATCH_UP_FEW, FEW_PER_S = 0.1, 50  # there are too few calls a second for a server to count them by the second
CREDIT_S = 1.0  # what was given back may be spent again this far beyond the burst
WAIT_MAX_S = 120.0  # a server's wait is believed up to here
PAUSE_MIN_S = 0.05  # and from here
PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 2.0  # pauses the server named no wait for: doubled up to the second
CALM_S = 10.0  # so long after a pause a new one begins at PAUSE_FIRST_S again
UNLIMITED_MORE_MAX = 10**12  # what one settlement may add where there is no limit to bound it
CLOSE_S = 1e-6  # a level that lacks less refill than this is there: a clock has no finer ticks to wait for


class Memory(NamedTuple):
    """What a quota hands to the one after it, when it ends in peace: all of its last period."""

    requests: list[tuple[int, int]]  # (slots ago, amount); a slot is a thousandth of the period
    tokens: list[tuple[int, int]]
    largest: int
    paused_s: float


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


class Quota:
    """The limits of one (endpoint, key, model): requests, tokens, both or neither, per period (60 s but for tests).

    What has no limit is counted all the same: should it get one, the last period counts against it.

    ``largest`` is 0 for the first start; a restarted limiter passes the largest token charge that was ever
    granted, at least 1, and then the bound holds across the restart too. ``generation`` numbers the pauses:
    a grant carries it out and a 429 carries it back, so that a burst of them pauses once. A restarted
    limiter begins at a higher one.
    """

    __slots__ = (
        "_now",
        "_pace",
        "_requests",
        "_streak",
        "_tokens",
        "_wanted",
        "generation",
        "pauses",
    )

    def __init__(
        self,
        *,
        rpm: int | None,
        tpm: int | None,
        now: float,
        period_s: float = 60.0,
        largest: int = 0,
        generation: int = 0,
    ) -> None:
        self._requests = Bucket(rpm, period_s, now)
        self._tokens = Bucket(tpm, period_s, now, credit=True)
        self._now = now
        self._pace = Pace()
        self._streak = 0
        self._wanted = False
        self.generation = generation
        self.pauses = 0
        if largest:
            self.inherit(largest)

    @property
    def largest(self) -> int:
        """The largest single token charge so far, those of a limiter before this one included."""
        return self._tokens.largest

    @property
    def rpm(self) -> int | None:
        """The limit on requests that holds now."""
        return self._requests.limit

    @property
    def tpm(self) -> int | None:
        """The limit on tokens that holds now."""
        return self._tokens.limit

    def used(self, now: float) -> tuple[int, int]:
        """Requests and tokens of the last period."""
        if now > self._now:
            self._advance(now)
        return self._requests.window.total, self._tokens.window.total

    def inherit(self, largest: int) -> None:
        """A limiter before this one granted a charge of ``largest`` tokens; see ``Bucket.inherit``."""
        self._requests.inherit(1)
        self._tokens.inherit(largest)

    def memory(self, now: float) -> Memory:
        """All of the last period, for a quota that begins after this one."""
        if now > self._now:
            self._advance(now)
        return Memory(
            self._requests.window.content(),
            self._tokens.window.content(),
            self._tokens.largest,
            self.paused_s(self._now),
        )

    def remember(self, memory: Memory, gone_s: float) -> None:
        """Take over from a quota that ended ``gone_s`` before this one began, which has admitted nothing yet.

        Bounds: ``gone_s >= 0``; where it is not known, 0 is safe.
        """
        slots = int(gone_s / self._requests.window.slot_s)
        self._requests.remember(memory.requests, slots)
        self._tokens.remember(memory.tokens, slots)
        self._tokens.largest = max(self._tokens.largest, memory.largest)
        if memory.paused_s > gone_s:
            self._pace.paused_until = self._now + memory.paused_s - gone_s

    def retune(self, now: float, *, rpm: int | None, tpm: int | None) -> None:
        """Other limits from ``now`` on; None for none. See ``Bucket.retune``. Raises ValueError for one below 1."""
        for name, limit in (("rpm", rpm), ("tpm", tpm)):
            if limit is not None and limit < 1:
                raise ValueError(f"{name} {limit} admits nothing")
        if now > self._now:
            self._advance(now)
        if rpm != self._requests.limit:
            self._requests.retune(rpm)
        if tpm != self._tokens.limit:
            self._tokens.retune(tpm)

    def impossible(self, tokens: int) -> bool:
        """A call of that many tokens can never pass: it is dearer than a whole period."""
        limit = self._tokens.limit
        return limit is not None and tokens > limit

    def share(self, requests: int, tokens: int) -> float:
        """How long the limits need to refill what so many calls with so many tokens take, in seconds."""
        return max(requests / self._requests.rate, tokens / self._tokens.rate)

    def take(self, tokens: int, now: float) -> bool:
        """Charge one call of ``tokens`` if it may be sent now. Bounds: ``tokens >= 0``."""
        if now > self._now:
            self._advance(now)
        requests, bucket = self._requests, self._tokens
        if self._now < self._pace.paused_until or not requests.permits(1) or not bucket.permits(tokens):
            self._wanted = True
            return False
        requests.spend(1)
        bucket.spend(tokens)
        self._wanted = False
        return True

    def next_time(self, tokens: int, now: float) -> float:
        """The time from which a call of ``tokens`` may pass if none passes before it; infinite if never."""
        if now > self._now:
            self._advance(now)
        return max(
            self._now,
            self._pace.paused_until,
            self._requests.permitted_at(1, self._pace, self._now),
            self._tokens.permitted_at(tokens, self._pace, self._now),
        )

    def settle(self, tokens: int, now: float) -> None:
        """Correct the charges of calls that ended: positive charges more, negative gives back.

        Bounds: at most the limit more at once; never more back than the last period was charged. Only calls
        that passed within the last period may be given back for.
        """
        if now > self._now:
            self._advance(now)
        if tokens >= 0:
            self._tokens.charge_more(tokens)
        else:
            self._tokens.give_back(-tokens, spendable=self._now >= self._pace.paused_until)

    def throttled(self, wait_s: float | None, generation: int, jitter: float, now: float) -> bool:
        """A 429 came for a call of ``generation``; True when it begins a pause, False when it joins one.

        ``wait_s`` is the server's own wait; anything but a positive number counts as none. A reply of a
        burst that is known already only lengthens a pause that still lasts. ``jitter`` is from 0 to 1.
        """
        if now > self._now:
            self._advance(now)
        pace = self._pace
        named = max(wait_s, PAUSE_MIN_S) if wait_s is not None and wait_s > 0 else None
        until = self._now + min(named or 0.0, WAIT_MAX_S) * (1 + jitter / 10)
        if generation < self.generation:
            if self._now < pace.paused_until < until:
                pace.paused_until = until
            return False
        if self._now - pace.paused_until > CALM_S:
            self._streak = 0
        if named is None:
            until = self._now + min(PAUSE_FIRST_S * 2.0**self._streak, PAUSE_MAX_S) * (1 + jitter / 4)
        self._streak = min(self._streak + 1, 10)
        self.generation += 1
        self.pauses += 1
        pace.paused_until = max(until, pace.paused_until)
        for bucket in (self._requests, self._tokens):
            bucket.level = min(bucket.level, 0.0)
            bucket.reserve = 0.0
        return True

    def paused_s(self, now: float) -> float:
        """How long the pause still lasts; 0 when there is none."""
        return max(0.0, self._pace.paused_until - max(now, self._now))

    def _advance(self, now: float) -> None:
        refill_s = self._pace.between(self._now, now)
        self._requests.advance(refill_s, now, wanted=self._wanted)
        self._tokens.advance(refill_s, now, wanted=self._wanted)
        self._now = now
