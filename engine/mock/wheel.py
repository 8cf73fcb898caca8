"""A timer wheel with slots of one millisecond: one timer of the loop serves all replies due in a slot.

Rules of this file:
1. Nothing comes early: a slot is served at or after the latest time it holds.
2. Within a slot things are served in the order they were added.
"""

import asyncio
from typing import Protocol

SLOT_S = 0.001


class Due(Protocol):
    """Something that waits for its time."""

    def due(self) -> None:
        """The time has come. Must not raise."""


class Wheel:
    """Things waiting for their time on one event loop, whose clock is ``time.monotonic``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, list[Due]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def add(self, at_s: float, thing: Due) -> None:
        """Call ``thing.due()`` at ``at_s``, at most a slot later than asked."""
        slot = int(at_s / SLOT_S) + 1
        waiting = self._slots.get(slot)
        if waiting is not None:
            waiting.append(thing)
            return
        self._slots[slot] = [thing]
        self._timers[slot] = self._loop.call_at(slot * SLOT_S, self._serve, slot)

    def _serve(self, slot: int) -> None:
        del self._timers[slot]
        for thing in self._slots.pop(slot):
            thing.due()

    def close(self) -> None:
        """Forget everything that waits."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._slots.clear()
