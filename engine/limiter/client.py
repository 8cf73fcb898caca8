"""A worker's side of the limiter: calls queue here, permits come back in the same order.

Rules of this file:
1. Fail closed: without the limiter nothing is granted, and ``starved_s`` says for how long.
2. A limiter that starts anew is told the whole queue again; nothing is granted twice for one place in it.
3. Few messages: needs wait for each other a little, unless the limiter has nothing of ours to work on.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from engine.wire.link import Spoke
from engine.wire.messages import Grant, Join, Joined, Message, Need, Throttled

GATHER_S = 0.02
SETTLE_S = 0.05
SILENT_S = 1.5  # the limiter beats every half second while we wait
REJOIN_S = 0.5
_FRAME_BYTES_MAX = 4 * 1024 * 1024


class LimiterClient:
    """One worker's queue at the limiter. All methods are to be called on the loop."""

    def __init__(
        self, path: Path, token: str, slot: int, on_grant: Callable[[int, int], None], *, largest: int = 0
    ) -> None:
        """``on_grant(count, generation)``: the first ``count`` calls of the queue may be sent now."""
        self._link = Spoke(path, message_bytes_max=_FRAME_BYTES_MAX)
        self._token, self._slot = token, slot
        self._on_grant = on_grant
        self._queue: deque[int] = deque()  # charges not yet granted, the oldest first
        self._told = 0  # of these the limiter knows so many, from the front
        self._settled = 0
        self._joined = False
        self._largest = largest
        self._flush_handle: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heard = 0.0
        self._watch: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Join."""
        self._loop = loop
        self._heard = loop.time()
        self._link.listen(loop, self._on_message)
        self._join()

    def need(self, charge: int) -> None:
        """One more call at the end of the queue, ready to be sent."""
        self._queue.append(charge)
        if not self._told:
            self._flush_soon(0.0)
        elif self._flush_handle is None:
            self._flush_soon(GATHER_S)

    def settle(self, tokens: int) -> None:
        """Charge ended calls more (positive) or give back (negative)."""
        self._settled += tokens
        if self._flush_handle is None:
            self._flush_soon(SETTLE_S)

    def throttled(self, wait_s: float | None, generation: int) -> None:
        """A 429 came for a call granted in ``generation``."""
        self._link.send(Throttled(wait_s=-1.0 if wait_s is None else wait_s, generation=generation))

    def drop_queue(self) -> None:
        """None of the queued calls is wanted any more; the limiter forgets them with a new Join."""
        self._queue.clear()
        self._told = 0
        self._join()

    def starved_s(self, now: float) -> float:
        """For how long calls have waited without a word from the limiter, 0 while it is well."""
        silent = now - self._heard
        return silent if self._queue and silent > SILENT_S else 0.0

    def close(self) -> None:
        """Leave. Permits in hand are spent."""
        for handle in (self._flush_handle, self._watch):
            if handle is not None:
                handle.cancel()
        self._link.close()

    def _join(self) -> None:
        assert self._loop is not None
        self._joined = False
        self._link.send(Join(token=self._token, slot=self._slot, pid=os.getpid(), largest=self._largest))
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self._loop.call_later(REJOIN_S, self._look)

    def _look(self) -> None:
        """Join again when the limiter does not answer, or fell silent while calls wait."""
        assert self._loop is not None
        self._watch = None
        silent = self._loop.time() - self._heard > SILENT_S
        if not self._joined or (self._queue and silent):
            self._join()
        else:
            self._watch = self._loop.call_later(REJOIN_S, self._look)

    def _on_message(self, message: Message) -> None:
        assert self._loop is not None
        self._heard = self._loop.time()
        if isinstance(message, Grant):
            if not self._joined:
                # Sent before our latest Join was read: its places in the queue are told anew. They are spent.
                return
            count = min(message.count, self._told)
            for _ in range(count):
                charge = self._queue.popleft()
                if charge > self._largest:
                    self._largest = charge
            self._told -= count
            self._on_grant(count, message.generation)
        elif isinstance(message, Joined):
            self._joined = True
            self._told = 0
            self._flush_soon(0.0)

    def _flush_soon(self, delay_s: float) -> None:
        assert self._loop is not None
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        self._flush_handle = (
            self._loop.call_later(delay_s, self._flush) if delay_s else self._loop.call_soon(self._flush)
        )

    def _flush(self) -> None:
        assert self._loop is not None
        self._flush_handle = None
        if not self._joined:
            return
        fresh = len(self._queue) - self._told
        if not fresh and not self._settled:
            return
        charges = (
            list(self._queue) if fresh == len(self._queue) else [self._queue[i] for i in range(-fresh, 0)]
        )
        if not self._told:
            # The limiter owes us no word while nothing of ours waits there.
            self._heard = self._loop.time()
        if self._link.send(Need(charges=charges, settled=self._settled)):
            self._told = len(self._queue)
            self._settled = 0
