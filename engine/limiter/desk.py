"""The limiter's decisions: whose calls pass, under which limits, and when to look again. No socket, timer or clock.

Rules of this file:
1. Whether a call may pass is asked of ``core.quota``; this file only decides whose.
2. Runs share the quota by demand and weight, a run's workers share its part; who had least so far comes first. A
   worker's calls pass in its own order, and its whole turn is one message.
3. A granted permit is spent, whatever becomes of the worker. Nothing is ever handed back.
4. The lowest limit that an attached run declared holds for all of them.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator

from engine.core.quota import NO_RATES, Quota, Rates
from engine.wire.messages import Attach, AttachedRun, Bound, Bounds, Grant, Join, Joined, Need, Observed

Cost = tuple[int, int, int]  # tokens by the provider's rule, tokens in, tokens out

QUEUE_MAX = 1_000_000  # calls of one worker that may wait
SHARE_MIN, SHARE_MAX = 1e-3, 1e3


class Unwanted(ValueError):
    """A worker asked for what no worker of ours asks for; ``str()`` is a sentence for its log."""


class Asker:
    """One worker's queue. Its calls are numbered from 0: ``given`` of them may go, ``told`` are known."""

    __slots__ = ("given", "pid", "queue", "slot", "stuck", "told", "used_s")

    def __init__(self, slot: int, pid: int, used_s: float) -> None:
        self.slot = slot
        self.pid = pid
        self.queue: deque[Cost] = deque()
        self.told = 0
        self.given = 0
        self.used_s = used_s  # how much of the quota it had, as seconds of refill
        self.stuck = False  # a call in its queue can never pass: it is to abandon it

    @property
    def waits(self) -> bool:
        """Whether any of its calls could be granted."""
        return bool(self.queue) and not self.stuck


class Party:
    """One run: its workers, and what it declared. Nothing is granted to it before it has attached."""

    __slots__ = (
        "askers",
        "declared",
        "granted_requests",
        "granted_tokens",
        "label",
        "pid",
        "share",
        "used_s",
    )

    def __init__(self, pid: int, used_s: float) -> None:
        self.pid = pid
        self.askers: dict[bytes, Asker] = {}
        self.used_s = used_s  # the same for all its workers together, divided by its share
        self.share = 0.0  # until it has attached
        self.label = ""
        self.declared = NO_RATES
        self.granted_requests = 0
        self.granted_tokens = 0

    @property
    def waiting(self) -> int:
        """How many calls of it wait."""
        return sum(len(asker.queue) for asker in self.askers.values())

    def next_asker(self) -> tuple[bytes, Asker | None]:
        """Of its workers that wait, the one that had least."""
        best: tuple[bytes, Asker | None] = (b"", None)
        least = math.inf
        for peer, asker in self.askers.items():
            if asker.waits and asker.used_s < least:
                least = asker.used_s
                best = (peer, asker)
        return best

    @property
    def waits(self) -> bool:
        """Whether any of its calls could be granted."""
        return any(asker.waits for asker in self.askers.values())


