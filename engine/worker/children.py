"""Processes for functions that compute: each calls the function for one row at a time, and is replaced when it dies.

Rules of this file:
1. A child is told on its standard input, once, what function it is to call; then arguments go in and results come out as JSON.
   No library's process pool is used: it would pickle both, could not end a call that hangs, and breaks when a child dies.
2. A call that takes too long is ended with its process. A child that dies costs its own row, nothing else.
3. There are never more children than work.
"""

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

from engine.core.errors import ErrorKind
from engine.core.model import Failure, Reply
from engine.formats.rows import encode_values
from engine.handover import ChildSettings, encode_handover
from engine.steps.call import raised
from engine.worker.fault import die_of_task
from engine.worker.frames import READY, Frames, framed, heard

MODULE: Final = "engine.worker.child"
END_S: Final = 1.0  # how long the end of the children is waited for

OnResult = Callable[[Reply | Failure], None]


class Child(asyncio.SubprocessProtocol):
    """One of them."""

    def __init__(self, pool: "Children", now: float) -> None:
        self._pool = pool
        self._frames = Frames()
        self.transport: asyncio.SubprocessTransport | None = None
        self.is_ready = False
        self.on_done: OnResult | None = None  # who waits for what it is at
        self.since = now  # when it began what it is at
        self.has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is started: tell it what to do."""
        self.transport = cast(asyncio.SubprocessTransport, transport)  # uvloop's is no subclass of it
        self.write(self._pool.line)

    def write(self, data: bytes) -> None:
        """To its standard input."""
        assert self.transport is not None
        pipe = cast(asyncio.WriteTransport, self.transport.get_pipe_transport(0))
        pipe.write(data)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """It says that it is ready, or what a call came to."""
        for body in self._frames.feed(data):
            if body == READY:
                self._pool.is_ready(self)
            else:
                self._pool.ended(self, heard(body))

    def process_exited(self) -> None:
        """It is gone."""
        self.has_ended = True
        if self.transport is not None:
            self.transport.close()
        self._pool.lost(self)

    def kill(self) -> None:
        """End it, whatever it does. Harmless when it has ended."""
        if self.transport is not None and not self.has_ended:
            try:
                self.transport.kill()
            except ProcessLookupError:
                pass


class Children:
    """At most ``processes_max`` of them (default: one for each core)."""

    def __init__(
        self,
        settings: ChildSettings,
        *,
        timeout_s: float,
        late: Callable[[], Failure],
        processes_max: int = 0,
    ) -> None:
        """``late``: the failure of a call that takes longer than ``timeout_s``."""
        self.line = encode_handover(settings)
        self.processes_max = processes_max or os.cpu_count() or 1
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._late = late
        self._waiting: deque[tuple[bytes, OnResult]] = deque()
        self._children: set[Child] = set()
        self._killed: set[Child] = set()  # and not gone yet
        self._idle: list[Child] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def start(self, arguments: Any, on_done: OnResult) -> None:
        """Call the function with these in some child. The result comes later, never within this call."""
        try:
            frame = framed(encode_values(arguments))
        except Exception as error:
            self._loop.call_soon(on_done, raised(error))
            return
        self._waiting.append((frame, on_done))
        self._assign()

    def _assign(self) -> None:
        while self._waiting and self._idle:
            child = self._idle.pop()
            frame, child.on_done = self._waiting.popleft()
            child.since = self._loop.time()
            child.write(frame)
        coming = sum(not child.is_ready for child in self._children)
        for _ in range(min(len(self._waiting) - coming, self.processes_max - len(self._children))):
            self._bear()

    def _bear(self) -> None:
        child = Child(self, self._loop.time())
        self._children.add(child)
        task = self._loop.create_task(self._started(child))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        task.add_done_callback(die_of_task)

    async def _started(self, child: Child) -> None:
        try:
            await self._loop.subprocess_exec(
                lambda: child, sys.executable, "-m", MODULE, stderr=None, close_fds=True
            )
        except OSError as error:
            self._children.discard(child)
            self._fail_one(f"the system does not start a process for it: {error}")

    # --- what children say ----------------------------------------------------------------------------------

    def is_ready(self, child: Child) -> None:
        """It has found the function."""
        child.is_ready = True
        self._idle.append(child)
        self._assign()

    def ended(self, child: Child, result: Reply | Failure) -> None:
        """A call has ended."""
        on_done, child.on_done = child.on_done, None
        if on_done is None:
            return  # it was given up a moment ago
        self._idle.append(child)
        on_done(result)
        self._assign()

    def lost(self, child: Child) -> None:
        """It has died."""
        self._killed.discard(child)
        if child not in self._children:
            return  # it took too long
        self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        assert child.transport is not None
        code = child.transport.get_returncode() or 0
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        on_done, child.on_done = child.on_done, None
        if on_done is not None:
            on_done(Failure(ErrorKind.FUNCTION_ERROR, f"the function's process ended {how} while it ran"))
        elif not child.is_ready and not self._is_closed:
            self._fail_one(f"its process ended {how} before the function was found")
        if not self._is_closed:
            self._assign()

    def _fail_one(self, why: str) -> None:
        """A child that could not start costs the row it was meant for, so that there is an end to it."""
        if self._waiting:
            _, on_done = self._waiting.popleft()
            on_done(Failure(ErrorKind.FUNCTION_ERROR, f"the function was not called: {why}"))

    # --- time -----------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """End the calls, and the starts, that take too long; ``now`` is the loop's time."""
        for child in list(self._children):
            if now - child.since < self._timeout_s or (child.is_ready and child.on_done is None):
                continue
            self._children.discard(child)
            self._killed.add(child)
            child.kill()
            on_done, child.on_done = child.on_done, None
            if on_done is not None:
                on_done(self._late())
            else:
                self._fail_one("its process did not start in time")
        self._assign()

    async def close(self) -> None:
        """End all of them."""
        self._is_closed = True
        self._waiting.clear()
        if self._starting:
            await asyncio.wait(self._starting, timeout=END_S)
        for child in self._children:
            child.on_done = None
            child.kill()
        until = self._loop.time() + END_S
        while (self._children or self._killed) and self._loop.time() < until:
            await asyncio.sleep(0.005)
