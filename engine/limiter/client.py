"""A worker's side of the limiter: calls queue here, permits come back in the same order.

Rules of this file:
1. Fail closed: without the limiter nothing is granted, and ``starved_s`` says for how long.
2. Calls are numbered, and both sides say up to which number they have come: whatever is lost between them
   (a message, the whole limiter) is noticed and told again, and no call is granted twice.
3. Few messages: needs wait for each other a little, unless the limiter has nothing of ours to work on.
4. Nothing runs here while nothing waits.
5. A permit is for now. One whose message was lost, or lay unread while this process was stopped, is spent unused and its
   call asks anew: sent late it would come on top of what others were granted since.
"""

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from engine.core.quota import Rates
from engine.wire.link import Spoke
from engine.wire.messages import (
    Abandon,
    Grant,
    Join,
    Joined,
    Message,
    Need,
    Observed,
    Refuse,
    Rejoin,
    Throttled,
    TooDear,
)

GATHER_S = 0.05  # while calls of ours wait there anyway, further ones can wait here
SETTLE_S = 0.05
GAP_S = 0.002  # between two messages at least
SILENT_S = 0.75  # the limiter beats four times a second while we wait
LOOK_S = 0.25
AWAY_S = 0.5  # who looks so much later than was due was stopped meanwhile
STARVED_S = 1.0
FRAME_BYTES_MAX = 4 * 1024 * 1024
CHARGES_MAX = 100_000  # in one message


