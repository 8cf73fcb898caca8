"""What a pool keeps that has to be ended: the present run, and a temporary store.

Rules of this file:
1. It is ended with the pool, however that goes, and at the interpreter's end: after every thread that the interpreter
   waits for, because these may still run rows.
2. In a forked child nothing of it is ended, waited for or removed: it is the parent's.
"""

import os
import weakref
from pathlib import Path

from engine.api.running import Running
from engine.config import Job
from engine.core.errors import EngineError
from engine.launchers.private import PrivateFolder
from engine.store import Store


class Kept:
    """A pool's run and its temporary store, where there are any."""

    def __init__(self, private: PrivateFolder | None) -> None:
        self.running: Running | None = None
        self.is_durable = private is None
        self.is_anothers = False  # this process was forked from the one that made the pool
        self._private = private
        _ALL.add(self)

    def end(self) -> None:
        """Drain the run, and remove the store. Safe to call twice."""
        if self.running is not None:
            self.running.close()
            self.running = None
        if self._private is not None:
            self._private.remove()

    def leave(self) -> None:
        """Have no part in it any more."""
        self.is_anothers = True
        if self.running is not None:
            self.running.leave()


def counts_in(job: Job) -> tuple[int, int, int]:
    """What earlier runs came to, as ``Running.counts``, for a job that has not run yet."""
    state = Path(job.state)
    if job.fresh or not state.is_dir():
        return 0, 0, 0
    try:
        with Store.view(state) as store:
            counts = store.counts()
    except EngineError:  # the run will say what is wrong with it
        return 0, 0, 0
    return counts.ok, sum(counts.failed.values()), 0


_ALL: "weakref.WeakSet[Kept]" = weakref.WeakSet()


def _leave_all() -> None:
    for kept in list(_ALL):
        kept.leave()


os.register_at_fork(after_in_child=_leave_all)
