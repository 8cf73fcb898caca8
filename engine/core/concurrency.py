"""How many calls may be in flight at once: the adaptive limit beneath a fixed ceiling.

Rules of this file:
1. The limit grows only after a whole round of clean replies during which it was nearly used up; it falls at
   the first sign of overload, once per burst.
2. Replies to calls that were in flight when the limit fell, and those that come right after it, say nothing
   about the new limit: they are ignored.
3. Nothing here reads a clock: times are arguments.

The shape is the one of additive-increase, multiplicative-decrease controllers, with inspect_ai's rule that
growth needs saturation, since a limit nobody reaches has not been tried.
"""

from engine.core.errors import Signal

START = 20
CUT = 0.8
GROWTH = 1.05  # per round, once the limit has fallen for the first time; before that it doubles
SATURATED = 0.8  # share of the limit that must have been in flight during a round for it to count
COOLDOWN_S = 1.0  # after a cut nothing is learnt for so long, however fast the endpoint answers


class Concurrency:
    """The in-flight limit of one worker. ``start == ceiling`` is a fixed limit that still yields to overload.

    Call ``on_start`` when a call is sent and ``on_reply`` when it ended, however it ended. ``limit`` and
    ``in_flight`` are plain attributes, to be read on every call; only this class writes them.
    Bounds: ``1 <= limit <= ceiling``.
    """

    __slots__ = (
        "_clean",
        "_cut_at",
        "_open_at",
        "_peak",
        "_probing",
        "ceiling",
        "cuts",
        "in_flight",
        "limit",
    )

    def __init__(self, ceiling: int, start: int | None = None) -> None:
        if ceiling < 1 or (start is not None and start < 1):
            raise ValueError("at least one call must be allowed in flight")
        self.ceiling = ceiling
        self.limit = min(START if start is None else start, ceiling)
        self.in_flight = 0
        self.cuts = 0
        self._probing = True  # doubling until the first cut
        self._clean = 0  # good replies in this round
        self._peak = 0  # most in flight in this round
        self._cut_at = self._open_at = float("-inf")

    def on_start(self) -> None:
        """A call was sent."""
        self.in_flight = flying = self.in_flight + 1
        if flying > self._peak:
            self._peak = flying

    def on_reply(self, signal: Signal, started_at: float, now: float) -> None:
        """A call that was sent at ``started_at`` ended with ``signal`` (NONE: nothing wrong with the endpoint)."""
        self.in_flight -= 1
        if started_at < self._cut_at or now < self._open_at:
            return
        if signal is Signal.NONE:
            self._clean = clean = self._clean + 1
            if clean >= self.limit:
                self._end_round()
        elif signal is Signal.HOLD:
            self._new_round()
        else:
            self.limit = max(1, int(self.limit * CUT))
            self.cuts += 1
            self._probing = False
            self._cut_at = now
            self._open_at = now + COOLDOWN_S
            self._new_round()

    def retune(self, ceiling: int) -> None:
        """Another ceiling, at least 1. A limit that stood at the old one moves with it; a lower one stays."""
        if self.limit >= self.ceiling or self.limit > ceiling:
            self.limit = ceiling
            self._new_round()
        self.ceiling = ceiling

    def _end_round(self) -> None:
        if self.limit < self.ceiling and self._peak >= self.limit * SATURATED:
            grown = self.limit * 2 if self._probing else max(self.limit + 1, int(self.limit * GROWTH))
            self.limit = min(grown, self.ceiling)
        self._new_round()

    def _new_round(self) -> None:
        self._clean = 0
        self._peak = self.in_flight