class LimiterClient:
    """One worker's queue at the limiter. All methods are to be called on the loop, after ``start``.

    ``on_grant(count, generation)``: the first ``count`` calls of the queue may be sent now. It is called on
    the loop and may call ``need``. ``on_too_dear(rates)``: a limit is lower than some call of the queue;
    it is to call ``drop_queue`` and to leave out such calls from now on. ``run``: the coordinator's process id.
    """

    def __init__(
        self,
        path: Path,
        token: str,
        slot: int,
        on_grant: Callable[[int, int], None],
        *,
        run: int,
        on_too_dear: Callable[[Rates], None] = lambda rates: None,
        largest: int = 0,
    ) -> None:
        self._link = Spoke(path, message_bytes_max=FRAME_BYTES_MAX)
        self._token, self._run, self._slot = token, run, slot
        self._on_grant = on_grant
        self._on_too_dear = on_too_dear
        self._queue: deque[tuple[int, int, int]] = deque()  # costs of calls not yet granted, the oldest first
        self._given = 0  # the number of the first of them
        self._told = 0  # the number of the first the limiter has not heard of
        self._settled = self._settled_in = self._settled_out = 0
        self._epoch = 0
        self._joined = False
        self._joins = 0
        self._joins_stale = -1  # answers to these say nothing any more
        self._largest = largest
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flush_handle: asyncio.Handle | None = None
        self._flush_at = 0.0  # when that is
        self._flushed_at = 0.0
        self._heard_at = 0.0
        self._look_handle: asyncio.TimerHandle | None = None
        self._look_at = 0.0  # when that is
        self.refused = ""  # why the limiter does not want us, empty while it does

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Join."""
        self._loop = loop
        self._heard_at = loop.time()
        self._link.listen(loop, self._on_message)
        self._join()
        self._look_later()

    def need(self, charge: int, tokens_in: int = 0, tokens_out: int = 0) -> None:
        """One more call at the end of the queue, ready to be sent. Bounds: nothing below 0."""
        self._queue.append((charge, tokens_in, tokens_out))
        self._flush_by(GATHER_S if self._told > self._given else GAP_S)

    def observed(self, limits: Rates, used: Rates) -> bool:
        """Reply headers said this. False where nobody was told."""
        return self._joined and self._link.send(Observed(limits=limits, used=used))

    def settle(self, tokens: int, tokens_in: int = 0, tokens_out: int = 0) -> None:
        """Charge ended calls more (positive) or give back (negative): by the provider's rule, in, and out.

        Only for calls granted within the last period may anything be given back.
        """
        self._settled += tokens
        self._settled_in += tokens_in
        self._settled_out += tokens_out
        self._flush_by(SETTLE_S)

    def throttled(self, wait_s: float | None, generation: int) -> None:
        """A 429 came for a call granted in ``generation``."""
        if self._joined:
            self._link.send(Throttled(wait_s=-1.0 if wait_s is None else wait_s, generation=generation))

    def drop_queue(self) -> None:
        """None of the queued calls is wanted any more. What is granted to them meanwhile is spent."""
        self._given += len(self._queue)
        self._told = self._given
        self._queue.clear()
        if self._joined:
            self._link.send(Abandon(upto=self._given))

    def starved_s(self, now: float) -> float:
        """For how long calls have waited without a word from the limiter, 0 while it is well."""
        silent_s = now - self._heard_at
        return silent_s if self._queue and silent_s > STARVED_S else 0.0

    def close(self) -> None:
        """Leave. Permits in hand are spent."""
        for handle in (self._flush_handle, self._look_handle):
            if handle is not None:
                handle.cancel()
        self._link.close()

    # --- joining ------------------------------------------------------------------------------------------

    def _join(self) -> None:
        self._joined = False
        self._joins += 1
        self._link.send(
            Join(
                token=self._token,
                run=self._run,
                slot=self._slot,
                pid=os.getpid(),
                epoch=self._epoch,
                largest=self._largest,
                serial=self._joins,
            )
        )

    def _look(self) -> None:
        """Join again when the limiter does not answer, or fell silent while calls wait."""
        assert self._loop is not None
        self._look_handle = None
        if self.refused:
            return
        if self._was_away():
            self._come_back()
        elif not self._joined or (self._queue and self._loop.time() - self._heard_at > SILENT_S):
            self._join()
        if self._queue or not self._joined:
            self._look_later()

    def _look_later(self) -> None:
        assert self._loop is not None
        if self._look_handle is None:
            self._look_at = self._loop.time() + LOOK_S
            self._look_handle = self._loop.call_at(self._look_at, self._look)

    def _was_away(self) -> bool:
        """Whether this process was stopped until just now."""
        assert self._loop is not None
        return self._loop.time() - self._look_at > AWAY_S

    def _come_back(self) -> None:
        """What lies unread is old: only an answer to what is asked from now on tells how things stand."""
        assert self._loop is not None
        self._look_at = self._loop.time()
        self._joins_stale = self._joins
        self._join()

    # --- messages -----------------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        assert self._loop is not None
        self._heard_at = self._loop.time()
        if self._look_handle is not None and self._was_away():
            self._come_back()
        if isinstance(message, Grant):
            # Before our latest Join was answered it is not certain whose numbers these are.
            if self._joined:
                self._granted(message.upto, message.generation)
        elif isinstance(message, Joined):
            self._on_joined(message)
        elif isinstance(message, Rejoin):
            if self._joined:
                self._join()
                self._look_later()
        elif isinstance(message, TooDear):
            if self._joined:
                self._on_too_dear(message.rates)
        elif isinstance(message, Refuse):
            self.refused = message.reason
            self._joined = False
            sys.stderr.write(f"the limiter refused this worker: {message.reason}\n")

    def _on_joined(self, message: Joined) -> None:
        if message.serial <= self._joins_stale:
            return
        self._joined = True
        if message.epoch != self._epoch:
            self._epoch = message.epoch
            self._given = message.given
        elif message.given != self._given:
            if message.given > self._given:
                self._given = max(self._told, message.told)  # see rule 5; those of the queue have new numbers
            self._link.send(Abandon(upto=self._given))
        self._told = max(message.told, self._given)
        if self._queue or self._has_settled:
            self._flush_by(0.0)

    def _granted(self, upto: int, generation: int) -> None:
        count = min(upto - self._given, len(self._queue))
        if count <= 0:
            return
        popleft = self._queue.popleft
        for _ in range(count):
            charge, _, _ = popleft()
            if charge > self._largest:
                self._largest = charge
        self._given += count
        self._told = max(self._told, self._given)
        self._on_grant(count, generation)
        if self._queue and self._told == self._given:
            self._flush_by(GAP_S)

    # --- telling ------------------------------------------------------------------------------------------

    def _flush_by(self, gap_s: float) -> None:
        """Tell the limiter what is new, ``gap_s`` after the last time or, if that is past, at the end of this turn."""
        loop = self._loop
        assert loop is not None
        at = self._flushed_at + gap_s
        if self._flush_handle is not None:
            if self._flush_at <= at:
                return
            self._flush_handle.cancel()
        self._flush_at = at
        if at > loop.time():
            self._flush_handle = loop.call_at(at, self._flush)
        else:
            self._flush_handle = loop.call_soon(self._flush)

    @property
    def _has_settled(self) -> bool:
        return bool(self._settled or self._settled_in or self._settled_out)

    def _flush(self) -> None:
        assert self._loop is not None
        self._flush_handle = None
        if not self._joined:
            return  # all of it is told when we are
        now = self._flushed_at = self._loop.time()
        if self._told == self._given:
            self._heard_at = now  # the limiter owed us no word until now
        known = self._told - self._given
        costs = list(islice(self._queue, known, known + CHARGES_MAX))
        if not costs and not self._has_settled:
            return
        need = Need(
            first=self._told,
            charges=[charge for charge, _, _ in costs],
            settled=self._settled,
            settled_in=self._settled_in,
            settled_out=self._settled_out,
            parts=[part for _, *parts in costs for part in parts] if any(map(_has_parts, costs)) else [],
        )
        if not self._link.send(need):
            self._join()
        else:
            self._told += len(costs)
            self._settled = self._settled_in = self._settled_out = 0
            if len(costs) == CHARGES_MAX:
                self._flush_by(GAP_S)
        self._look_later()


def _has_parts(cost: tuple[int, int, int]) -> bool:
    return bool(cost[1] or cost[2])
