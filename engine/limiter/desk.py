"""The limiter's decisions: whose calls pass, and when to look again. No socket, no timer, no clock.

Rules of this file:
1. Whether a call may pass is asked of ``core.bucket``; this file only decides whose.
2. Each worker's calls pass in its own order. Between workers, who had least of the quota so far comes first,
   and a worker's whole turn is one message.
3. A granted permit is spent, whatever becomes of the worker. Nothing is ever handed back.
"""

import math
from collections import deque

from engine.core.bucket import Quota
from engine.wire.messages import Grant, Join, Joined, Need

QUEUE_MAX = 1_000_000  # calls of one worker that may wait


class Unwanted(ValueError):
    """A worker asked for what no worker of ours asks for; ``str()`` is a sentence for its log."""


class Asker:
    """One worker's queue. Its calls are numbered from 0: ``given`` of them may go, ``told`` are known."""

    __slots__ = ("given", "pid", "queue", "slot", "told", "used_s")

    def __init__(self, slot: int, pid: int, used_s: float) -> None:
        self.slot = slot
        self.pid = pid
        self.queue: deque[int] = deque()
        self.told = 0
        self.given = 0
        self.used_s = used_s  # how much of the quota it had, as seconds of refill


class Desk:
    """All workers of one quota. ``next_at``: when ``give`` should be called next, infinite when nobody waits."""

    def __init__(self, quota: Quota, epoch: int) -> None:
        self._quota = quota
        self._epoch = epoch
        self._askers: dict[bytes, Asker] = {}
        self.next_at = math.inf
        self.granted_requests = 0
        self.granted_tokens = 0

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return sum(len(asker.queue) for asker in self._askers.values())

    def who_waits(self) -> list[bytes]:
        """The peers that have calls waiting."""
        return [peer for peer, asker in self._askers.items() if asker.queue]

    def knows(self, peer: bytes) -> bool:
        """Has this peer joined?"""
        return peer in self._askers

    def join(self, peer: bytes, message: Join) -> Joined:
        """Admit a worker. A new process in a slot ends the old one's queue; the same one finds its own again."""
        if message.largest > 0 and message.epoch != self._epoch:
            self._quota.inherit(message.largest)
        asker = self._askers.get(peer)
        if asker is None or asker.pid != message.pid or asker.slot != message.slot:
            asker = None
            for other, found in list(self._askers.items()):
                if found.slot == message.slot:
                    del self._askers[other]
                    if found.pid == message.pid:
                        asker = found
            if asker is None:
                asker = Asker(message.slot, message.pid, self._least_used())
            self._askers[peer] = asker
        return Joined(
            epoch=self._epoch, told=asker.told, given=asker.given, generation=self._quota.generation
        )

    def leave(self, peer: bytes) -> None:
        """A peer is gone: nothing more is granted to it."""
        self._askers.pop(peer, None)

    def need(self, peer: bytes, message: Need, now: float) -> bool:
        """Queue a worker's calls and settle what it reports. False when a message before this one was lost.

        Raises Unwanted, and forgets the worker, for charges that could never pass or a queue without bounds.
        """
        asker = self._askers[peer]
        if message.first > asker.told:
            return False
        if message.settled:
            self._quota.settle(message.settled, now)
        charges = message.charges[asker.told - message.first :]
        if not charges:
            return True
        if min(charges) < 0 or self._quota.impossible(max(charges)):
            self.leave(peer)
            raise Unwanted(f"a call that costs {max(charges)} tokens can never be granted")
        if len(asker.queue) + len(charges) > QUEUE_MAX:
            self.leave(peer)
            raise Unwanted(f"more than {QUEUE_MAX} calls wait for permits in one worker")
        if not asker.queue:
            # What it did not ask for while it was away is not made up for.
            asker.used_s = max(asker.used_s, self._least_used())
        asker.queue.extend(charges)
        asker.told += len(charges)
        return True

    def abandon(self, peer: bytes, upto: int) -> None:
        """Drop the worker's calls numbered below ``upto``."""
        asker = self._askers[peer]
        for _ in range(min(upto - asker.given, len(asker.queue))):
            asker.queue.popleft()
        asker.given = max(asker.given, upto)
        asker.told = max(asker.told, upto)

    def throttled(self, wait_s: float, generation: int, jitter: float, now: float) -> None:
        """A worker met a 429; see ``Quota.throttled``."""
        self._quota.throttled(wait_s, generation, jitter, now)

    def retune(self, rpm: int | None, tpm: int | None, now: float) -> None:
        """Other limits, where there are such. No TPM below a call that waits already: it could never pass."""
        if tpm is not None:
            tpm = max([tpm, *(max(asker.queue) for asker in self._askers.values() if asker.queue)])
        self._quota.retune(now, rpm=rpm, tpm=tpm)

    def give(self, now: float) -> list[tuple[bytes, Grant]]:
        """Grant all that may pass now, at most one message for each worker."""
        quota = self._quota
        grants: list[tuple[bytes, Grant]] = []
        while True:
            peer, asker = self._next_asker()
            if asker is None:
                self.next_at = math.inf
                return grants
            queue = asker.queue
            count = tokens = 0
            while queue and quota.take(queue[0], now):
                tokens += queue.popleft()
                count += 1
            if count:
                asker.given += count
                asker.used_s += quota.share(count, tokens)
                self.granted_requests += count
                self.granted_tokens += tokens
                grants.append((peer, Grant(upto=asker.given, generation=quota.generation)))
            if queue:
                self.next_at = quota.next_time(queue[0], now)
                return grants

    def _next_asker(self) -> tuple[bytes, Asker | None]:
        best: tuple[bytes, Asker | None] = (b"", None)
        least = math.inf
        for peer, asker in self._askers.items():
            if asker.queue and asker.used_s < least:
                least = asker.used_s
                best = (peer, asker)
        return best

    def _least_used(self) -> float:
        """Where a worker starts that had nothing so far: level with the ones that wait, or with the last."""
        waiting = [asker.used_s for asker in self._askers.values() if asker.queue]
        if waiting:
            return min(waiting)
        return max((asker.used_s for asker in self._askers.values()), default=0.0)
