"""The quota of one (endpoint, key, model): when the next call may be sent.

Rules of this file:
1. In any sliding period at most the limit is admitted, whatever the charges, settlements, pauses and restarts.
2. A call passes when every bucket permits it, and then all of them are charged, before it is sent.
3. Nothing here reads a clock: ``now`` is an argument, and a ``now`` that goes back is taken as no time passed.
"""

from typing import NamedTuple

from engine.core.bucket import Bucket
from engine.core.pace import Pace

WAIT_MAX_S = 120.0  # a server's wait is believed up to here
PAUSE_MIN_S = 0.05  # and from here
PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 2.0  # pauses the server named no wait for: doubled up to the second
CALM_S = 10.0  # so long after a pause a new one begins at PAUSE_FIRST_S again


class Memory(NamedTuple):
    """What a quota hands to the one after it, when it ends in peace: all of its last period."""

    requests: list[tuple[int, int]]  # (slots ago, amount); a slot is a thousandth of the period
    tokens: list[tuple[int, int]]
    tokens_in: list[tuple[int, int]]
    tokens_out: list[tuple[int, int]]
    largest: int
    paused_s: float


class Rates(NamedTuple):
    """Amounts per minute: limits, where 0 is none, or what was used of them."""

    rpm: int = 0
    tpm: int = 0
    input_tpm: int = 0
    output_tpm: int = 0


NO_RATES = Rates()
RATE_NAMES = {"rpm": "RPM", "tpm": "TPM", "input_tpm": "input TPM", "output_tpm": "output TPM"}


