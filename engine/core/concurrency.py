"""How many calls may be in flight at once: the adaptive limit beneath a fixed ceiling.

Rules of this file:
1. The limit grows only after a round of clean replies during which it was nearly used up: a limit that nobody
   reaches has not been tried. A round is at least as long as a call takes.
2. A refusal keeps its slot until the round ends; then the limit is what the server took. One cut for a burst: replies
   to calls that were in flight at a decision say nothing about it and are ignored.
3. Nothing here reads a clock: times are arguments.

The shape: doubling at the start, as TCP does; then the wall is known, and only now and then one call more is tried.
Where that goes well the step doubles again, so that a wall that moved away is found as fast as the first one was.
Growth that brings no more replies a second only lengthens a queue (vLLM's has no end) and is taken back.
"""

import math

from engine.core.errors import Signal

START = 20  # of all workers together, where nothing is known
START_UNDER_QUOTA = 512  # where a declared limit keeps the pace, so that nothing can be overrun at the start
CUT = 0.8  # under a quota a refusal speaks of its rate: no wall is known, and the quota pauses by itself
FAILING = 0.05  # share of failures, other than refusals, at which a round is no reason to grow
SATURATED = 0.8  # share of the limit that must have been in flight during a round for it to count
ROUND_MIN_S = 0.05
COOLDOWN_S = 1.0  # between two cuts of that kind
PROBE_S = 2.0  # all workers together try one more call this often
STRUCK_ROUNDS = 4  # without having grown: so many rounds until it may grow again
# A server hands a free slot to who is there: of so many workers one that has so much keeps it for ever, unless it
YIELD_AMONG, YIELD_FROM, YIELDED = 4, 12, 2  # leaves so much to the others each time it meets the wall.
SHUT_MAX_S = 4.0  # a worker that gets nothing through waits at most so long for its next try
FLAT_FROM = 32  # below this limit nobody cares how long a queue is
FLAT_GROWTH, FLAT_GAIN = 1.5, 1.15  # so much more in flight has to bring at least so much more
FLAT_S = 20.0  # until growth is tried again where it brought nothing
_GOLDEN = 0.6180339887


