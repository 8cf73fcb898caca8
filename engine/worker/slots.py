"""Request slots: each sends one request at a time, for a row.

Rules of this file:
1. A slot lives as long as the worker: a fixed set of them costs less than a new one for every row.
2. What raises while a request is sent or a result is handed over is a fault of ours, and the worker dies of it: its rows
   are leased again.
"""

from collections.abc import Callable
from time import monotonic

from engine.core.model import Failure, Reply
from engine.worker.execute import RowRun
from engine.worker.fault import die_of
from engine.worker.fetch import Fetcher, Flight
from engine.worker.roaming import Roaming

OnLanded = Callable[[RowRun, Reply | Failure, float], None]


class Slot(Flight):
    """One of them."""

    __slots__ = ("_idle", "_on_landed", "run", "started")

    def __init__(self, idle: "list[Slot]", on_landed: OnLanded) -> None:
        super().__init__()
        self._idle = idle
        self._on_landed = on_landed
        self.run: RowRun | None = None
        self.started = 0.0

    def landed(self, result: Reply | Failure) -> None:
        """Its request has ended."""
        run = self.run
        assert run is not None
        self.run = None
        self._idle.append(self)
        try:
            self._on_landed(run, result, self.started)
        except Exception as error:
            die_of(error)


class Slots:
    """As many as were ever needed at once. ``on_landed(run, result, started)``: a request has ended."""

    def __init__(self, fetcher: Fetcher | Roaming, on_landed: OnLanded) -> None:
        self._fetcher = fetcher
        self._on_landed = on_landed
        self._idle: list[Slot] = []

    def send(self, run: RowRun) -> None:
        """Send the row's call, now."""
        if self._idle:
            slot = self._idle.pop()
        else:
            slot = Slot(self._idle, self._on_landed)
            self._fetcher.register(slot)
        slot.run = run
        # The loop's own time is that of its iteration, in whole milliseconds with uvloop.
        slot.started = monotonic()
        try:
            # Where one idle connection turned out to be closed, the next one may be, too.
            self._fetcher.start(run.call, run.key, slot, slot.landed, anew=run.stale > 0)
        except Exception as error:
            die_of(error)
