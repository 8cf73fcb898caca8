"""The limiter's loop: queues of charges in, permits out, as fast as the quota allows and no faster.

Rules of this file:
1. Sockets, timers and files only; whose call passes, under which limits, and when, is the desk's to say.
2. Where permits are free they leave at once; where they are not, turns are ``TURN_S`` apart, so that each
   message carries many.
3. It lives as long as a run uses it, whoever started it. An idle limiter looks up once a second and does no more.
"""

import asyncio
import hmac
import math
import os
import random
from dataclasses import dataclass
from pathlib import Path

from engine.core.quota import NO_RATES, Memory, Quota, Rates
from engine.limiter.desk import Desk, Unwanted
from engine.limiter.registry import Entry
from engine.limiter.standing import Standing
from engine.wire.link import Hub
from engine.wire.messages import (
    Abandon,
    Attach,
    Beat,
    Gauge,
    Inspect,
    Join,
    Leave,
    Message,
    Need,
    Observed,
    Refuse,
    Rejoin,
    Report,
    Throttled,
    TooDear,
)

TURN_S = 0.03  # between two rounds of grants under saturation: a fraction of the burst the quota allows
BEAT_S = 0.25  # who waits hears from us at least this often
GAUGE_S = 1.0
LOOK_S = 1.0  # between two looks at who still uses us
HOLD_S = 5.0  # after a restart: until then the limits of before hold, whoever has come back
GENERATIONS_PER_S = 1000  # pauses are numbered from the start's time on, above those of any limiter before
FRAME_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LimiterSettings:
    """A limiter's start, one line of JSON on its standard input. 0 is no limit.

    A first start has ``largest`` 0. One that replaces a limiter which died has the largest token charge that
    was granted, at least 1; in ``limits`` the largest limits of that one's last minute, and in
    ``limits_now`` its last ones. After one that ended in peace there is its ``memory``.
    """

    folder: str  # its entry in the registry
    limits: Rates = NO_RATES
    limits_now: Rates = NO_RATES
    origin: str = ""
    model: str = ""
    period_s: float = 60.0
    largest: int = 0
    memory: Memory | None = None
    gone_s: float = 0.0