class Desk:
    """All runs of one quota. ``next_at``: when ``give`` should be called next, infinite when nobody waits.

    ``quota`` may have limits before any run declared one: they hold until the first has attached, and with
    ``hold`` beside those of the runs until that time, so that all have come back after a restart.
    """

    def __init__(self, quota: Quota, epoch: int, *, hold_until: float = -math.inf) -> None:
        self._quota = quota
        self._epoch = epoch
        self._hold_until = hold_until
        self._held = quota.rates
        self._endpoint = NO_RATES  # the limits in its reply headers
        self._parties: dict[int, Party] = {}
        self._party_of: dict[bytes, Party] = {}
        self.next_at = math.inf
        self.granted_requests = 0
        self.granted_tokens = 0

    # --- runs ---------------------------------------------------------------------------------------------

    @property
    def runs(self) -> set[int]:
        """The process ids of the runs that have attached or whose workers have joined."""
        return set(self._parties)

    def attach(self, message: Attach, now: float) -> None:
        """A run uses the quota, or declares other limits."""
        party = self._party(message.run)
        party.label = message.label
        party.declared = message.declared
        party.share = min(max(message.share, SHARE_MIN), SHARE_MAX)
        self.retune(now)

    def detach(self, run: int, now: float) -> None:
        """A run is gone, its workers with it."""
        party = self._parties.pop(run, None)
        if party is None:
            return
        for peer in party.askers:
            del self._party_of[peer]
        self.retune(now)

    def retune(self, now: float) -> None:
        """Make hold what holds now."""
        if any(party.share for party in self._parties.values()):
            limits = (limit or None for limit in self.bounds(now).rates)
            self._quota.retune(now, **dict(zip(Rates._fields, limits, strict=True)))

    def bounds(self, now: float) -> Bounds:
        """The limits, and who declared them."""
        held = self._held if now < self._hold_until else NO_RATES
        parties = [party for party in self._parties.values() if party.share]
        return Bounds(
            *(
                _bound([(party.declared[kind], party.label) for party in parties], held[kind], endpoint)
                for kind, endpoint in enumerate(self._endpoint)
            )
        )

    @property
    def endpoint(self) -> Rates:
        """The limits that the endpoint's reply headers name, as last heard."""
        return self._endpoint

    def observe(self, message: Observed, now: float) -> Rates:
        """Take in what reply headers say. Returns what of their use somebody else must have had."""
        heard = Rates(*(new or old for new, old in zip(message.limits, self._endpoint, strict=True)))
        if heard != self._endpoint:
            self._endpoint = heard
            self.retune(now)
        return self._quota.explain(message.used, now)

    def report(self) -> list[AttachedRun]:
        """Every attached run, by process id."""
        return [
            AttachedRun(
                party.pid,
                party.label,
                party.declared,
                party.share,
                len(party.askers),
                party.waiting,
                party.granted_requests,
                party.granted_tokens,
            )
            for _, party in sorted(self._parties.items())
            if party.share
        ]

    # --- workers ------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return sum(party.waiting for party in self._parties.values())

    def who_waits(self) -> list[bytes]:
        """The peers that have calls waiting."""
        return [peer for peer, asker in self._askers() if asker.queue]

    def who_is_stuck(self) -> list[bytes]:
        """The peers with a call that can never pass under the limits of now."""
        found = []
        for peer, asker in self._askers():
            asker.stuck = any(self._quota.impossible(*cost) for cost in asker.queue)
            if asker.stuck:
                found.append(peer)
        return found

    def knows(self, peer: bytes) -> bool:
        """Has this peer joined?"""
        return peer in self._party_of

    def join(self, peer: bytes, message: Join) -> Joined:
        """Admit a worker. A new process in a slot ends the old one's queue; the same one finds its own again."""
        if message.largest > 0 and message.epoch != self._epoch:
            self._quota.inherit(message.largest)
        party = self._party(message.run)
        asker = party.askers.get(peer)
        if asker is None or asker.pid != message.pid or asker.slot != message.slot:
            asker = None
            for other, found in list(party.askers.items()):
                if found.slot == message.slot:
                    self.leave(other)
                    if found.pid == message.pid:
                        asker = found
            if asker is None:
                asker = Asker(message.slot, message.pid, _least(party.askers.values()))
            party.askers[peer] = asker
            self._party_of[peer] = party
        return Joined(
            epoch=self._epoch,
            told=asker.told,
            given=asker.given,
            generation=self._quota.generation,
            serial=message.serial,
        )

    def leave(self, peer: bytes) -> None:
        """A peer is gone: nothing more is granted to it."""
        party = self._party_of.pop(peer, None)
        if party is not None:
            del party.askers[peer]

    def need(self, peer: bytes, message: Need, now: float) -> bool:
        """Queue a worker's calls and settle what it reports. False when a message before this one was lost.

        Raises Unwanted, and forgets the worker, for charges that make no sense or a queue without bounds.
        """
        party = self._party_of[peer]
        asker = party.askers[peer]
        if message.first > asker.told:
            return False
        if message.settled or message.settled_in or message.settled_out:
            self._quota.settle(message.settled, now, message.settled_in, message.settled_out)
        new = len(message.charges) - (asker.told - message.first)
        if new <= 0:
            return True
        costs = self._costs(peer, message, new)
        if len(asker.queue) + new > QUEUE_MAX:
            self.leave(peer)
            raise Unwanted(f"more than {QUEUE_MAX} calls wait for permits in one worker")
        # What they did not ask for while they were away is not made up for.
        if not party.waits:
            party.used_s = max(party.used_s, _least(self._parties.values()))
        if not asker.waits:
            asker.used_s = max(asker.used_s, _least(party.askers.values()))
        asker.queue.extend(costs)
        asker.told += new
        dearest = (max(part) for part in zip(*costs, strict=True))
        if self._quota.impossible(*dearest):
            asker.stuck = True
        return True

    def _costs(self, peer: bytes, message: Need, new: int) -> list[Cost]:
        """What the last ``new`` calls of a message cost. Raises Unwanted."""
        charges, parts = message.charges, message.parts
        if min(charges) < 0 or min(parts, default=0) < 0:
            self.leave(peer)
            raise Unwanted("no call costs less than nothing")
        if not parts:
            return [(charge, 0, 0) for charge in charges[-new:]]
        if len(parts) != 2 * len(charges):
            self.leave(peer)
            raise Unwanted("tokens in and out are told of all calls or of none")
        return list(zip(charges, parts[::2], parts[1::2], strict=True))[-new:]

    def is_stuck(self, peer: bytes) -> bool:
        """Whether a call of this worker can never pass."""
        return self._party_of[peer].askers[peer].stuck

    def abandon(self, peer: bytes, upto: int) -> None:
        """Drop the worker's calls numbered below ``upto``."""
        asker = self._party_of[peer].askers[peer]
        for _ in range(min(upto - asker.given, len(asker.queue))):
            asker.queue.popleft()
        asker.given = max(asker.given, upto)
        asker.told = max(asker.told, upto)
        asker.stuck = any(self._quota.impossible(*cost) for cost in asker.queue)

    def throttled(self, wait_s: float, generation: int, jitter: float, now: float) -> None:
        """A worker met a 429; see ``Quota.throttled``."""
        self._quota.throttled(wait_s, generation, jitter, now)

    # --- permits ------------------------------------------------------------------------------------------

    def give(self, now: float) -> list[tuple[bytes, Grant]]:
        """Grant all that may pass now, at most one message for each worker."""
        quota = self._quota
        grants: list[tuple[bytes, Grant]] = []
        while True:
            party, peer, asker = self._next()
            if party is None or asker is None:
                self.next_at = math.inf
                return grants
            queue = asker.queue
            count = tokens = into = out = 0
            while queue:
                cost, cost_in, cost_out = queue[0]
                if not quota.take(cost, now, cost_in, cost_out):
                    break
                queue.popleft()
                count += 1
                tokens += cost
                into += cost_in
                out += cost_out
            if count:
                share_s = quota.share(count, tokens, into, out)
                asker.given += count
                asker.used_s += share_s
                party.used_s += share_s / party.share
                party.granted_requests += count
                party.granted_tokens += tokens
                self.granted_requests += count
                self.granted_tokens += tokens
                grants.append((peer, Grant(upto=asker.given, generation=quota.generation)))
            if queue:
                cost, cost_in, cost_out = queue[0]
                self.next_at = quota.next_time(cost, now, cost_in, cost_out)
                return grants

    def _next(self) -> tuple[Party | None, bytes, Asker | None]:
        """Whose turn it is."""
        best: tuple[Party | None, bytes, Asker | None] = (None, b"", None)
        least = math.inf
        for party in self._parties.values():
            if party.share and party.used_s < least:
                peer, asker = party.next_asker()
                if asker is not None:
                    least = party.used_s
                    best = (party, peer, asker)
        return best

    def _party(self, run: int) -> Party:
        party = self._parties.get(run)
        if party is None:
            party = self._parties[run] = Party(run, _least(self._parties.values()))
        return party

    def _askers(self) -> Iterator[tuple[bytes, Asker]]:
        for party in self._parties.values():
            yield from party.askers.items()


def _least(those: Iterable[Party] | Iterable[Asker]) -> float:
    """Where one starts that had nothing so far: level with the ones that wait, or with the last."""
    known = [(one.used_s, one.waits) for one in those]
    waiting = [used_s for used_s, waits in known if waits]
    return min(waiting) if waiting else max((used_s for used_s, _ in known), default=0.0)


def _bound(declared: list[tuple[int, str]], held: int, endpoint: int) -> Bound:
    """The lowest of what is declared, held and heard holds; 0 is none of each."""
    limits = [(limit, label) for limit, label in declared if limit]
    lowest, highest = min(limits, default=(0, "")), max(limits, default=(0, ""))
    limit = min((limit for limit in (lowest[0], held, endpoint) if limit), default=0)
    return Bound(limit, *lowest, *highest, endpoint)
