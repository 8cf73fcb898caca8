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
CLOSE_S = 1e-6  # a level that lacks less refill than this is there: a clock has no finer ticks to wait for


class Bucket:
    """One limit: so many requests, or tokens, per period.

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
        "capacity",
        "full",
        "largest",
        "level",
        "limit",
        "rate",
        "reserve",
        "window",
    )

    def __init__(self, limit: int, period_s: float, now: float, *, credit: bool = False) -> None:
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

    def _set(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a limit of {limit} per {self._period_s} s admits nothing")
        self.limit = limit
        self.rate = REFILL * limit / self._period_s
        self.full = max(1.0, FULL_S * self.rate)
        self.capacity = self.full + LATE_S * self.rate
        self._reserve_max = RESERVE_S * self.rate
        self._close = CLOSE_S * self.rate

    def retune(self, limit: int) -> None:
        """Another limit from now on; what was admitted before counts against it. Raises ValueError below 1.

        A lower one may admit nothing until enough of the last period is forgotten. A higher one is used at its
        own rate at once: the burst does not grow by what an earlier limit held back.
        """
        self._set(limit)
        self.level = min(self.level, self.capacity)
        self.reserve = min(self.reserve, self._reserve_max)
        self._catch_up = CATCH_UP_FEW if self.largest * FEW_PER_S > self.rate else CATCH_UP

    def advance(self, refill_s: float, now: float, *, wanted: bool) -> None:
        """Let time pass: ``refill_s`` seconds of refill, and the window moves to ``now``.

        ``wanted``: a call waited all that time. What then ran over (a timer fired late, another limit held
        the call up) is kept as ``reserve`` and comes back slowly, as a refill that is a little faster.
        """
        self.window.advance(now)
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
        if not charge:
            return True
        needed = charge if charge < self.full else self.full
        return self.level + self._close >= needed and self.window.total + charge <= self.limit

    def spend(self, charge: int) -> None:
        """Charge a call that passes."""
        self.level -= charge
        self.window.add(charge)
        if charge > self.largest:
            self.largest = charge
            self._catch_up = CATCH_UP_FEW if charge * FEW_PER_S > self.rate else CATCH_UP

    def permitted_at(self, charge: int, pace: Pace, now: float) -> float:
        """The time from which ``permits`` holds if nothing else passes; infinite above the limit."""
        if charge > self.limit:
            return math.inf
        if not charge:
            return now
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
        extra = min(amount, self.limit)
        self.level = max(self.level - extra, min(self.level, -float(self.limit)))
        self.window.add(extra)

    def give_back(self, amount: int, *, spendable: bool) -> None:
        """Calls of the last period were cheaper than they were charged. Bounds: what the window still holds.

        ``spendable`` lifts the level too, beyond ``capacity`` if need be, up to ``CREDIT_S`` of refill or the
        largest charge: it was paid for and not used, and under load it comes in lumps larger than the burst.
        """
        back = self.window.give_back(amount)
        if spendable:
            self.level = max(self.level, min(self.level + back, self._level_max(self.largest)))

    def inherit(self, largest: int) -> None:
        """Take over from a bucket that is gone, whose largest charge was ``largest``. Again: the larger holds.

        Its last period is not known. It is taken to be the worst it could do: all it can have had in hand and
        the largest debt, spent in its last moment, and the full rate before that. The window is filled with
        this as of the start, and the level begins at minus what goes beyond the burst.
        """
        head = math.ceil(self._level_max(largest) + self._reserve_max + max(0.0, largest - self.full))
        head = min(head, self.limit)
        known = self._inherited
        if head <= known:
            return
        self._inherited = head
        self.largest = max(self.largest, largest)
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

    def _level_max(self, largest: int) -> float:
        return max(self.capacity, float(largest), CREDIT_S * self.rate) if self._credit else self.capacity


class Quota:
    """The limits of one (endpoint, key, model): requests, tokens, or both, per period (60 s but for tests).

    ``largest`` is 0 for the first start; a restarted limiter passes the largest token charge that was ever
    granted, at least 1, and then the bound holds across the restart too. ``generation`` numbers the pauses:
    a grant carries it out and a 429 carries it back, so that a burst of them pauses once. A restarted
    limiter begins at a higher one.
    """

    __slots__ = (
        "_buckets",
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
        self._requests = Bucket(rpm, period_s, now) if rpm is not None else None
        self._tokens = Bucket(tpm, period_s, now, credit=True) if tpm is not None else None
        self._buckets = tuple(b for b in (self._requests, self._tokens) if b is not None)
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
        return self._tokens.largest if self._tokens is not None else 0

    def inherit(self, largest: int) -> None:
        """A limiter before this one granted a charge of ``largest`` tokens; see ``Bucket.inherit``."""
        if self._requests is not None:
            self._requests.inherit(1)
        if self._tokens is not None:
            self._tokens.inherit(largest)

    def retune(self, now: float, *, rpm: int | None = None, tpm: int | None = None) -> None:
        """Other limits from ``now`` on; None leaves one as it is. See ``Bucket.retune``.

        Raises ValueError for a limit below 1, and for one that was not there from the start: what it should
        count was not counted.
        """
        for name, bucket, limit in (("rpm", self._requests, rpm), ("tpm", self._tokens, tpm)):
            if limit is not None and bucket is None:
                raise ValueError(f"this quota has had no {name} so far")
            if limit is not None and limit < 1:
                raise ValueError(f"{name} {limit} admits nothing")
        if now > self._now:
            self._advance(now)
        if rpm is not None and self._requests is not None:
            self._requests.retune(rpm)
        if tpm is not None and self._tokens is not None:
            self._tokens.retune(tpm)

    def impossible(self, tokens: int) -> bool:
        """A call of that many tokens can never pass: it is dearer than a whole period."""
        return self._tokens is not None and tokens > self._tokens.limit

    def share(self, requests: int, tokens: int) -> float:
        """How long the limits need to refill what so many calls with so many tokens take, in seconds."""
        seconds = requests / self._requests.rate if self._requests is not None else 0.0
        if self._tokens is not None:
            return max(seconds, tokens / self._tokens.rate)
        return seconds

    def take(self, tokens: int, now: float) -> bool:
        """Charge one call of ``tokens`` if it may be sent now. Bounds: ``tokens >= 0``."""
        if now > self._now:
            self._advance(now)
        requests, bucket = self._requests, self._tokens
        if (
            self._now < self._pace.paused_until
            or (requests is not None and not requests.permits(1))
            or (bucket is not None and not bucket.permits(tokens))
        ):
            self._wanted = True
            return False
        if requests is not None:
            requests.spend(1)
        if bucket is not None:
            bucket.spend(tokens)
        self._wanted = False
        return True

    def next_time(self, tokens: int, now: float) -> float:
        """The time from which a call of ``tokens`` may pass if none passes before it; infinite if never."""
        if now > self._now:
            self._advance(now)
        at = max(self._now, self._pace.paused_until)
        if self._requests is not None:
            at = max(at, self._requests.permitted_at(1, self._pace, self._now))
        if self._tokens is not None:
            at = max(at, self._tokens.permitted_at(tokens, self._pace, self._now))
        return at

    def settle(self, tokens: int, now: float) -> None:
        """Correct the charges of calls that ended: positive charges more, negative gives back.

        Bounds: at most the limit more at once; never more back than the last period was charged. Only calls
        that passed within the last period may be given back for.
        """
        if self._tokens is None:
            return
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
        for bucket in self._buckets:
            bucket.level = min(bucket.level, 0.0)
            bucket.reserve = 0.0
        return True

    def paused_s(self, now: float) -> float:
        """How long the pause still lasts; 0 when there is none."""
        return max(0.0, self._pace.paused_until - max(now, self._now))

    def _advance(self, now: float) -> None:
        refill_s = self._pace.between(self._now, now)
        for bucket in self._buckets:
            bucket.advance(refill_s, now, wanted=self._wanted)
        self._now = now