class LimiterServer:
    """Serves one quota to all who know the token. ``refused`` counts those who do not."""

    def __init__(self, settings: LimiterSettings) -> None:
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._entry = Entry(Path(settings.folder))
        self._token = self._entry.token
        now = self._began = self._loop.time()
        self._quota = Quota(
            **_or_none(settings.limits),
            now=now,
            period_s=settings.period_s,
            largest=settings.largest,
            generation=int(now * GENERATIONS_PER_S),
        )
        if settings.memory is not None:
            self._quota.remember(settings.memory, settings.gone_s)
        hold_until = -math.inf
        if settings.largest:
            self._quota.retune(now, **_or_none(settings.limits_now))
            hold_until = now + HOLD_S
        self._standing = Standing(
            self._entry,
            settings.origin,
            settings.model,
            limits=settings.limits,
            largest=settings.largest,
        )
        self._standing.limits(self._quota.rates)
        self._desk = Desk(self._quota, epoch=1 + int.from_bytes(os.urandom(6), "big"), hold_until=hold_until)
        self._held = self._entry.hold()
        self._hub = Hub(self._entry.socket, message_bytes_max=FRAME_BYTES_MAX)
        self._watchers: dict[bytes, int] = {}  # coordinators, and their process ids
        self._lives: dict[int, int] = {}  # descriptors that tell of their deaths, where the kernel does
        self._turn: asyncio.TimerHandle | None = None
        self._beats: asyncio.TimerHandle | None = None
        self._gauges: asyncio.TimerHandle | None = None
        self._look_handle: asyncio.TimerHandle | None = None
        self._last_gauge: Gauge | None = None
        self._last_turn = -math.inf
        self._granted_at_look = 0
        self._rng = random.Random()
        self.refused = 0
        self.ended: asyncio.Future[None] = self._loop.create_future()

    async def run(self) -> None:
        """Serve until no run uses it."""
        self._hub.listen(self._loop, self._on_message)
        self._look_handle = self._loop.call_later(LOOK_S, self._look)
        try:
            await self.ended
        finally:
            for timer in (self._turn, self._beats, self._gauges, self._look_handle):
                if timer is not None:
                    timer.cancel()
            for run in list(self._lives):
                self._loop.remove_reader(self._lives[run])
                os.close(self._lives.pop(run))
            self._hub.close()
            for descriptor in self._held:
                os.close(descriptor)

    # --- messages -----------------------------------------------------------------------------------------

    def _on_message(self, peer: bytes, message: Message) -> None:
        desk = self._desk
        if isinstance(message, (Join, Attach, Inspect)):
            self._admit(peer, message)
        elif isinstance(message, Leave):
            run = self._watchers.pop(peer, None)
            if run is not None:
                self._gone(run)
        elif not desk.knows(peer):
            self._hub.send(peer, Rejoin())
        elif isinstance(message, Need):
            self._need(peer, message)
        elif isinstance(message, Abandon):
            desk.abandon(peer, message.upto)
            self._reconsider()
        elif isinstance(message, Observed):
            self._observe(message)
        elif isinstance(message, Throttled):
            desk.throttled(message.wait_s, message.generation, self._rng.random(), self._loop.time())
            self._tell_gauges()

    def _admit(self, peer: bytes, message: Join | Attach | Inspect) -> None:
        if not hmac.compare_digest(message.token.encode(), self._token.encode()):
            self.refused += 1
            self._hub.send(peer, Refuse(reason="this limiter does not know you"))
        elif isinstance(message, Join):
            self._hub.send(peer, self._desk.join(peer, message))
        elif isinstance(message, Attach):
            self._watchers[peer] = message.run
            self._mind(message.run)
            self._desk.attach(message, self._loop.time())
            self._limits_changed()
        else:
            self._hub.send(peer, self._report())

    def _need(self, peer: bytes, message: Need) -> None:
        try:
            known = self._desk.need(peer, message, self._loop.time())
        except Unwanted as error:
            self._hub.send(peer, Refuse(reason=str(error)))
            return
        if not known:
            self._hub.send(peer, Rejoin())
            return
        if self._desk.is_stuck(peer):
            self._hub.send(peer, TooDear(rates=self._quota.rates))
        if self._turn is None:
            self._give()
        elif message.settled < 0:
            # What came back may let the first in the queue pass earlier than the turn that waits for it.
            self._reconsider()

    def _observe(self, message: Observed) -> None:
        self._desk.observe(message, self._loop.time())
        if self._quota.rates != self._standing.limits_now:
            self._limits_changed()

    # --- who uses it --------------------------------------------------------------------------------------

    def _limits_changed(self) -> None:
        """Who attached or left may have changed what holds: tell all it concerns."""
        self._standing.limits(self._quota.rates)
        for peer in self._desk.who_is_stuck():
            self._hub.send(peer, TooDear(rates=self._quota.rates))
        self._last_gauge = None
        self._tell_gauges()
        if self._turn is None:
            self._give()
        else:
            self._reconsider()

    def _mind(self, run: int) -> None:
        """Hear of a run's death at once; where the kernel cannot tell, the next look finds out."""
        if run in self._lives or not hasattr(os, "pidfd_open"):
            return
        try:
            descriptor = os.pidfd_open(run)
        except OSError:
            return  # it is gone already, or there are no descriptors left: a look will tell
        self._lives[run] = descriptor
        self._loop.add_reader(descriptor, self._gone, run)

    def _gone(self, run: int) -> None:
        descriptor = self._lives.pop(run, -1)
        if descriptor >= 0:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._desk.detach(run, self._loop.time())
        self._entry.unregister(run)
        self._limits_changed()
        self._end_if_unused()

    def _look(self) -> None:
        """Forget the runs that died; end when none is left."""
        self._look_handle = self._loop.call_later(LOOK_S, self._look)
        alive = self._entry.runs()
        for run in self._desk.runs - alive:
            self._watchers = {peer: its for peer, its in self._watchers.items() if its != run}
            self._gone(run)
        granted = self._desk.granted_requests
        self._standing.tick(busy=granted != self._granted_at_look)
        self._granted_at_look = granted
        self._desk.retune(self._loop.time())
        if self._quota.rates != self._standing.limits_now:
            self._limits_changed()
        self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self.ended.done():
            return
        with self._entry.locked(wait=False) as is_mine:
            if is_mine and not self._entry.runs():
                # Before the lock is free again: closing removes the socket, which then may be the next one's.
                self._hub.close()
                self._standing.close()
                self._entry.leave(self._quota.memory(self._loop.time()))
                self.ended.set_result(None)

    # --- permits ------------------------------------------------------------------------------------------

    def _give(self) -> None:
        self._turn = None
        now = self._last_turn = self._loop.time()
        largest = self._quota.largest
        grants = self._desk.give(now)
        if grants:
            self._standing.granting(self._quota.largest)
        for peer, grant in grants:
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

    def _reconsider(self) -> None:
        """The turn that is due was computed from what has changed since."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = self._loop.call_at(self._last_turn + TURN_S, self._give)

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
            bounds=self._desk.bounds(self._loop.time()),
        )
        if gauge == self._last_gauge:
            return
        self._last_gauge = gauge
        self._watchers = {peer: run for peer, run in self._watchers.items() if self._hub.send(peer, gauge)}
        if self._watchers:
            self._gauges = self._loop.call_later(GAUGE_S, self._tell_gauges)

    def _report(self) -> Report:
        now = self._loop.time()
        return Report(
            pid=os.getpid(),
            origin=self._settings.origin,
            model=self._settings.model,
            uptime_s=now - self._began,
            period_s=self._settings.period_s,
            limits=self._quota.rates,
            endpoint=self._desk.endpoint,
            used=self._quota.used(now),
            waiting=self._desk.waiting,
            paused_s=self._quota.paused_s(now),
            pauses=self._quota.pauses,
            runs=self._desk.report(),
        )


def _or_none(limits: Rates) -> dict[str, int | None]:
    return {name: limit or None for name, limit in limits._asdict().items()}
