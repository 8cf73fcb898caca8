"""Request slots: coroutines that send one request at a time and are parked in between.

Rules of this file:
1. A slot lives as long as the worker: a fixed set of them costs less than a task for every row.
2. A slot that ends by itself is a fault of ours, and the worker dies of it: its rows are leased again.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from time import monotonic
from typing import Final

from engine.core.model import Failure, Reply
from engine.observe.fault import fault_text
from engine.worker.execute import RowRun
from engine.worker.fetch import Fetcher, Flight

EXIT_FAULT: Final = 70


class Slot(Flight):
    """One of them."""

    __slots__ = ("run", "waiter")

    def __init__(self) -> None:
        super().__init__()
        self.run: RowRun | None = None
        self.waiter: asyncio.Future[None] | None = None


class Slots:
    """As many as were ever needed at once. ``on_landed(run, result, started)``: a request has ended."""

    def __init__(self, fetcher: Fetcher, on_landed: Callable[[RowRun, Reply | Failure, float], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._fetcher = fetcher
        self._on_landed = on_landed
        self._idle: list[Slot] = []

    def send(self, run: RowRun) -> None:
        """Send the row's call, now."""
        if self._idle:
            slot = self._idle.pop()
            slot.run = run
            if slot.waiter is not None:
                slot.waiter.set_result(None)
                slot.waiter = None
            return
        slot = Slot()
        slot.run = run
        self._fetcher.register(slot)
        slot.task = self._loop.create_task(self._serve(slot))
        slot.task.add_done_callback(_fault)

    async def _serve(self, slot: Slot) -> None:
        """A slot's life: send, hand over what came, park until there is more."""
        # The loop's own time is that of its iteration, in whole milliseconds with uvloop.
        time = monotonic
        send = self._fetcher.send
        while True:
            run = slot.run
            if run is None:
                waiter = slot.waiter = self._loop.create_future()
                await waiter
                continue
            started = time()
            # Where one idle connection turned out to be closed, the next one may be, too.
            result = await send(run.call, run.key, slot, anew=run.stale > 0)
            slot.run = None
            self._idle.append(slot)
            self._on_landed(run, result, started)


def _fault(task: "asyncio.Task[None]") -> None:
    if task.cancelled():
        return
    error = task.exception()
    if error is not None:
        sys.stderr.write(fault_text(error))
        sys.stderr.flush()
        os._exit(EXIT_FAULT)
