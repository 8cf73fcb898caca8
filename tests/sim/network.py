"""Scripted sockets, as ``wire.link`` has them, and what a storm does to the frames on their way.

Rules of this file:
1. Every message crosses as its bytes.
2. What ZeroMQ over ipc really does: a frame is late, frames of different peers overtake each other, and what is under way to a
   process that dies is lost. Between two processes that live it neither loses a frame, nor repeats it, nor changes the order.
   So these are exaggerations, meant to show that no promise hangs on the transport: frames to and from a limiter are lost or
   come twice and, where the shape says so, overtake each other; frames between coordinator and worker come twice.
3. What not even a storm does, because the engine builds on ZeroMQ for it: frames between coordinator and worker are neither lost
   (nothing repeats a Lease) nor reordered (of two Tunes the later one holds). A Grant is lost only with its limiter: the next
   one, however late, stands for both.
"""

import contextvars
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import here
from virtual import OUTSIDE, PROCESS

from engine.wire.messages import Grant, Lease, Message, decode, encode

if TYPE_CHECKING:
    from world import World

TICK_S = 1e-9


class Hub:
    """As wire.link.Hub."""

    def __init__(self, path: Path, *, message_bytes_max: int) -> None:
        self.network = here.world().network
        self.process = PROCESS.get(OUTSIDE)
        self.path = str(path)
        self.number = self.network.next_number()
        self.spokes: dict[bytes, Spoke] = {}
        self.heard: Callable[[bytes, Message], None] | None = None
        self.is_open = True
        self.context = contextvars.copy_context()
        self.network.hubs[self.path] = self

    def listen(self, loop: Any, on_message: Callable[[bytes, Message], None]) -> None:
        self.heard = on_message
        queued = self.network.queued.pop(self.path, [])
        loop.call_later(0.02, lambda: [spoke.send(message) for spoke, message in queued if spoke.is_open])

    def send(self, peer: bytes, message: Message) -> bool:
        spoke = self.spokes.get(peer)
        if spoke is None or not spoke.is_open or spoke.process.is_dead or self.process.is_dead:
            return False
        self.network.carry(self, spoke, message, lambda decoded: spoke.heard and spoke.heard(decoded))
        return True

    def close(self, linger_ms: int = 0) -> None:
        self.is_open = False


class Spoke:
    """As wire.link.Spoke."""

    def __init__(self, path: Path, *, message_bytes_max: int) -> None:
        self.network = here.world().network
        self.process = PROCESS.get(OUTSIDE)
        self.path = str(path)
        self.number = self.network.next_number()
        self.heard: Callable[[Message], None] | None = None
        self.is_open = True
        self.context = contextvars.copy_context()
        self.identity = b"peer%d" % self.number

    def listen(self, loop: Any, on_message: Callable[[Message], None]) -> None:
        self.heard = on_message

    def send(self, message: Message) -> bool:
        if self.process.is_dead:
            return True
        hub = self.network.hubs.get(self.path)
        if hub is None or not hub.is_open or hub.process.is_dead:
            # For whoever binds there next.
            self.network.queued.setdefault(self.path, []).append((self, message))
            return True
        hub.spokes[self.identity] = self
        self.network.carry(
            self, hub, message, lambda decoded: hub.heard and hub.heard(self.identity, decoded)
        )
        return True

    def close(self, linger_ms: int = 0) -> None:
        self.is_open = False


class Network:
    """All sockets of one world, and its weather."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._loop, self._random = world.loop, world.random
        self.hubs: dict[str, Hub] = {}
        self.queued: dict[str, list[tuple[Spoke, Message]]] = {}
        self.messages = self.lost = self.doubled = 0
        self.leases: set[int] = set()  # that were handed out, by the coordinator of now
        self._numbers = 0
        self._last_at: dict[tuple[int, int], float] = {}

    def next_number(self) -> int:
        """A socket's."""
        self._numbers += 1
        return self._numbers

    def carry(self, source: Any, target: Any, message: Message, deliver: Callable[[Message], Any]) -> None:
        """One message on its way; see rules 2 and 3 for what may become of it in a storm."""
        frame = encode(message)
        self.messages += 1
        if isinstance(message, Lease):
            self.leases.add(message.lease)
        random, shape, is_stormy = self._random, self._world.shape, self._world.is_stormy
        is_limiter = "limiter" in (source.process.role, target.process.role)
        copies = 1
        if is_stormy and is_limiter:
            copies = random.choice((1,) * 18 + (0, 2))
            if copies == 0 and isinstance(message, Grant) and not shape.is_first_kind:
                copies = 1
            self.lost += copies == 0
        elif is_stormy and shape.doubles:
            copies = random.choice((1,) * 18 + (2,))
        self.doubled += copies == 2
        link = (source.number, target.number)
        for _ in range(copies):
            at = self._loop.time() + (random.choice((0.0002, 0.0002, 0.002, 0.03)) if is_stormy else 0.0002)
            if not (shape.reorders and is_limiter):
                last = self._last_at.get(link, 0.0)
                # What is due at one moment is done in any order.
                at = self._last_at[link] = max(last if shape.is_first_kind else last + TICK_S, at)

            def arrive() -> None:
                if target.is_open and not target.process.is_dead:
                    deliver(decode(frame, bytes_max=10**8))

            self._loop.call_at(at, arrive, context=target.context)