class Concurrency:
    """The in-flight limit of one worker. ``start == ceiling`` is a fixed limit that still yields to overload.

    Call ``on_start`` when a call is sent, ``on_reply`` when it ended, however it ended, and ``tick`` a few times a
    second. ``limit`` and ``in_flight`` are plain attributes, to be read on every call; only this class writes them.
    ``workers``: how many such limits share the server, ``place`` this one's number among them.
    Bounds: ``0 <= limit <= ceiling``; 0 only for moments, after which ``tick`` opens it again.
    """

    __slots__ = (
        "_base",
        "_cut_at",
        "_decided_at",
        "_failed",
        "_flat",
        "_good",
        "_grew",
        "_grow_at",
        "_held",
        "_latency_s",
        "_latency_sum",
        "_peak",
        "_probe_s",
        "_probes",
        "_probing",
        "_reference",
        "_round_until",
        "_shut_until",
        "_step",
        "_strikes",
        "ceiling",
        "cuts",
        "in_flight",
        "limit",
    )

    def __init__(self, ceiling: int, start: int | None = None, *, workers: int = 1, place: int = 0) -> None:
        if ceiling < 1 or (start is not None and start < 1):
            raise ValueError("at least one call must be allowed in flight")
        self.ceiling = ceiling
        self.limit = self._base = min(START if start is None else start, ceiling)
        self.in_flight = 0
        self.cuts = 0
        self._probe_s = PROBE_S * workers
        self._probes = place
        self._probing = True  # doubling, until the first cut
        self._step = 1  # how much the next growth adds, once the wall was met
        self._grew = False  # the last decision was to grow, and no round has confirmed it
        self._grow_at = self._decided_at = self._shut_until = self._cut_at = -math.inf
        self._round_until = -math.inf
        self._strikes = 0  # rounds in a row in which nothing got through
        self._latency_s = 0.0  # of good replies, lately
        self._reference = (0, 0.0)  # a limit and its latency, to judge growth by
        self._flat = 0
        self._good = self._failed = self._held = self._peak = 0
        self._latency_sum = 0.0

    def on_start(self) -> None:
        """A call was sent."""
        self.in_flight = flying = self.in_flight + 1
        if flying > self._peak:
            self._peak = flying

    def on_reply(self, signal: Signal, started_at: float, now: float) -> None:
        """A call that was sent at ``started_at`` ended with ``signal`` (NONE: nothing wrong with the endpoint)."""
        self.in_flight -= 1
        if signal is Signal.NONE:
            latency_s = now - started_at
            self._latency_s += (latency_s - self._latency_s) * (0.1 if self._latency_s else 1.0)
            if started_at >= self._decided_at:
                self._good = good = self._good + 1
                self._latency_sum += latency_s
                if good * 2 >= self._base and now >= self._round_until and not self._held:
                    self._end_clean_round(now)
        elif signal is Signal.HOLD:
            self._failed += 1
        elif started_at < self._decided_at:
            return
        elif signal is Signal.CUT:
            self._held += 1
            self.limit = max(0, self._base - self._held)
        elif now >= self._cut_at + COOLDOWN_S:
            self._cut_at = now
            self._wait_to_grow(now)
            self._cut_to(int(self._base * CUT), now)

    def tick(self, now: float) -> None:
        """Time has passed: end a round in which calls were refused, open again what was shut."""
        if self._held and now >= self._round_until:
            self._end_refused_round(now)
        if not self.limit and not self._held and now >= self._shut_until:
            self.limit = self._base

    def retune(self, ceiling: int) -> None:
        """Another ceiling, at least 1. A limit that stood at the old one moves with it; a lower one stays."""
        if self._base >= self.ceiling or self._base > ceiling:
            self._base = ceiling
            self._begin_round()
            if self.limit:
                self.limit = ceiling
        self.ceiling = ceiling

    # --- rounds -------------------------------------------------------------------------------------------

    @property
    def _round_s(self) -> float:
        return self._latency_s if self._latency_s > ROUND_MIN_S else ROUND_MIN_S

    def _end_refused_round(self, now: float) -> None:
        base, held = self._base, self._held
        if held >= base and not self._good:
            self._shut_until = now + min(STRUCK_ROUNDS * self._round_s * 2.0**self._strikes, SHUT_MAX_S)
            self._strikes = min(self._strikes + 1, 16)
        is_one_of_many = base >= YIELD_FROM and self._probe_s >= PROBE_S * YIELD_AMONG
        yielded = YIELDED if self._grew and is_one_of_many else 0
        self._wait_to_grow(now)
        self._cut_to(base - held - yielded, now)
        if now < self._shut_until:
            self.limit = 0

    def _wait_to_grow(self, now: float) -> None:
        """Refused right after growing: that is the wall. Otherwise another worker has grown, or it is noise."""
        if self._grew:
            self._probes += 1
            self._grow_at = now + self._probe_s * (0.75 + 0.5 * (self._probes * _GOLDEN % 1.0))
        else:
            self._grow_at = now + STRUCK_ROUNDS * self._round_s

    def _cut_to(self, limit: int, now: float) -> None:
        self._base = self.limit = max(1, limit)
        self.cuts += 1
        self._probing = self._grew = False
        self._step = 1
        self._reference = (0, 0.0)
        self._decide(now)

    def _end_clean_round(self, now: float) -> None:
        base = self._base
        self._strikes = 0
        is_tried = self._peak >= base * SATURATED and self._failed < self._good * FAILING
        if base >= self.ceiling or not is_tried or now < self._grow_at:
            self._grew = False
        elif self._is_flat():
            self._base = self.limit = self._reference[0]
            self._reference = (0, 0.0)
            self._probing = self._grew = False
            self._step = 1
            self._grow_at = now + FLAT_S
        else:
            step = base if self._probing else self._step
            self._step = min(step * 2, base)
            self._base = self.limit = min(base + step, self.ceiling)
            self._grew = True
        self._decide(now)

    def _is_flat(self) -> bool:
        """Whether growth of late brought nothing but longer waits."""
        base, latency_s = self._base, self._latency_sum / self._good
        limit, its_latency_s = self._reference
        if base < FLAT_FROM:
            return False
        if not limit:
            self._reference = (base, latency_s)
        elif base >= limit * FLAT_GROWTH:
            if base * its_latency_s < limit * latency_s * FLAT_GAIN:
                self._flat += 1
                return self._flat >= 2
            self._reference = (base, latency_s)
        self._flat = 0
        return False

    def _decide(self, now: float) -> None:
        self._decided_at = now
        self._round_until = now + self._round_s
        self._begin_round()

    def _begin_round(self) -> None:
        self._good = self._failed = self._held = 0
        self._latency_sum = 0.0
        self._peak = self.in_flight
        if self.limit:
            self.limit = self._base
