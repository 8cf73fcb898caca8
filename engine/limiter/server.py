"""The limiter's loop: queues of charges in, permits out, as fast as the quota allows and no faster.

Rules of this file:
1. Sockets and timers only; whose call passes, and when, is the desk's to say.
2. Where permits are free they leave at once; where they are not, turns are ``TURN_S`` apart, so that each
   message carries many.
3. An idle limiter has no timer and costs nothing.
"""

import asyncio
import hmac
import math
import os
import random
from dataclasses import dataclass
from pathlib import Path

from engine.core.bucket import Quota
from engine.limiter.desk import Desk, Unwanted
from engine.wire.link import Hub
from engine.wire.messages import (
    Abandon,
    Beat,
    Close,
    Gauge,
    Join,
    Message,
    Need,
    Refuse,
    Rejoin,
    SetLimits,
    Throttled,
    Watch,
)

TURN_S = 0.03  # between two rounds of grants under saturation: a fraction of the burst the quota allows
BEAT_S = 0.25  # who waits hears from us at least this often
GAUGE_S = 1.0
FRAME_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LimiterSettings:
    """A limiter's start, one line of JSON on its standard input.

    ``largest`` is 0 for a first start; for a restart it is the largest token charge ever granted, at least
    1, and ``generation`` is above all that were granted in before.
    """

    socket: str
    token: str
    rpm: int | None = None
    tpm: int | None = None
    period_s: float = 60.0
    largest: int = 0
    generation: int = 0
    parent_pid: int = 0


class LimiterServer:
    """Serves one quota to all who know the token. ``refused`` counts those who do not."""

    def __init__(self, settings: LimiterSettings) -> None:
        self._loop = asyncio.get_running_loop()
        self._token = settings.token
        self._quota = Quota(
            rpm=settings.rpm,
            tpm=settings.tpm,
            now=self._loop.time(),
            period_s=settings.period_s,
            largest=settings.largest,
            generation=settings.generation,
        )
        self._desk = Desk(self._quota, epoch=1 + int.from_bytes(os.urandom(6), "big"))
        self._hub = Hub(Path(settings.socket), message_bytes_max=FRAME_BYTES_MAX)
        self._watchers: set[bytes] = set()
        self._turn: asyncio.TimerHandle | None = None
        self._beats: asyncio.TimerHandle | None = None
        self._gauges: asyncio.TimerHandle | None = None
        self._last_gauge: Gauge | None = None
        self._last_turn = -math.inf
        self._rng = random.Random()
        self.refused = 0
        self.ended: asyncio.Future[None] = self._loop.create_future()

    async def run(self) -> None:
        """Serve until a watcher says Close."""
        self._hub.listen(self._loop, self._on_message)
        try:
            await self.ended
        finally:
            for timer in (self._turn, self._beats, self._gauges):
                if timer is not None:
                    timer.cancel()
            self._hub.close()

    # --- messages -----------------------------------------------------------------------------------------

    def _on_message(self, peer: bytes, message: Message) -> None:
        desk = self._desk
        if isinstance(message, (Join, Watch)):
            self._admit(peer, message)
        elif isinstance(message, SetLimits):
            if peer in self._watchers:
                self._set_limits(message)
        elif isinstance(message, Close):
            if peer in self._watchers and not self.ended.done():
                self.ended.set_result(None)
        elif not desk.knows(peer):
            self._hub.send(peer, Rejoin())
        elif isinstance(message, Need):
            self._need(peer, message)
        elif isinstance(message, Abandon):
            desk.abandon(peer, message.upto)
        elif isinstance(message, Throttled):
            desk.throttled(message.wait_s, message.generation, self._rng.random(), self._loop.time())
            self._tell_gauges()

    def _admit(self, peer: bytes, message: Join | Watch) -> None:
        if not hmac.compare_digest(message.token.encode(), self._token.encode()):
            self.refused += 1
            self._hub.send(peer, Refuse(reason="this limiter does not know you"))
        elif isinstance(message, Join):
            self._hub.send(peer, self._desk.join(peer, message))
        else:
            self._watchers.add(peer)
            self._last_gauge = None
            self._tell_gauges()

    def _set_limits(self, message: SetLimits) -> None:
        self._desk.retune(message.rpm or None, message.tpm or None, self._loop.time())
        if self._turn is not None:
            # The turn that is due was computed under the old limits.
            self._turn.cancel()
            self._turn = self._loop.call_at(self._last_turn + TURN_S, self._give)

    def _need(self, peer: bytes, message: Need) -> None:
        try:
            known = self._desk.need(peer, message, self._loop.time())
        except Unwanted as error:
            self._hub.send(peer, Refuse(reason=str(error)))
            return
        if not known:
            self._hub.send(peer, Rejoin())
        elif self._turn is None:
            self._give()
        elif message.settled < 0:
            # What came back may let the first in the queue pass earlier than the turn that waits for it.
            self._turn.cancel()
            self._turn = self._loop.call_at(self._last_turn + TURN_S, self._give)

    # --- permits ------------------------------------------------------------------------------------------

    def _give(self) -> None:
        self._turn = None
        now = self._last_turn = self._loop.time()
        largest = self._quota.largest
        for peer, grant in self._desk.give(now):
            # A peer that is gone makes send fail; its permits are spent all the same.
            if not self._hub.send(peer, grant):
                self._desk.leave(peer)
        if self._desk.next_at < math.inf:
            self._turn = self._loop.call_at(max(self._desk.next_at, now + TURN_S), self._give)
            if self._beats is None:
                self._beats = self._loop.call_later(BEAT_S, self._beat)
        if self._quota.largest > largest:
            self._tell_gauges()
        elif self._watchers and self._gauges is None:
            self._gauges = self._loop.call_later(GAUGE_S, self._tell_gauges)

    def _beat(self) -> None:
        self._beats = None
        for peer in self._desk.who_waits():
            if not self._hub.send(peer, Beat()):
                self._desk.leave(peer)
        if self._turn is not None:
            self._beats = self._loop.call_later(BEAT_S, self._beat)

    # --- telling ------------------------------------------------------------------------------------------

    def _tell_gauges(self) -> None:
        """Tell the watchers, and again in a second as long as there is anything new."""
        if self._gauges is not None:
            self._gauges.cancel()
            self._gauges = None
        gauge = Gauge(
            granted_requests=self._desk.granted_requests,
            granted_tokens=self._desk.granted_tokens,
            waiting=self._desk.waiting,
            paused_s=self._quota.paused_s(self._loop.time()),
            pauses=self._quota.pauses,
            largest=self._quota.largest,
        )
        if gauge == self._last_gauge:
            return
        self._last_gauge = gauge
        self._watchers = {peer for peer in self._watchers if self._hub.send(peer, gauge)}
        if self._watchers:
            self._gauges = self._loop.call_later(GAUGE_S, self._tell_gauges)
