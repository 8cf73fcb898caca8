"""The limiter's loop: queues of charges in, permits out, as fast as the quota allows and no faster.

Rules of this file:
1. Whether a call may pass is asked of ``core.bucket``; this file decides whose call, and when to look again.
2. Permits leave in batches: a worker's whole turn is one message. Where permits are free they leave at once.
3. A granted permit is spent, whatever becomes of the worker. Nothing is ever handed back.
4. An idle limiter has no timer and costs nothing.
"""

import asyncio
import hmac
import os
import random
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from engine.core.bucket import Quota
from engine.wire.link import Hub
from engine.wire.messages import (
    Beat,
    Close,
    Gauge,
    Grant,
    Join,
    Joined,
    Message,
    Need,
    Refuse,
    Throttled,
    Watch,
)

TURN_S = 0.015  # between two rounds of grants under saturation: a fraction of the burst the quota allows
BEAT_S = 0.5
GAUGE_S = 1.0
QUEUE_MAX = 1_000_000  # charges a worker may have waiting
_FRAME_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LimiterSettings:
    """A limiter's start, one line of JSON on its standard input."""

    socket: str
    token: str
    rpm: int | None = None
    tpm: int | None = None
    period_s: float = 60.0
    largest: int = 0  # after a restart: the largest charge ever granted, at least 1
    generation: int = 0
    parent_pid: int = 0


@dataclass(slots=True)
class _Asker:
    """A worker's queue, and how much of the quota it was given, in seconds of refill."""

    queue: deque[int] = field(default_factory=deque)
    given_s: float = 0.0


class LimiterServer:
    """Serves one quota to all who know the token."""

    def __init__(self, settings: LimiterSettings) -> None:
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._token = settings.token
        self._quota = Quota(
            rpm=settings.rpm,
            tpm=settings.tpm,
            now=self._loop.time(),
            period_s=settings.period_s,
            largest=settings.largest,
            generation=settings.generation,
        )
        self._hub = Hub(Path(settings.socket), message_bytes_max=_FRAME_BYTES_MAX)
        self._askers: dict[bytes, _Asker] = {}
        self._watchers: set[bytes] = set()
        self._turn: asyncio.TimerHandle | None = None
        self._last_turn = 0.0
        self._beats: asyncio.TimerHandle | None = None
        self._gauges: asyncio.TimerHandle | None = None
        self._rng = random.Random()
        self._epoch = int.from_bytes(os.urandom(6), "big")
        self._granted_requests = self._granted_tokens = 0
        self.refused = 0
        self.ended: asyncio.Future[None] = self._loop.create_future()

    async def run(self) -> None:
        """Serve until told to close."""
        self._hub.listen(self._loop, self._on_message)
        try:
            await self.ended
        finally:
            self._hub.close()

    # --- messages -----------------------------------------------------------------------------------------

    def _on_message(self, peer: bytes, message: Message) -> None:
        if isinstance(message, (Join, Watch)):
            self._admit(peer, message)
            return
        if isinstance(message, Close) and peer in self._watchers:
            if not self.ended.done():
                self.ended.set_result(None)
            return
        asker = self._askers.get(peer)
        if asker is None:
            return
        if isinstance(message, Need):
            self._need(asker, message)
        elif isinstance(message, Throttled):
            wait_s = message.wait_s if message.wait_s > 0 else None
            self._quota.throttled(wait_s, message.generation, self._rng.random(), self._loop.time())
            self._look_again()

    def _admit(self, peer: bytes, message: Join | Watch) -> None:
        if not hmac.compare_digest(message.token, self._token):
            self.refused += 1
            self._hub.send(peer, Refuse(reason="this limiter does not know you"))
            return
        if isinstance(message, Watch):
            self._watchers.add(peer)
            self._tell_gauges()
            return
        # Who comes later shares from now on; what others had before is not made up for.
        active = [asker.given_s for asker in self._askers.values() if asker.queue]
        self._askers[peer] = _Asker(given_s=min(active, default=self._most_given()))
        if message.largest:
            self._quota.inherit(max(1, message.largest))
        joined = Joined(epoch=self._epoch, rpm=self._settings.rpm or 0, tpm=self._settings.tpm or 0)
        self._hub.send(peer, joined)

    def _most_given(self) -> float:
        return max((asker.given_s for asker in self._askers.values()), default=0.0)

    def _need(self, asker: _Asker, message: Need) -> None:
        now = self._loop.time()
        if message.settled:
            self._quota.settle(message.settled, now)
        room = QUEUE_MAX - len(asker.queue)
        charges = [charge for charge in message.charges[:room] if charge >= 0]
        if not charges:
            return
        if not asker.queue:
            active = [other.given_s for other in self._askers.values() if other.queue]
            asker.given_s = max(asker.given_s, min(active, default=0.0))
        asker.queue.extend(charges)
        if self._turn is None:
            self._give()
        if self._beats is None:
            self._beats = self._loop.call_later(BEAT_S, self._beat)

    # --- permits ------------------------------------------------------------------------------------------

    def _give(self) -> None:
        """One round: as many permits as the quota has, whole turns for whoever had least so far."""
        self._turn = None
        now = self._last_turn = self._loop.time()
        quota = self._quota
        while True:
            peer, asker = self._next_asker()
            if asker is None:
                return
            count = self._take_turn(asker, now)
            if count:
                # A peer that is gone makes send fail; its permits are spent all the same.
                if not self._hub.send(peer, Grant(count=count, generation=quota.generation)):
                    del self._askers[peer]
            if asker.queue and peer in self._askers:
                # The quota is used up for now.
                self._turn_at(quota.next_time(asker.queue[0], now), now)
                return

    def _next_asker(self) -> tuple[bytes, _Asker | None]:
        best: tuple[bytes, _Asker | None] = (b"", None)
        least = float("inf")
        for peer, asker in self._askers.items():
            if asker.queue and asker.given_s < least:
                least = asker.given_s
                best = (peer, asker)
        return best

    def _take_turn(self, asker: _Asker, now: float) -> int:
        queue, quota = asker.queue, self._quota
        count = tokens = 0
        while queue and quota.take(queue[0], now):
            charge = queue.popleft()
            asker.given_s += quota.share(charge)
            tokens += charge
            count += 1
        self._granted_requests += count
        self._granted_tokens += tokens
        return count

    def _turn_at(self, when: float, now: float) -> None:
        if when == float("inf"):
            when = now + BEAT_S
        self._turn = self._loop.call_at(max(when, self._last_turn + TURN_S), self._give)

    def _look_again(self) -> None:
        """A pause began or grew: the next round is due at another time."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._give()

    # --- telling ------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        self._beats = None
        waiting = [peer for peer, asker in self._askers.items() if asker.queue]
        for peer in waiting:
            if not self._hub.send(peer, Beat()):
                del self._askers[peer]
        if waiting:
            self._beats = self._loop.call_later(BEAT_S, self._beat)

    def _tell_gauges(self) -> None:
        if self._gauges is not None:
            self._gauges.cancel()
        gauge = Gauge(
            granted_requests=self._granted_requests,
            granted_tokens=self._granted_tokens,
            waiting=sum(len(asker.queue) for asker in self._askers.values()),
            paused_s=self._quota.paused_s(self._loop.time()),
            pauses=self._quota.pauses,
            largest=self._quota.largest,
        )
        self._watchers = {peer for peer in self._watchers if self._hub.send(peer, gauge)}
        if self._watchers:
            self._gauges = self._loop.call_later(GAUGE_S, self._tell_gauges)
