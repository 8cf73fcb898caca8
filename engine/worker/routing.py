"""Which endpoint takes a row: one that may be sent to, has room, and carries the least for its weight.

Rules of this file:
1. Decisions only: nothing is sent or queued here. With one endpoint there is nothing to decide.
2. An endpoint that is left alone gets nothing but probes. One of weight 0 gets rows only while no other is well.
3. A row goes back to an endpoint that failed it only if no other one is well; to one that will not serve it, never.
"""

import math
from typing import Final

from engine.core.errors import Health
from engine.core.model import Failure
from engine.wire.messages import OutcomeLine
from engine.worker.execute import Later, RowRun
from engine.worker.lane import Lane

HOPELESS_S: Final = (
    60.0  # an endpoint that has been ill for so long is not waited for by rows that others refused
)


class Router:
    """The lanes of one worker, at least one."""

    def __init__(self, lanes: list[Lane]) -> None:
        self._only = lanes[0] if len(lanes) == 1 else None
        self._lanes = lanes
        self._tiers = [
            tier
            for tier in ([one for one in lanes if one.weight > 0], [one for one in lanes if one.weight <= 0])
            if tier
        ]

    def pick(self, now: float, avoid: int = 0, shut: int = 0) -> Lane | None:
        """The lane for one more row, if one has room. ``avoid`` and ``shut``: bits of lanes, see rule 3."""
        only = self._only
        if only is not None:
            return only if only.has_room() else None
        for tier in self._tiers:
            best, least, some_well = None, math.inf, False
            for lane in tier:
                if lane.bit & (avoid | shut) or not lane.is_well(now):
                    continue
                some_well = True
                load = (lane.engaged + 1) / (lane.weight or 1.0)
                if load < least and lane.has_room():
                    best, least = lane, load
            if some_well:
                return best
        return self.pick(now, 0, shut) if avoid else None

    def diverts(
        self, lane: Lane, run: RowRun, step: OutcomeLine | Later, failure: Failure, now: float
    ) -> bool:
        """Whether a row that ``lane`` failed goes to another endpoint, instead of what ``step`` says."""
        if self._only is not None:
            return False
        health = lane.health_of(failure)
        if isinstance(step, OutcomeLine):
            return health is Health.OUT and self.shuts(lane, run, step, now)
        if health in (Health.WELL, Health.NOTHING):
            return False
        run.avoid |= lane.bit
        if any(one.is_well(now) and not one.bit & (run.avoid | run.shut) for one in self._lanes):
            return True
        run.avoid = 0  # all have failed it: after a while it may go anywhere
        return False

    def shuts(self, lane: Lane, run: RowRun, outcome: OutcomeLine, now: float) -> bool:
        """``lane`` will never serve this row. Whether another one may; ``outcome`` is the row's if none does."""
        run.shut |= lane.bit
        run.refused = outcome
        return self.has_place(run, now)

    def has_place(self, run: RowRun, now: float) -> bool:
        """Whether there is an endpoint that may still serve the row."""
        return any(
            not lane.bit & run.shut and (lane.breaker is None or not lane.breaker.is_ill(now, HOPELESS_S))
            for lane in self._lanes
        )

    def stuck(self, now: float) -> list[Lane]:
        """Lanes whose rows wait for permits while another lane has some to spare."""
        if self._only is not None:
            return []
        found = []
        for lane in self._lanes:
            if lane.waits_in_vain(now):
                other = self.pick(now, lane.bit)
                if other is not None and other is not lane and other.has_spared(now):
                    found.append(lane)
        return found
