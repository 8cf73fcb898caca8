"""How a running run stands, once a second: for the terminal and for ``engine status``.

Rules of this file:
1. A view only: what goes wrong here never ends a run.
"""

import time
from pathlib import Path

from engine.coordinator.plan import Plan
from engine.coordinator.session import Session
from engine.observe.live import Gauges, LiveFile
from engine.observe.metrics import Metrics
from engine.observe.progress import Progress

EVERY_S = 1.0


class LiveView:
    """The view of one run, kept in ``state`` (None: nowhere) and shown by ``progress``."""

    def __init__(self, plan: Plan, state: Path | None, metrics: Metrics, progress: Progress) -> None:
        self._plan = plan
        self._metrics = metrics
        self._progress = progress
        self._file = LiveFile(state)
        self._gauges = Gauges()
        self._next = 0.0

    def tick(self, session: Session, now: float) -> None:
        """Look, if a second has passed since the last time. ``now`` is the loop's."""
        if now < self._next:
            return
        self._next = now + EVERY_S
        self._file.control = {"socket": str(session.supervisor.socket), "token": session.control.token}
        running = [
            (child, child.process) for child in session.supervisor.children if child.process is not None
        ]
        snapshot = self._metrics.snapshot(
            time.monotonic(),
            in_flight=sum(child.busy for child, _ in running),
            waiting=sum(child.waiting for child, _ in running),
            sleeping=sum(child.sleeping for child, _ in running),
            starved_s=max((child.starved_s for child, _ in running), default=0.0),
            paused_s=session.paused_s,
            workers=self._gauges.look([(child.slot, process.pid, child.busy) for child, process in running]),
            rows_guess=self._rows_guess(),
        )
        self._file.write(snapshot)
        self._progress.update(snapshot)

    def remove(self) -> None:
        """The run is over."""
        self._file.remove()

    def _rows_guess(self) -> int | None:
        """Rows of the whole input, from how much of its bytes the rows so far took."""
        guess, wanted = self._plan.source.rows_estimate(), self._plan.job.rows
        return guess if guess is None or wanted is None else min(guess, wanted)