class Quota:
    """The limits of one (endpoint, key, model): requests and tokens, those in and those out, per period (60 s but for
    tests), any of them or none.

    What has no limit is counted all the same: should it get one, the last period counts against it.

    ``largest`` is 0 for the first start; a restarted limiter passes the largest token charge that was ever
    granted, at least 1, and then the bound holds across the restart too. ``generation`` numbers the pauses:
    a grant carries it out and a 429 carries it back, so that a burst of them pauses once. A restarted
    limiter begins at a higher one.
    """

    __slots__ = (
        "_input",
        "_now",
        "_output",
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
        rpm: int | None = None,
        tpm: int | None = None,
        input_tpm: int | None = None,
        output_tpm: int | None = None,
        now: float,
        period_s: float = 60.0,
        largest: int = 0,
        generation: int = 0,
    ) -> None:
        self._requests = Bucket(rpm, period_s, now)
        self._tokens = Bucket(tpm, period_s, now, credit=True)
        self._input = Bucket(input_tpm, period_s, now, credit=True)
        self._output = Bucket(output_tpm, period_s, now, credit=True)
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
    def rates(self) -> Rates:
        """The limits that hold now."""
        return Rates(*(bucket.limit or 0 for bucket in self._buckets))

    def used(self, now: float) -> Rates:
        """What passed in the last period."""
        if now > self._now:
            self._advance(now)
        return Rates(*(bucket.window.total for bucket in self._buckets))

    @property
    def _buckets(self) -> tuple[Bucket, Bucket, Bucket, Bucket]:
        return self._requests, self._tokens, self._input, self._output

    def inherit(self, largest: int) -> None:
        """A limiter before this one granted a charge of ``largest`` tokens; see ``Bucket.inherit``."""
        self._requests.inherit(1)
        for bucket in (self._tokens, self._input, self._output):
            bucket.inherit(largest)

    def memory(self, now: float) -> Memory:
        """All of the last period, for a quota that begins after this one."""
        if now > self._now:
            self._advance(now)
        requests, tokens, into, out = (bucket.window.content() for bucket in self._buckets)
        return Memory(
            requests,
            tokens,
            into,
            out,
            self._tokens.largest,
            self.paused_s(self._now),
        )

    def remember(self, memory: Memory, gone_s: float) -> None:
        """Take over from a quota that ended ``gone_s`` before this one began, which has admitted nothing yet.

        Bounds: ``gone_s >= 0``; where it is not known, 0 is safe.
        """
        slots = int(gone_s / self._requests.window.slot_s)
        for bucket, content in zip(self._buckets, memory[:4], strict=True):
            bucket.remember(content, slots)
        self._tokens.largest = max(self._tokens.largest, memory.largest)
        if memory.paused_s > gone_s:
            self._pace.paused_until = self._now + memory.paused_s - gone_s

    def retune(
        self,
        now: float,
        *,
        rpm: int | None,
        tpm: int | None,
        input_tpm: int | None = None,
        output_tpm: int | None = None,
    ) -> None:
        """Other limits from ``now`` on; None for none. See ``Bucket.retune``. Raises ValueError for one below 1."""
        limits = (rpm, tpm, input_tpm, output_tpm)
        for name, limit in zip(RATE_NAMES.values(), limits, strict=True):
            if limit is not None and limit < 1:
                raise ValueError(f"{name} {limit} admits nothing")
        if now > self._now:
            self._advance(now)
        for bucket, limit in zip(self._buckets, limits, strict=True):
            if limit != bucket.limit:
                bucket.retune(limit)

    def impossible(self, tokens: int, tokens_in: int = 0, tokens_out: int = 0) -> bool:
        """A call of that many tokens can never pass: it is dearer than a whole period."""
        return is_too_dear(self.rates, tokens, tokens_in, tokens_out)

    def share(self, requests: int, tokens: int, tokens_in: int = 0, tokens_out: int = 0) -> float:
        """How long the limits need to refill what so many calls with so many tokens take, in seconds."""
        return max(
            requests / self._requests.rate,
            tokens / self._tokens.rate,
            tokens_in / self._input.rate,
            tokens_out / self._output.rate,
        )

    def take(self, tokens: int, now: float, tokens_in: int = 0, tokens_out: int = 0) -> bool:
        """Charge one call of ``tokens``, so many of them in and out, if it may be sent now. Bounds: none below 0."""
        if now > self._now:
            self._advance(now)
        requests, bucket, into, out = self._requests, self._tokens, self._input, self._output
        if (
            self._now < self._pace.paused_until
            or not requests.permits(1)
            or not bucket.permits(tokens)
            or not into.permits(tokens_in)
            or not out.permits(tokens_out)
        ):
            self._wanted = True
            return False
        requests.spend(1)
        bucket.spend(tokens)
        if tokens_in or tokens_out:
            into.spend(tokens_in)
            out.spend(tokens_out)
        self._wanted = False
        return True

    def next_time(self, tokens: int, now: float, tokens_in: int = 0, tokens_out: int = 0) -> float:
        """The time from which such a call may pass if none passes before it; infinite if never."""
        if now > self._now:
            self._advance(now)
        pace = self._pace
        return max(
            self._now,
            pace.paused_until,
            self._requests.permitted_at(1, pace, self._now),
            self._tokens.permitted_at(tokens, pace, self._now),
            self._input.permitted_at(tokens_in, pace, self._now),
            self._output.permitted_at(tokens_out, pace, self._now),
        )

    def settle(self, tokens: int, now: float, tokens_in: int = 0, tokens_out: int = 0) -> None:
        """Correct the charges of calls that ended: positive charges more, negative gives back.

        Bounds: at most the limit more at once; never more back than the last period was charged. Only calls
        that passed within the last period may be given back for.
        """
        if now > self._now:
            self._advance(now)
        for bucket, amount in (
            (self._tokens, tokens),
            (self._input, tokens_in),
            (self._output, tokens_out),
        ):
            if amount > 0:
                bucket.charge_more(amount)
            elif amount < 0:
                bucket.give_back(-amount, spendable=self._now >= self._pace.paused_until)

    def explain(self, used: Rates, now: float) -> Rates:
        """The server counted so much in its last period; what of it nobody here was charged for counts from now on.

        Somebody else uses the same key. 0 is nothing, or not known. Returns what was added.
        """
        if now > self._now:
            self._advance(now)
        added = []
        for bucket, amount in zip(self._buckets, used, strict=True):
            missing = max(0, amount - bucket.window.total) if bucket.limit is not None else 0
            if missing:
                # It has passed: the pace of what is to come stays as it is, but the period holds less of ours.
                bucket.window.add(missing)
            added.append(missing)
        return Rates(*added)

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
        self._requests.advance(refill_s, now, wanted=self._wanted)
        self._tokens.advance(refill_s, now, wanted=self._wanted)
        self._input.advance(refill_s, now, wanted=self._wanted)
        self._output.advance(refill_s, now, wanted=self._wanted)
        self._now = now


def is_too_dear(rates: Rates, tokens: int, tokens_in: int = 0, tokens_out: int = 0) -> bool:
    """Whether a call costs more than a whole minute of some limit, so that it can never pass."""
    return 0 < rates.tpm < tokens or 0 < rates.input_tpm < tokens_in or 0 < rates.output_tpm < tokens_out
